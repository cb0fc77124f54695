"""`prepare-text --append N`: more utterances after those of a table that is used up, which stay as they are.

Codes of spoken utterances are kept by their number, so no row that exists may change. What is added is richer in what
everyday sentences lack: names, rare syllables, sentences of several clauses. See AppendSettings.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

from recipes.mini.errors import RecipeError
from recipes.mini.jobs_table import Jobs, append_jobs
from recipes.mini.languages import LANGUAGES
from recipes.mini.prepare import packages, templates
from recipes.mini.prepare.jobs import Pools, Sentence, SpellingEncoder, make_jobs, teacher_alphabet
from recipes.mini.prepare.lexicon import Lexicon, rare_words, read_lexicon
from recipes.mini.prepare.longer import around_words, linked
from recipes.mini.prepare.name_sentences import NameSentences, short_phrase
from recipes.mini.prepare.sentences import Sentences, excluded_texts, read_excluded, unlike, varied, without
from recipes.mini.prepare.supplements import Words, common_words, short_chinese, short_english, tone_contrast
from recipes.mini.prepare.text import (
    SENTENCES_PER_JOB,
    TextSources,
    phonemised,
    run_program,
    running_text,
)
from recipes.mini.settings import Settings

logger = logging.getLogger(__name__)

_SPARE = 1.3  # sentences made for each one wanted: some equal each other, some cannot be read
_SPARE_JOBS = 1.03  # some are too long for the teacher
_BEGINNINGS = 40  # sentences of running text that begin alike
_WORDS_OF_ONE = 2  # rare words to a sentence that says them
_SINGLE_WORDS = 0.4  # share of single words and old set phrases among the short utterances


class Heard:
    """What has been said: utterances by our symbols, taken apart at full stops, so also what was joined."""

    def __init__(self, table: Jobs) -> None:
        self._ends = {number for number, symbol in enumerate(table.vocabulary) if symbol in (".", "!", "?")}
        self._pieces = {piece for job in range(len(table)) for piece in self._split(table.ids(job).tolist())}

    def has(self, ids: Sequence[int]) -> bool:
        """Whether all sentences of an utterance have been said already."""
        return all(piece in self._pieces for piece in self._split(ids))

    def is_new(self, ids: Sequence[int]) -> bool:
        """The reverse, and from now on it has been said."""
        pieces = list(self._split(ids))
        new = any(piece not in self._pieces for piece in pieces)
        self._pieces.update(pieces)
        return new

    def _split(self, ids: Sequence[int]) -> Iterator[tuple[int, ...]]:
        piece: list[int] = []
        for number in ids:
            if number in self._ends:
                yield tuple(piece)
                piece = []
            else:
                piece.append(number)
        if piece:
            yield tuple(piece)


def append_text(settings: Settings, work: Path, sources: TextSources, num: int, processes: int = 2) -> int:
    """Add `num` utterances to WORK/text; returns how many the table has then.

    Deterministic from the seed, the table and the sources. Sentences that the table has, held_out.jsonl and
    sources.exclude are left out. Raises RecipeError, also if there are not enough sentences; then nothing is changed.
    """
    folder = work / "text"
    table = Jobs(folder)
    if sources.vocabulary is not None:
        raise RecipeError("--vocabulary does not go with --append: the table keeps its symbols")
    if num < 1:
        raise RecipeError(f"--append {num}: must be at least 1")
    packages.fetch(packages.TEACHER, sources.downloads)
    seed = f"{settings.seed} append {len(table)}"
    encoder, heard = SpellingEncoder(table.vocabulary), Heard(table)
    kept_out = [*sources.exclude, folder / "held_out.jsonl"]
    excluded = read_excluded(kept_out)
    for text in excluded_texts(kept_out):
        heard.is_new(encoder.ids(text))  # so that what sounds the same stays out, too
    total = round(num * _SPARE_JOBS)
    running = _left(running_text(settings, work, sources), excluded, encoder, heard, seed)
    lexicon = _lexicon(work / "lexicon.tsv", sources.python)
    texts = _Texts(settings, seed, total, encoder, NameSentences("\n".join(sorted(excluded))))
    wanted = texts.supplements(table, lexicon, running) | texts.running(running)
    wanted = {name: without(list(dict.fromkeys(made)), excluded) for name, made in wanted.items()}
    readable = phonemised(wanted, encoder, work / "phonemes", sources.python, processes)
    pools = {name: _usable(settings, found, encoder, heard) for name, found in readable.items()}
    jobs = make_jobs(
        Pools(pools["en"], pools["zh"], [(share, pools[name]) for name, share in shares(settings).items()]),
        replace(
            settings.text, num_jobs=total, num_speakers=len(table.speakers), chinese=settings.append.chinese
        ),
        seed,
        encoder,
        teacher_alphabet(sources.downloads),
    )
    if len(jobs) < num:
        raise RecipeError(f"only {len(jobs)} new utterances can be made, {num} are wanted (--append)")
    size = append_jobs(folder, jobs[:num], {"seed": settings.seed})
    logger.info("%d jobs after the %d that were there, %.1f MB", num, len(table), size / 1e6)
    return len(table) + num


def shares(settings: Settings) -> dict[str, float]:
    """Share of the added utterances that each pool beside running text gets."""
    append = settings.append
    chinese = {"en": 1 - append.chinese, "zh": append.chinese}
    rare = {"en": 1 - append.rare_chinese, "zh": append.rare_chinese}
    both = {"names": append.names, "long": append.long, "numbers": append.numbers, "short": append.short}
    found = {f"{lang} {name}": share * chinese[lang] for name, share in both.items() for lang in LANGUAGES}
    found |= {f"{lang} words": append.words * rare[lang] for lang in LANGUAGES}
    return {**found, "switched": append.switched, "tones": append.tones}


class _Texts:
    """Raw sentences of each pool, as many as the utterances can need; each pool has a random source of its own."""

    def __init__(
        self, settings: Settings, seed: str, total: int, encoder: SpellingEncoder, names: NameSentences
    ) -> None:
        self._settings, self._seed, self._total = settings, seed, total
        self._encoder, self._names = encoder, names

    def running(self, left: Sentences) -> dict[str, list[str]]:
        """Sentences from the beginning of what is left, those with rare symbols first."""
        append = self._settings.append
        return {
            language: varied(
                sentences[: self._num_running(language)],
                len(sentences),
                self._encoder.symbols,
                append.of_each_symbol,
            )
            for language, sentences in zip(LANGUAGES, (left.english, left.chinese), strict=True)
        }

    def supplements(self, table: Jobs, lexicon: Lexicon, left: Sentences) -> dict[str, list[str]]:
        """Everything else."""
        append, names = self._settings.append, self._names
        words = common_words(left.english, left.chinese)
        short = {
            "en": lambda rng: _short(rng, "en", words),
            "zh": lambda rng: _short(rng, "zh", words),
        }
        makers: dict[str, Callable[[random.Random], str]] = {
            "en names": names.english,
            "zh names": names.chinese,
            "en numbers": lambda rng: templates.english_sentence(rng, names.slots(rng)),
            "zh numbers": lambda rng: templates.chinese_sentence(rng, names.slots(rng)),
            "en short": short["en"],
            "zh short": short["zh"],
            "switched": lambda rng: templates.switched_sentence(rng, names.slots(rng)),
            "tones": lambda rng: tone_contrast(rng, words),
        }
        made = {name: self._drawn(name, make) for name, make in makers.items()}
        counts = symbol_counts(table)
        for language, sentences, dictionary in (
            ("en", left.english, lexicon.english),
            ("zh", left.chinese, lexicon.chinese),
        ):
            rng = self._random(f"{language} long")
            size = append.long_english if language == "en" else append.long_chinese
            unused = sentences[self._num_running(language) :]
            made[f"{language} long"] = list(
                islice(linked(unused, language, size, rng), self._num(f"{language} long"))
            )
            made[f"{language} words"] = self._around_rare_words(language, dictionary, counts, table)
        return made

    def _around_rare_words(
        self, language: str, dictionary: Sequence[str], counts: Counter[str], table: Jobs
    ) -> list[str]:
        rng = self._random(f"{language} words")
        prefixes = ("z_",) if language == "zh" else ("e_", "c_")
        known = {symbol for symbol in table.vocabulary if symbol.startswith(prefixes)}
        wanted = self._settings.append.of_each_symbol
        num = self._num(f"{language} words")
        chosen = rare_words(dictionary, self._encoder.symbols, counts, wanted, known)[: _WORDS_OF_ONE * num]
        rng.shuffle(chosen)  # else words of one syllable, which differ in tone alone, stand together
        return list(islice(around_words(chosen, language, rng), num))

    def _num_running(self, language: str) -> int:
        append = self._settings.append
        part = append.chinese if language == "zh" else 1 - append.chinese
        return round(SENTENCES_PER_JOB * self._total * part * (1 - sum(shares(self._settings).values())))

    def _num(self, name: str) -> int:
        return round(_SPARE * shares(self._settings)[name] * self._total)

    def _drawn(self, name: str, make: Callable[[random.Random], str]) -> list[str]:
        rng = self._random(name)
        return [make(rng) for _ in range(self._num(name))]

    def _random(self, name: str) -> random.Random:
        return random.Random(f"{self._seed} {name}")


def symbol_counts(table: Jobs) -> Counter[str]:
    """How often each of our symbols occurs in the table."""
    numbers = Counter(chain.from_iterable(table.ids(job).tolist() for job in range(len(table))))
    return Counter({table.vocabulary[number]: count for number, count in numbers.items()})


def _left(
    running: Sentences, excluded: set[str], encoder: SpellingEncoder, heard: Heard, seed: str
) -> Sentences:
    """Running text that may be used and is not in the table yet, in a random order."""
    kept = []
    for language, sentences in zip(LANGUAGES, (running.english, running.chinese), strict=True):
        fresh = [text for text in without(sentences, excluded) if not heard.has(encoder.ids(text))]
        random.Random(f"{seed} {language}").shuffle(fresh)
        kept.append(unlike(fresh, _BEGINNINGS))
        logger.info("%s: %d sentences, %d of them new", language, len(sentences), len(kept[-1]))
    return Sentences(*kept)


def _usable(
    settings: Settings, sentences: Sequence[Sentence], encoder: SpellingEncoder, heard: Heard
) -> list[Sentence]:
    """Those that are neither too long nor said before."""
    most = settings.append.max_phonemes
    return [item for item in sentences if len(item.phonemes) <= most and heard.is_new(encoder.ids(item.text))]


def _short(rng: random.Random, language: str, words: Words) -> str:
    if rng.random() >= _SINGLE_WORDS:
        return short_phrase(rng, language)
    return short_english(rng, words) if language == "en" else short_chinese(rng, words)


def _lexicon(path: Path, python: Path) -> Lexicon:
    if not path.is_file():
        run_program(python, "recipes.mini.prepare.lexicon", ["--out", path])
    return read_lexicon(path)
