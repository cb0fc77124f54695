"""English text as a speaker would read it: numbers, dates, money, abbreviations and signs in words."""

from __future__ import annotations

import regex

from light_tts.encode.normalise.english_abbreviations import ABBREVIATIONS, ADDRESSES, SIGNS
from light_tts.encode.normalise.english_quantities import AMOUNTS, DATES, PHONES
from light_tts.encode.normalise.numbers import (
    english_cardinal,
    english_digits,
    english_number,
    english_ordinal,
    english_year,
)
from light_tts.encode.normalise.rules import NUMBER, START, Rule, apply_all
from light_tts.encode.normalise.wetext import Verbaliser

_YEAR = r"(1[0-9]{3}|20[0-9]{2})"
_NOT_COUNTED = (
    r"(?![\w,%:/-]*[0-9]|\w|\.[0-9]"
    r"|\s(?:people|men|women|children|feet|percent|hundred|thousand|million|[a-z]+s\b))"
)
_FRACTION_IDIOMS = {
    "24/7": "twenty four seven",
    "50/50": "fifty fifty",
    "9/11": "nine eleven",
    "20/20": "twenty twenty",
}
_SIGN_WORDS = {
    "+": "plus", "-": "minus", "×": "times", "x": "times", "*": "times", "÷": "divided by", "=": "equals",
    ">": "is greater than", "<": "is less than", "≥": "is at least", "≤": "is at most", "≈": "is about",
}  # fmt: skip
_SIGN_BEFORE = {
    "±": "plus or minus ", "≥": "at least ", "≤": "at most ", ">": "more than ", "<": "less than ", "≈": "about ",
    "~": "about ", "+": "plus ", "√": "the square root of ",
}  # fmt: skip

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")


def _year(match: regex.Match[str]) -> str:
    return english_year(int(match[1]))


def _fraction(match: regex.Match[str]) -> str:
    whole, upper, lower = match[1], int(match[2]), int(match[3])
    idiom = _FRACTION_IDIOMS.get(f"{match[2]}/{match[3]}")
    if idiom and not whole:
        return idiom
    if not whole and (upper >= lower or lower == 0):
        return f"{english_cardinal(upper)} over {english_cardinal(lower)}"
    if not whole and upper > 1 and lower in (10, 100):
        return f"{english_cardinal(upper)} out of {english_cardinal(lower)}"
    name = {2: "half", 4: "quarter"}.get(lower) or english_ordinal(lower)
    if whole:
        part = f"a {name}" if upper == 1 else f"{english_cardinal(upper)} {name}s"
        return f"{english_number(whole)} and {part}"
    return f"{english_cardinal(upper)} {name}{'s' if upper > 1 else ''}"


def _numbered_thing(match: regex.Match[str]) -> str:
    """Room 305 is three oh five, Boeing 747 seven forty seven, Flight 1200 twelve hundred."""
    number = int(match[1])
    head, rest = divmod(number, 100)
    if not rest:
        return english_cardinal(head) + " hundred"
    return f"{english_cardinal(head)} {'oh ' if rest < 10 else ''}{english_cardinal(rest)}"


def _range(match: regex.Match[str]) -> str:
    joint = " " if match[1] == match[2] == "50" else " to "
    return joint.join(_year_or_number(text) for text in match.groups())


def _year_or_number(text: str) -> str:
    if len(text) == 4 and text.isdigit() and 1100 <= int(text) <= 2099:
        return english_year(int(text))
    return english_number(text)


def _version(match: regex.Match[str]) -> str:
    parts = match[0].split(".")
    if len(parts) == 4 and all(len(part) <= 3 for part in parts):  # an IP address
        return " dot ".join(english_digits(part) for part in parts)
    return " point ".join(english_number(part) for part in parts)


def _power(match: regex.Match[str]) -> str:
    exponent = (match[1] or match[2]).translate(_SUPERSCRIPTS)
    if exponent in ("2", "3"):
        return " squared" if exponent == "2" else " cubed"
    minus = "minus " if exponent.startswith("-") else ""
    return f" to the power of {minus}{english_number(exponent.removeprefix('-'))}"


