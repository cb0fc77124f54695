"""`prepare-text`: from sentences to the table of utterances and the voices, WORK/text. Continues where it was stopped.

What needs misaki runs as a program of the prepare environment (requirements-prepare.txt); all else runs here.
"""

from __future__ import annotations

import json
import logging
import random
import re
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import save_file

from light_tts.encode.text import TextNormaliser, language_of
from light_tts.quirks import ReferenceQuirks
from recipes.mini.errors import RecipeError
from recipes.mini.jobs_table import write_jobs
from recipes.mini.languages import LANGUAGES
from recipes.mini.prepare import packages, templates
from recipes.mini.prepare.jobs import Pools, Sentence, SpellingEncoder, make_jobs, teacher_alphabet
from recipes.mini.prepare.phonemise import read_phonemes
from recipes.mini.prepare.sentences import (
    Sentences,
    hold_out,
    read_excluded,
    read_sentences,
    unlike,
    varied,
    without,
)
from recipes.mini.prepare.speakers import make_speakers, read_voices
from recipes.mini.prepare.supplements import common_words, short_chinese, short_english, tone_contrast
from recipes.mini.prepare.vocabulary import build_vocabulary, read_vocabulary
from recipes.mini.settings import Settings, TextSettings

logger = logging.getLogger(__name__)

SENTENCES_PER_JOB = 2.2  # of running text: short ones are joined, some cannot be read
_OF_EACH_SYMBOL = 40  # sentences with it, where there are so many
_SPARE = 1.15  # supplements made for each one wanted: some equal each other


@dataclass(frozen=True, slots=True)
class TextSources:
    """What prepare-text starts from.

    downloads: folder of the packages; what is missing is fetched with pip, npm and apt-get
    python: of the prepare environment
    sentences: folder of ready lists sent_en.txt and sent_zh.txt; None makes them from packages
    exclude: texts that the voice will be judged with (.txt, .jsonl)
    vocabulary: a tokenizer.json with the symbols; None builds them from the sentences
    """

    downloads: Path
    python: Path
    sentences: Path | None = None
    exclude: tuple[Path, ...] = ()
    vocabulary: Path | None = None


def prepare_text(settings: Settings, work: Path, sources: TextSources, processes: int = 2) -> None:
    """Write WORK/text: jobs.json, jobs.safetensors, voices.safetensors, held_out.jsonl. Raises RecipeError."""
    packages.fetch(packages.TEACHER, sources.downloads)
    folder, cache = work / "text", work / "phonemes"
    running = running_text(settings, work, sources)
    excluded = read_excluded(sources.exclude)
    logger.info("sentences: %d en, %d zh", len(running.english), len(running.chinese))
    vocabulary = (
        read_vocabulary(sources.vocabulary)
        if sources.vocabulary
        else build_vocabulary(running.english, running.chinese)
    )
    encoder = SpellingEncoder(vocabulary)
    training = _hold_out(settings, running, excluded, folder)
    texts = _wanted_texts(settings, training, excluded, encoder)
    readable = phonemised(texts, encoder, cache, sources.python, processes)
    pools = Pools(
        readable["en"],
        readable["zh"],
        [(share, readable[name]) for name, share in _shares(settings.text).items()],
    )
    jobs = make_jobs(pools, settings.text, settings.seed, encoder, teacher_alphabet(sources.downloads))
    speakers, voices = make_speakers(
        settings.text.num_speakers, settings.seed, settings.text.warped_speakers, settings.text.warp
    )
    size = write_jobs(folder, jobs, speakers, voices, vocabulary, {"seed": settings.seed})
    styles = read_voices(packages.find(packages.TEACHER[-1], sources.downloads), voices)
    save_file({"voices": styles}, folder / "voices.safetensors")
    logger.info(
        "%d jobs in %.1f MB; %d voices in %.1f MB", len(jobs), size / 1e6, len(voices), styles.nbytes / 1e6
    )


def running_text(settings: Settings, work: Path, sources: TextSources) -> Sentences:
    """All sentences: ready lists, or WORK/sentences, made from packages where it is missing."""
    if sources.sentences is not None:
        return read_sentences(sources.sentences)
    folder = work / "sentences"
    if not (folder / "sent_zh.txt").is_file():
        packages.fetch(packages.SENTENCES, sources.downloads)
        options = ["--packages", sources.downloads, "--out", folder, "--seed", settings.seed]
        run_program(sources.python, "recipes.mini.prepare.sentences", options)
    return read_sentences(folder)


