"""Chinese text as a speaker would read it: numbers, dates, money, units and signs in characters."""

from __future__ import annotations

import regex

from light_tts.encode.normalise import chinese_words as words
from light_tts.encode.normalise.chinese_names import ADDRESSES, LAST, NAMES
from light_tts.encode.normalise.chinese_quantities import AMOUNTS, CODES, DATES, spell
from light_tts.encode.normalise.english_abbreviations import TITLE_RULES
from light_tts.encode.normalise.numbers import chinese_cardinal, chinese_digits, chinese_number
from light_tts.encode.normalise.rules import NUMBER, Rule, alternatives, apply_all
from light_tts.encode.normalise.wetext import Verbaliser

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")


def _fraction(match: regex.Match[str]) -> str | None:
    whole, upper, lower = match[1], int(match[2]), int(match[3])
    if lower == 0:
        return None
    lead = f"{chinese_number(whole)}又" if whole else ""
    return f"{lead}{chinese_cardinal(lower)}分之{chinese_cardinal(upper)}"


def _version(match: regex.Match[str]) -> str:
    parts = match[0].split(".")
    if len(parts) == 4 and all(len(part) <= 3 for part in parts):  # an IP address
        return "点".join(chinese_digits(part) for part in parts)
    return "点".join(chinese_number(part) for part in parts)


def _model_name(match: regex.Match[str]) -> str:
    """A320 is read digit by digit, Win11 and H100 are not."""
    digits = match[1]
    return spell(digits) if len(digits) >= 3 and not digits.endswith("00") else chinese_number(digits)


def _range(match: regex.Match[str]) -> str:
    low, high = match[1], match[2]
    falling = float(low.replace(",", "")) > float(high.replace(",", ""))
    counted = regex.match(alternatives(words.MEASURES), match.string[match.end() :][:4]) is not None
    return f"{chinese_number(low)}{'比' if falling else '到'}{chinese_number(high, counted and not falling)}"


def _power(match: regex.Match[str]) -> str:
    exponent = match[1] or match[2]
    if exponent in ("²", "³"):
        return "平方" if exponent == "²" else "立方"
    exponent = exponent.translate(_SUPERSCRIPTS)
    return f"的{'负' if exponent[0] == '-' else ''}{chinese_number(exponent.removeprefix('-'))}次方"


def _two(match: regex.Match[str]) -> str:
    return "二" if regex.match(alternatives(words.NOT_MEASURED), match.string[match.end() :][:4]) else "两"


def _operator(match: regex.Match[str]) -> str:
    return words.SIGNS[next(filter(None, match.groups()))]


_BEFORE_SIGN = r"(?<=[0-9)²³%A-Za-z])"
_AFTER_SIGN = r"(?=-?[0-9(]|[A-Za-z](?![A-Za-z]))"

