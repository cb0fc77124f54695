"""Numbers spelled out in English and Chinese words."""

from __future__ import annotations

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
_TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()
_SCALES = ((10**12, "trillion"), (10**9, "billion"), (10**6, "million"), (10**3, "thousand"))
_IRREGULAR_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
_CHINESE_DIGITS = "零一二三四五六七八九"
_CHINESE_UNITS = ((10**8, "亿"), (10**4, "万"), (1000, "千"), (100, "百"), (10, "十"))

MAX_DIGITS = 15
"""Longer numbers are read digit by digit."""


def english_cardinal(n: int) -> str:
    """105 -> "one hundred and five". At most MAX_DIGITS digits."""
    if n < 20:
        return _ONES[n]
    if n < 100:
        return _TENS[n // 10] + (f" {_ONES[n % 10]}" if n % 10 else "")
    if n < 1000:
        return f"{_ONES[n // 100]} hundred" + (f" and {english_cardinal(n % 100)}" if n % 100 else "")
    value, name = next(scale for scale in _SCALES if n >= scale[0])
    rest = f" {english_cardinal(n % value)}" if n % value else ""
    return f"{english_cardinal(n // value)} {name}{rest}"


def english_ordinal(n: int) -> str:
    """21 -> "twenty first"."""
    head, _, last = english_cardinal(n).rpartition(" ")
    if last in _IRREGULAR_ORDINALS:
        last = _IRREGULAR_ORDINALS[last]
    elif last.endswith("y"):
        last = f"{last[:-1]}ieth"
    else:
        last = f"{last}th"
    return f"{head} {last}".strip()


def english_year(n: int) -> str:
    """1984 -> "nineteen eighty four", 1905 -> "nineteen oh five", 2005 -> "two thousand five"."""
    century, rest = divmod(n, 100)
    if n < 1010 or n > 9999 or (century % 10 == 0 and rest < 10):
        return english_cardinal(n)
    if rest == 0:
        return f"{english_cardinal(century)} hundred"
    return f"{english_cardinal(century)} {'oh ' if rest < 10 else ''}{english_cardinal(rest)}"


def english_digits(digits: str) -> str:
    """ "305" -> "three zero five"."""
    return " ".join(_ONES[int(digit)] for digit in digits)


def english_number(text: str) -> str:
    """A number as written: "1,234.50", "007", "3.14". A long string of digits that is no quantity is spelled."""
    whole, _, fraction = text.replace(",", "").partition(".")
    is_code = len(whole) >= 10 and not whole.endswith("000") and "," not in text
    spelled = not fraction and (is_code or (len(whole) > 1 and whole[0] == "0"))
    spelled = spelled or len(whole) > MAX_DIGITS
    words = english_digits(whole) if spelled else english_cardinal(int(whole))
    return f"{words} point {english_digits(fraction)}" if fraction else words


def chinese_digits(digits: str, one: str = "一") -> str:
    """ "2024" -> "二零二四"; one="幺" as telephone numbers are read."""
    return "".join(one if digit == "1" else _CHINESE_DIGITS[int(digit)] for digit in digits)


def chinese_cardinal(n: int, liang: bool = False) -> str:
    """10203 -> "一万零二百零三". `liang` reads a leading 2 before 百, 千, 万, 亿 as 两. At most MAX_DIGITS digits."""
    words = _chinese_words(n) or "零"
    if words.startswith("一十"):
        words = words[1:]
    if liang and words[0] == "二" and words[1:2] in tuple("百千万亿"):
        words = "两" + words[1:]
    return words


def _chinese_words(n: int) -> str:
    """As `chinese_cardinal`, with 一十 for a leading ten and nothing for zero."""
    if n < 10:
        return _CHINESE_DIGITS[n] if n else ""
    value, unit = next(group for group in _CHINESE_UNITS if n >= group[0])
    head, rest = divmod(n, value)
    gap = "零" if 0 < rest < value // 10 else ""
    return f"{_chinese_words(head)}{unit}{gap}{_chinese_words(rest)}"


def chinese_number(text: str, counted: bool = False) -> str:
    """A number as written: "1,234.50" -> "一千二百三十四点五零". `counted`: a measure word follows, so 2 is 两."""
    whole, _, fraction = text.replace(",", "").partition(".")
    if fraction:
        head = chinese_cardinal(int(whole)) if len(whole) <= MAX_DIGITS else chinese_digits(whole)
        return f"{head}点{chinese_digits(fraction)}"
    code = len(whole) >= 9 and "," not in text and not counted and not whole.endswith("0000")
    if code or (len(whole) > 1 and whole[0] == "0") or len(whole) > MAX_DIGITS:
        return chinese_digits(whole)
    return "两" if counted and int(whole) == 2 else chinese_cardinal(int(whole), liang=True)
