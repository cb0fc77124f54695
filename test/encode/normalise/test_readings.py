"""Sentences and how a speaker reads them: `data/readings_*.tsv`, one tab between."""

from __future__ import annotations

from pathlib import Path

import pytest

from light_tts.encode.text import TextNormaliser
from light_tts.quirks import ReferenceQuirks

DATA = Path(__file__).parent.parent / "data"


def readings(language: str) -> list[tuple[str, str]]:
    lines = (DATA / f"readings_{language}.tsv").read_text("utf-8").splitlines()
    pairs = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return [(text, spoken) for text, spoken in pairs]


@pytest.fixture(scope="module")
def normaliser() -> TextNormaliser:
    return TextNormaliser(len, ReferenceQuirks())


@pytest.mark.parametrize(("text", "spoken"), readings("en") + readings("zh"))
def test_text_is_read_as_a_speaker_would(normaliser: TextNormaliser, text: str, spoken: str) -> None:
    assert normaliser.normalise(text) == spoken


@pytest.mark.parametrize(("text", "spoken"), readings("en") + readings("zh"))
def test_what_is_spoken_stays_as_it_is(normaliser: TextNormaliser, text: str, spoken: str) -> None:
    assert normaliser.normalise(spoken) == spoken


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_digits_are_left(normaliser: TextNormaliser, language: str) -> None:
    for text, _ in readings(language):
        assert not any(char.isdigit() for char in normaliser.normalise(text))


def test_there_are_enough_sentences() -> None:
    assert len(readings("en")) >= 60
    assert len(readings("zh")) >= 60


def test_text_that_is_already_spoken_is_not_changed(normaliser: TextNormaliser) -> None:
    for text in ("Hello, how are you? I'm fine!", "收到好友从远方寄来的生日礼物，那份意外的惊喜。"):
        assert normaliser.normalise(text) == text
