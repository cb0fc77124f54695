from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict

import pytest

from light_tts.encode.phonemes import PhonemeEncoder, fold_accents, normalise

DATA = Path(__file__).parent / "data"


class Case(TypedDict):
    text: str
    normalised: str
    symbols: list[str]
    ids: list[int]


CASES: list[Case] = json.loads((DATA / "phoneme_cases.json").read_text("utf-8"))
VOCABULARY: dict[str, int] = json.loads((DATA / "phonetic" / "tokenizer.json").read_text("utf-8"))["model"][
    "vocab"
]


@pytest.fixture(scope="module")
def encoder() -> PhonemeEncoder:
    return PhonemeEncoder(VOCABULARY)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["text"][:20])
def test_text_becomes_what_the_voice_was_trained_on(encoder: PhonemeEncoder, case: Case) -> None:
    assert normalise(case["text"]) == case["normalised"]
    assert encoder.symbols(case["normalised"]) == case["symbols"]
    assert encoder.encode(case["text"]) == case["ids"]


def test_there_are_a_hundred_cases() -> None:
    assert len(CASES) == 100


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024年有12345个", "二零二四年有一万二千三百四十五个"),
        ("涨了3.05%", "涨了百分之三点零五"),
        ("编号0075和123456789", "编号零零七五和一二三四五六七八九"),
        (
            "in 1905 and 2005, 1,003.5",
            "in nineteen oh five and two thousand five, one thousand three point five",
        ),
        ("12 of 300", " twelve  of  three hundred "),
        ("5% & $3", " five  percent  and   three  dollars"),
    ],
)
def test_digits_are_spelled_as_in_the_training_text(text: str, expected: str) -> None:
    assert normalise(text) == expected


@pytest.mark.parametrize("text", ["9" * 5000, "9" * 5000 + ".5", "有" + "9" * 5000 + ".5"])
def test_a_very_long_number_is_spelled(text: str) -> None:
    assert not any(char.isdigit() for char in normalise(text))


def test_a_mark_is_never_first_and_never_twice_running(encoder: PhonemeEncoder) -> None:
    assert encoder.symbols("，。你") == ["z_ni3"]
    assert encoder.symbols("你，。你") == ["z_ni3", ",", "z_ni3"]
    assert encoder.symbols("你...?!") == ["z_ni3", "!"]


def test_a_mark_may_be_first_when_text_continues(encoder: PhonemeEncoder) -> None:
    assert encoder.encode("，你", continues=True) == [VOCABULARY[","], VOCABULARY["z_ni3"]]
    assert encoder.encode("", continues=True) == []


def test_accents_do_not_hide_a_word(encoder: PhonemeEncoder) -> None:
    assert encoder.encode("café") == encoder.encode("cafe")
    assert fold_accents("Ångström, straße, 你好, ば") == "Angstrom, strasse, 你好, ば"


def test_the_letter_a_is_no_article(encoder: PhonemeEncoder) -> None:
    assert VOCABULARY["e_EY1"] in encoder.encode("ten A M")
    assert VOCABULARY["e_EY1"] not in encoder.encode("A cat and a dog")


def test_what_nobody_can_pronounce_is_passed_over(encoder: PhonemeEncoder) -> None:
    assert encoder.encode("☃ ж") == []
    assert encoder.encode("你☃好") == [VOCABULARY["z_ni3"], VOCABULARY["z_hao3"]]


def test_ü_is_written_v(encoder: PhonemeEncoder) -> None:
    assert encoder.symbols("绿女") == ["z_lv4", "z_nv3"]