def _hold_out(settings: Settings, running: Sentences, excluded: set[str], folder: Path) -> Sentences:
    """Training sentences; those held out are written to held_out.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    kept, rows = [], []
    for language, sentences in zip(LANGUAGES, (running.english, running.chinese), strict=True):
        usable = unlike(without(sentences, excluded))
        training, held = hold_out(usable, settings.text.held_out, settings.seed)
        kept.append(training)
        rows += [{"lang": language, "text": text} for text in held]
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "held_out.jsonl").write_text("".join(lines), "utf-8")
    return Sentences(*kept)


def _shares(text: TextSettings) -> dict[str, float]:
    """Share of the utterances that each supplement gets."""
    chinese, english = text.chinese, 1 - text.chinese
    return {
        "en numbers": text.numbers * english,
        "zh numbers": text.numbers * chinese,
        "switched": text.switched,
        "en short": text.short * english,
        "zh short": text.short * chinese,
        "tones": text.tones,
    }


def _wanted_texts(
    settings: Settings, training: Sentences, excluded: set[str], encoder: SpellingEncoder
) -> dict[str, list[str]]:
    """Raw sentences of each pool, as many as the jobs can need."""
    text = settings.text
    words = common_words(training.english, training.chinese)
    makers: dict[str, Callable[[random.Random], str]] = {
        "en numbers": templates.english_sentence,
        "zh numbers": templates.chinese_sentence,
        "switched": templates.switched_sentence,
        "en short": lambda rng: short_english(rng, words),
        "zh short": lambda rng: short_chinese(rng, words),
        "tones": lambda rng: tone_contrast(rng, words),
    }
    wanted: dict[str, list[str]] = {}
    for name, share in _shares(text).items():
        rng = random.Random(f"{settings.seed} {name}")
        wanted[name] = without(
            [makers[name](rng) for _ in range(round(_SPARE * share * text.num_jobs))], excluded
        )
    num_running = SENTENCES_PER_JOB * text.num_jobs * (1 - sum(_shares(text).values()))
    for name, sentences, part in (
        ("en", training.english, 1 - text.chinese),
        ("zh", training.chinese, text.chinese),
    ):
        wanted[name] = varied(sentences, round(num_running * part), encoder.symbols, _OF_EACH_SYMBOL)
    return wanted


def phonemised(
    wanted: dict[str, list[str]], encoder: SpellingEncoder, cache: Path, python: Path, processes: int
) -> dict[str, list[Sentence]]:
    """The same pools, normalised, without what the teacher or our symbols cannot read."""
    normaliser = TextNormaliser(len, ReferenceQuirks())
    spoken = {name: [_Spoken.read(normaliser, raw) for raw in texts] for name, texts in wanted.items()}
    every = {item.text: item for items in spoken.values() for item in items if item.is_plain}
    cache.mkdir(parents=True, exist_ok=True)
    lines = (
        json.dumps({"text": text, "syllables": encoder.syllables(text)}, ensure_ascii=False) for text in every
    )
    (cache / "texts.jsonl").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    options = ["--texts", cache / "texts.jsonl", "--out", cache, "--processes", processes]
    run_program(python, "recipes.mini.prepare.phonemise", options)
    phonemes = read_phonemes(cache)
    readable = {
        name: [
            Sentence(item.text, item.language, found)
            for item in items
            if (found := phonemes.get(item.text)) and encoder.reads_all_of(item.text)
        ]
        for name, items in spoken.items()
    }
    for name, sentences in readable.items():
        logger.info("%s: %d of %d texts can be read", name, len(sentences), len(wanted[name]))
    return readable


@dataclass(frozen=True, slots=True)
class _Spoken:
    text: str
    language: str

    @classmethod
    def read(cls, normaliser: TextNormaliser, raw: str) -> _Spoken:
        language = language_of(raw)
        return cls(normaliser.normalise(raw, language), language)

    @property
    def is_plain(self) -> bool:
        """False if digits or signs are left that the two front ends may read differently."""
        return bool(self.text) and not re.search(
            r"[^\w\s,.!?;:'\"“”‘’，。！？；：、《》…—-]|[0-9_]", self.text
        )


def run_program(python: Path, module: str, options: Sequence[object]) -> None:
    """A program of the recipe with the prepare environment's Python; its progress goes to this terminal."""
    repository = Path(__file__).resolve().parents[3]
    command: Iterable[object] = [python, "-m", module, *options]
    try:
        status = subprocess.run([str(part) for part in command], cwd=repository, check=False).returncode
    except OSError as error:
        raise RecipeError(
            f"{python} cannot be started ({error}): make an environment with recipes/mini/requirements-prepare.txt"
        ) from error
    if status:
        raise RecipeError(f"{module} ended with exit status {status}")