_NUMBERS = (
    Rule(r"(?<![0-9.,])[0-9]+(?:\.[0-9]+){2,}(?![0-9])", _version, spaced=False),
    Rule(
        r"(?<![\p{Latin}0-9./])(?:([0-9]{1,4})\s)?([0-9]{1,3})/([0-9]{1,4})(?![\p{Latin}0-9]|[/.][0-9])",
        _fraction,
        spaced=False,
    ),
    Rule(r"(?i)(?<!\p{Latin})no\.\s?(?=[0-9])", "第", spaced=False),
    Rule(
        r"第\s?\K([0-9]{1,3}(?:,[0-9]{3}){1,3}|[0-9]{1,12})(?![0-9.]|,[0-9])",
        lambda match: chinese_cardinal(int(match[1].replace(",", ""))),
        spaced=False,
    ),
    Rule(r"(?<=[0-9])\s?[xX]\s?(?=[0-9])", "乘", spaced=False),
    Rule(r"(?<=\p{Latin}[0-9]{1,4})-(?=[0-9])", "杠", spaced=False),
    Rule(rf"(?<={alternatives(words.MODEL_NAMES)})-(?=[0-9])", "", spaced=False),
    Rule(r"(?<=\p{Latin})[-–]?([0-9]++)(?![0-9.]*\.[0-9])", _model_name, spaced=False),
    Rule(
        rf"(?<![\p{{Latin}}0-9.:/-])({NUMBER})\s?[-–—~～]+\s?({NUMBER})(?!\s?[-=+*×/:][0-9\s]|[0-9])",
        _range,
        spaced=False,
    ),
    Rule(
        rf"{_BEFORE_SIGN}\s?([+×÷=<>≥≤≈≠])\s?{_AFTER_SIGN}|(?<=[0-9)²³])\s?([-*])\s?(?=-?[0-9(])",
        _operator,
        spaced=False,
    ),
    Rule(
        r"(?<=[0-9A-Za-z)])\s?\^\s?(-?[0-9]{1,3})|(?<=[0-9A-Za-z)])([²³]|[⁰¹²³⁴⁵⁶⁷⁸⁹]+)", _power, spaced=False
    ),
    Rule(r"(?<=[\p{L}\p{N}])\s?=\s?(?=[\p{L}\p{N}-])", "等于", spaced=False),
    Rule(
        r"(?<![\p{Latin}0-9)])([±≥≤><≈~～+√])\s?(?=[0-9])",
        lambda match: words.SIGNS_BEFORE[match[1]],
        spaced=False,
    ),
    Rule(r"(?<![\p{Latin}0-9.)])-(?=[0-9])", "负", spaced=False),
    Rule(rf"(?<![\p{{Latin}}0-9.,第])2(?=\s?{alternatives(words.MEASURES)})", _two, spaced=False),
    Rule(
        rf"{NUMBER}(?=\s?[个元人次万亿])",
        lambda match: chinese_number(match[0], counted=match[0] != "2"),
        spaced=False,
    ),
    Rule(NUMBER, lambda match: chinese_number(match[0]), spaced=False),
    Rule(r"(?<=[零一二三四五六七八九十百千万亿])\+(?![\p{Latin}0-9])", "加", spaced=False),
)

_SIGNS = (
    Rule(r"(?<=\p{Latin})\s?&\s?(?=\p{Latin})", " and ", spaced=False),
    Rule(r"\s?&\s?", "和", spaced=False),
    Rule(r"[²³]", lambda match: "平方" if match[0] == "²" else "立方", spaced=False),
    Rule(
        r"(?<=[\p{Han}”’）】》\"])\.+(?![\p{Latin}0-9])",
        lambda match: "。" if len(match[0]) < 3 else "…",
        spaced=False,
    ),
    Rule(r"\s[-–—]\s|[—–]{1,4}|(?<=[\p{Han}])--+", "，", spaced=False),
    Rule(r"[（(]\s*(?=\p{Han})|(?<=\p{Han})\s*[)）](?![，。！？；：、,.!?;:…”’》】]|$)", "，", spaced=False),
    Rule(r"[（）()【】\[\]]", "", spaced=False),
    Rule(r"[~～]+", "", spaced=False),
    Rule(r"(?<=[，。！？；：、,!?;:])\s?，|，(?=[。！？；：、])", "", spaced=False),
    Rule(
        r"(?<=\p{Han})\s+(?=\p{Han})|(?<=\p{Han}|[，。！？；：、…”’])\s+|(?<![.!?,;:])\s+(?=\p{Han})|\s+(?=[，。！？；：、…“‘])",
        "",
        spaced=False,
    ),
)


def read(text: str, verbaliser: Verbaliser) -> str:
    """Chinese text with all that is not a word or punctuation read in characters; English words stay."""
    for rules in (ADDRESSES, NAMES, TITLE_RULES, CODES, DATES, AMOUNTS):
        text = apply_all(rules, text)
    text = verbaliser.units(text, "zh")
    text = apply_all(_SIGNS, apply_all(LAST, apply_all(_NUMBERS, text)))
    return regex.sub(r" {2,}", " ", text)
