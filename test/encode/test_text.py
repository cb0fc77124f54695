from __future__ import annotations

import re

import pytest

from light_tts.encode.text import OTHER, TextNormaliser, language_of
from light_tts.quirks import ReferenceQuirks


def words(text: str) -> int:
    return len(text.split())


@pytest.fixture(scope="module")
def normaliser() -> TextNormaliser:
    return TextNormaliser(words, ReferenceQuirks())


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("hello", None, "en"), ("hello 你", None, "zh"), ("", None, "en"), ("3、4。", None, "zh"), ("5", "auto", "en"),
        ("你好", "en", "en"), ("hello", "zh-CN", "zh"), ("hello", "ZH_hans", "zh"), ("hello", "en-US", "en"),
        ("hallo", "de", OTHER), ("やあ", "ja", OTHER),
    ],
)  # fmt: skip
def test_the_language_is_the_request_s_or_else_the_text_s(
    text: str, language: str | None, expected: str
) -> None:
    assert language_of(text, language) == expected


def test_numbers_of_other_languages_are_left_to_the_model(normaliser: TextNormaliser) -> None:
    assert normaliser.normalise("Ich habe 5 Äpfel.", "de") == "Ich habe 5 Äpfel."
    assert normaliser.split("Ich habe 5 Äpfel", "de") == ["Ich habe 5 Äpfel."]


def test_the_language_decides_how_a_number_is_read(normaliser: TextNormaliser) -> None:
    assert normaliser.normalise("5", "zh") == "五"
    assert normaliser.normalise("5", "en") == "five"


def test_adjacent_marks_and_decimals_survive_the_product_but_not_the_reference(
    normaliser: TextNormaliser,
) -> None:
    text = "What?! It is 3.14, no..."
    assert normaliser.split(text) == ["What?! It is three point one four, no..."]
    reference = TextNormaliser(words, ReferenceQuirks.reference())
    assert reference.split(text) == ["What? It is three.fourteen, no."]


def test_control_tokens_switch_normalisation_off_in_reference_mode_only(normaliser: TextNormaliser) -> None:
    text = "<|x|> 5"
    assert TextNormaliser(words, ReferenceQuirks.reference()).split(text) == [text]
    assert "five" in normaliser.split(text)[0]


def test_the_reference_can_read_numbers_with_wetext() -> None:
    quirks = ReferenceQuirks.reference()
    assert TextNormaliser(words, quirks, reference_backend="wetext").split("有5个") == ["有五个。"]
    assert TextNormaliser(words, quirks).split("有5个") == ["有5个。"]


def test_without_normalisation_text_is_split_but_not_rewritten() -> None:
    off = TextNormaliser(words, ReferenceQuirks(), enabled=False)
    assert off.split("Dr. Smith has 5.5 (five) apples") == ["Dr. Smith has 5.5 (five) apples."]
    assert TextNormaliser(words, ReferenceQuirks.reference(), enabled=False).split(" 5 ") == [" 5 "]


def test_tags_are_no_text(normaliser: TextNormaliser) -> None:
    tags = re.compile(r"(\[breath\]|<strong>|</strong>)")
    text = "[breath]有2个，<strong>3.5</strong>个。"
    assert normaliser.normalise(text, tags=tags) == "[breath]有两个，<strong>三点五</strong>个。"


@pytest.mark.parametrize(
    ("piece", "language", "expected"),
    [
        ("It is ", None, "It is "),
        ("12.5 km ", "en", "twelve point five kilometers "),
        (" away.", None, " away."),
        (", and", None, ", and"),
        ("", None, ""),
        (" ", "en", " "),
        ("，然后", None, "，然后"),
        ("有2个，", None, "有两个，"),
        ("5", "zh", "五"),
        ("Hello", None, "Hello"),
        ("a\nb", None, "a b"),
    ],
)
def test_a_piece_keeps_its_ends(
    normaliser: TextNormaliser, piece: str, language: str | None, expected: str
) -> None:
    assert normaliser.normalise_piece(piece, language) == expected
