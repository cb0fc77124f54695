"""Texts and what is heard of them, through the front end of the bundled voice: `data/heard_*.tsv`, with reasons."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from light_tts.encode.frontend import TextFrontend
from light_tts.encode.tokenizer import TextTokenizer
from light_tts.quirks import ReferenceQuirks

DATA = Path(__file__).parent.parent / "data"


class Case(NamedTuple):
    text: str
    heard: str
    reason: str


def _read(language: str) -> list[Case]:
    cases = []
    for line in (DATA / f"heard_{language}.tsv").read_text("utf-8").splitlines():
        if "\t" in line:  # also "# Title\nText", which is no comment
            text, heard, reason = line.split("\t")
            cases.append(Case(text.replace("\\n", "\n"), heard, reason))
    return cases


CASES = {language: _read(language) for language in ("zh", "en")}


@pytest.fixture(scope="module")
def frontend() -> TextFrontend:
    tokenizer = TextTokenizer.from_model_dir(DATA / "phonetic", 2)
    return TextFrontend(tokenizer, 2, ReferenceQuirks())


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.from_model_dir(DATA / "phonetic", 2)


@pytest.mark.parametrize("case", CASES["zh"] + CASES["en"], ids=lambda case: case.text[:24])
def test_a_text_is_heard_as_people_read_it(
    frontend: TextFrontend, tokenizer: TextTokenizer, case: Case
) -> None:
    segments = frontend.segments(case.text)
    said = " ".join(segment.text for segment in segments)
    ids = [token_id for segment in segments for token_id in segment.token_ids]
    heard = case.heard if case.heard[-1] in ".。!！?？…" else f"{case.heard}。"
    assert ids == tokenizer.encode(heard), f"said {said!r}"


@pytest.mark.parametrize("language", ["zh", "en"])
def test_there_are_at_least_150_cases_each_with_its_reason(language: str) -> None:
    cases = CASES[language]
    assert len(cases) >= 150
    assert len({case.text for case in cases}) == len(cases)
    assert all(case.reason.strip() for case in cases)
    assert not any(char.isdigit() for case in cases for char in case.heard)