def _plural(match: regex.Match[str]) -> str:
    name = english_number(match[1])
    return name + ("es" if name.endswith("x") else "s")


def _operator(match: regex.Match[str]) -> str:
    sign = next(filter(None, match.groups()))
    if sign == "x" and "=" not in match.string[match.end() : match.end() + 20]:
        return " by "
    return f" {_SIGN_WORDS[sign]} "


_NUMBERS = (
    Rule(r"(?<![0-9.,])[0-9]+(?:\.[0-9]+){2,}(?![0-9])", _version),
    Rule(r"(?<![\w./])(?:([0-9]{1,4})\s)?([0-9]{1,2})/([0-9]{1,3})(?![\w/]|\.[0-9])", _fraction),
    Rule(
        r"(?i)\b(?:in|since|year|during|circa|early|late|mid|season|summer|winter|spring|autumn)[ -]"
        rf"\K{_YEAR}{_NOT_COUNTED}",
        _year,
    ),
    Rule(r"(?<![\w.-])\K(1[0-9]{3}|20[0-9]{2})(?=\s(?:BCE?|CE|AD|B C)\b)", _year),
    Rule(r"(?<=\p{Lu})([0-9]{1,2})s\b", _plural),
    Rule(
        r"\b(?:Room|room|[Ff]light(?:\s[A-Z]{2})?|Route|Suite|Apartment|apartment|Boeing|Airbus|Highway|Bus|bus|Gate|Unit)\s"
        r"\K([1-9][0-9]{2,3})(?![\w,]|\.[0-9])",
        _numbered_thing,
    ),
    Rule(
        r"(?<![\p{L}0-9.,:/-])([0-9]++(?:,[0-9]{3})*+(?:\.[0-9]+)?)\s?[-–—]\s?([0-9]++(?:,[0-9]{3})*+(?:\.[0-9]+)?)"
        r"(?!\s?[-–=+*×/]\s?[0-9]|[0-9])",
        _range,
    ),
    Rule(r"(?<![0-9.:])([0-9]{1,3}):([0-9]{1,3})(?![0-9:])", _range),
    Rule(rf"{START}((?:19|20)[0-9]{{2}}){_NOT_COUNTED}", _year),
    Rule(
        r"(?<=[0-9)²³])\s?([-+×*÷=<>≥≤≈])\s?(?=-?[0-9(])"
        r"|(?<=\b[A-Za-z])\s?([+×*÷=<>≥≤≈])\s?(?=-?[0-9(])"
        r"|(?<=[0-9)²³])\s?([-+×*÷=<>≥≤≈])\s?(?=[A-Za-z(](?![A-Za-z]))"
        r"|(?<=[0-9)]\s)(-|x)(?=\s[0-9(])|(?<=[0-9])(x)(?=[0-9])",
        _operator,
    ),
    Rule(r"(?<=[0-9A-Za-z)])\s*\^\s?(-?[0-9]{1,3})|(?<=[0-9A-Za-z)])([⁰¹²³⁴⁵⁶⁷⁸⁹]+)", _power),
    Rule(r"(?<=[\p{L}\p{N}])\s?=\s?(?=[\p{L}\p{N}])", " equals "),
    Rule(r"(?<![\p{L}\p{N})])([±≥≤><≈~+√])\s?(?=[0-9])", lambda match: _SIGN_BEFORE[match[1]], spaced=False),
    Rule(r"(?<![\p{L}\p{N}.)])-(?=[0-9])", "minus ", spaced=False),
    Rule(r"(?<=[A-Za-z])-(?=[0-9])|(?<=[0-9])-(?=[A-Z0-9])", " ", spaced=False),
    Rule(NUMBER, lambda match: english_number(match[0])),
    Rule(r"(?<=[A-Za-z0-9])\+(?!\w)", " plus"),
)


def read(text: str, verbaliser: Verbaliser) -> str:
    """English text with everything that is not letters and punctuation read in words."""
    for rules in (ADDRESSES, ABBREVIATIONS, PHONES, DATES, AMOUNTS):
        text = apply_all(rules, text)
    text = verbaliser.units(text, "en")
    text = apply_all(_NUMBERS, apply_all(SIGNS, text))
    return regex.sub(r" {2,}", " ", text)
