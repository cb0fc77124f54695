from __future__ import annotations

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from light_tts.encode.normalise.clean import clean, join_lines


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Hi 😀👍🏽 there❤️ 👨‍👩‍👧 ok 1️⃣!", "Hi there ok 1 !"),
        ("２０２４年　ＡＢＣ％", "2024年 ABC%"),
        ("a\u200bb\ufeffc\u202ed\x00e\x1bf", "abcdef"),
        ("नमस्\u200dते", "नमस्\u200dते"),
        ("2½ cups, ½ cup", "2 1/2 cups, 1/2 cup"),
        ("①梨②和Ⅳ", "1, 梨, 2, 和4"),
        ("x² + 10⁵", "x² + 10⁵"),
        ("**bold**, _thin_ and `code`", "bold, thin and code"),
        ("3*4, 3 * 4, snake_case, f(x)", "3*4, 3 * 4, snake_case, f(x)"),
        ("Tom’s ‘quote’", "Tom's ‘quote’"),
        ("25℃ 5㎡ №3", "25°C 5m² No.3"),
        ("a\u00a0b\tc\u2009 d", "a b c d"),
        ("half \ud83d pair", "half pair"),
        ("五〇年", "五零年"),
    ],
)
def test_look_alikes_and_invisible_characters_are_made_plain(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


@given(st.text(st.characters(exclude_characters="`")))
def test_letters_survive_and_nothing_invisible_does(text: str) -> None:
    cleaned = clean(text)
    rest = iter(cleaned)
    assert all(char in rest for char in text if char.isascii() and char.isalpha())
    assert not regex.search(r"[\p{Cs}\p{Co}\p{Cn}]|[\p{Cc}--\n]", cleaned, regex.VERSION1)


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("A line\nthat goes on", "A line that goes on"),
        ("Title\n\nBody.\n\nEnd", "Title. Body. End"),
        ("# Title\nBody", "Title. Body"),
        ("- milk\n- eggs", "milk. eggs"),
        ("1. Milk\n2) Eggs", "1, Milk. 2, Eggs"),
        ("First,\nsecond", "First, second"),
        ("a\n---\nb", "a. b"),
        ("\n\n a \n", "a"),
        ("", ""),
    ],
)
def test_lines_are_joined(text: str, english: str) -> None:
    assert join_lines(text, chinese=False) == english


@pytest.mark.parametrize(
    ("text", "chinese"),
    [
        ("第一行\n第二行。\n第三行", "第一行，第二行。第三行"),
        ("标题\n\n正文", "标题。正文"),
        ("1. 苹果\n2、梨", "1、苹果。2、梨"),
    ],
)
def test_chinese_lines_are_joined_with_pauses(text: str, chinese: str) -> None:
    assert join_lines(text, chinese=True) == chinese
