from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from light_tts.encode.normalise.numbers import (
    chinese_cardinal,
    chinese_digits,
    chinese_number,
    english_cardinal,
    english_number,
    english_ordinal,
    english_year,
)

CHINESE_VALUES = dict(zip("零一二三四五六七八九", range(10), strict=True))
CHINESE_PLACES = {"十": 10, "百": 100, "千": 1000}
ENGLISH_VALUES = {english_cardinal(n): n for n in (*range(20), *range(20, 100, 10))}
ENGLISH_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}


def value_of_chinese(words: str) -> int:
    if "亿" in words:
        head, _, rest = words.partition("亿") if words.count("亿") == 1 else words.rpartition("亿")
        return value_of_chinese(head) * 10**8 + value_of_chinese(rest)
    if "万" in words:
        head, _, rest = words.partition("万")
        return value_of_chinese(head) * 10**4 + value_of_chinese(rest)
    total, digit = 0, 1 if words.startswith("十") else 0
    for char in words:
        if char in CHINESE_PLACES:
            total, digit = total + digit * CHINESE_PLACES[char], 0
        else:
            digit = CHINESE_VALUES[char]
    return total + digit


def value_of_english(words: str) -> int:
    total, group = 0, 0
    for word in words.replace(" and ", " ").split():
        if word in ENGLISH_SCALES:
            total, group = total + group * ENGLISH_SCALES[word], 0
        elif word == "hundred":
            group *= 100
        else:
            group += ENGLISH_VALUES[word]
    return total + group


@given(st.integers(0, 10**15 - 1))
def test_chinese_numbers_can_be_read_back(n: int) -> None:
    assert value_of_chinese(chinese_cardinal(n)) == n


@given(st.integers(0, 10**15 - 1))
def test_english_numbers_can_be_read_back(n: int) -> None:
    assert value_of_english(english_cardinal(n)) == n


@pytest.mark.parametrize(
    ("n", "words"),
    [
        (0, "零"), (10, "十"), (11, "十一"), (110, "一百一十"), (1010, "一千零一十"), (10001, "一万零一"),
        (100100, "十万零一百"), (10_2000, "十万二千"), (1_0000_0005, "一亿零五"),
        (12345_0000_0000, "一万二千三百四十五亿"),
    ],
)  # fmt: skip
def test_chinese_cardinals(n: int, words: str) -> None:
    assert chinese_cardinal(n) == words


@pytest.mark.parametrize(
    ("n", "words"),
    [(2, "二"), (12, "十二"), (200, "两百"), (2222, "两千二百二十二"), (20000, "两万"), (320, "三百二十")],
)
def test_a_leading_two_is_liang(n: int, words: str) -> None:
    assert chinese_cardinal(n, liang=True) == words


@pytest.mark.parametrize(
    ("text", "counted", "words"),
    [
        ("2", True, "两"), ("2", False, "二"), ("2.5", True, "二点五"), ("1,234.50", False, "一千二百三十四点五零"),
        ("007", False, "零零七"), ("123456789", False, "一二三四五六七八九"),
        ("123456789", True, "一亿二千三百四十五万六千七百八十九"),
        ("100000000", False, "一亿"), ("0", False, "零"), ("0.05", False, "零点零五"),
    ],
)  # fmt: skip
def test_chinese_numbers_as_written(text: str, counted: bool, words: str) -> None:
    assert chinese_number(text, counted) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0", "zero"), ("1,005", "one thousand five"), ("007", "zero zero seven"), ("0.50", "zero point five zero"),
        ("5551234567", "five five five one two three four five six seven"), ("5000000000", "five billion"),
    ],
)  # fmt: skip
def test_english_numbers_as_written(text: str, words: str) -> None:
    assert english_number(text) == words


@pytest.mark.parametrize("text", ["1" + "0" * 9000, "9" * 9000 + ".5"])
def test_numbers_beyond_words_are_spelled(text: str) -> None:
    assert english_number(text).split()[1] in ("zero", "nine")
    assert chinese_number(text)[1] in "零九"


@pytest.mark.parametrize(
    ("n", "words"),
    [
        (1, "first"), (2, "second"), (3, "third"), (5, "fifth"), (8, "eighth"), (9, "ninth"), (12, "twelfth"),
        (20, "twentieth"), (21, "twenty first"), (100, "one hundredth"), (103, "one hundred and third"),
    ],
)  # fmt: skip
def test_ordinals(n: int, words: str) -> None:
    assert english_ordinal(n) == words


@pytest.mark.parametrize(
    ("n", "words"),
    [
        (44, "forty four"), (1066, "ten sixty six"), (1905, "nineteen oh five"), (1900, "nineteen hundred"),
        (2000, "two thousand"), (2005, "two thousand five"), (2024, "twenty twenty four"), (1000, "one thousand"),
    ],
)  # fmt: skip
def test_years(n: int, words: str) -> None:
    assert english_year(n) == words


def test_digits_as_on_the_telephone() -> None:
    assert chinese_digits("1012", one="幺") == "幺零幺二"
