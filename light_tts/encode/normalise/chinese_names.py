"""Chinese readings of addresses, file names, Roman numbers and signs that stand for words."""

from __future__ import annotations

import regex

from light_tts.encode.normalise import names
from light_tts.encode.normalise.numbers import chinese_cardinal, chinese_digits
from light_tts.encode.normalise.rules import Rule

_SIGN_WORDS = {"@": "艾特", ".": "点", "/": "斜杠", "-": "杠", "_": "下划线"}
_ROMAN = {"I": 1, "V": 5, "X": 10}
_ROMAN_NUMBER = r"(X{0,3}(?:IX|IV|V?I{1,3}|V)|X{1,3})"
_AFTER_ROMAN = "型|期|级|类|度(?!数)|卷|世(?!界)|区|部分|号(?!码)"


def _with_signs(text: str) -> str:
    for sign, word in _SIGN_WORDS.items():
        text = text.replace(sign, word)
    return regex.sub(r"[0-9]+", lambda digits: chinese_digits(digits[0]), text)


def _address(match: regex.Match[str]) -> str:
    text = regex.sub(r"^(?:https?|ftp)://", "", match[0]).rstrip("./")
    host, slash, path = text.partition("/")
    head, dot, domain = host.rpartition(".")
    if domain.lower() in names.SPELLED_DOMAINS:
        host = head + dot + names.letters(domain)
    host = regex.sub(r"^(?i:www)(?=\.)", "W W W", host)
    return _with_signs(host + slash + path) + ("。" if match[0].endswith(".") else "")


def _file(match: regex.Match[str]) -> str:
    end = regex.sub(r"[0-9]", lambda digit: chinese_digits(digit[0]), names.extension(match[2]))
    return f"{_with_signs(match[1])}点{end}"


def _roman(match: regex.Match[str]) -> str:
    values = [_ROMAN[char] for char in match[1]]
    return chinese_cardinal(
        sum(-v if v < after else v for v, after in zip(values, [*values[1:], 0], strict=True))
    )


def _half_day(match: regex.Match[str]) -> str:
    half = "上午" if match[2] in "aA" else "下午"
    said = match.string[max(0, match.start() - 2) : match.start()] in ("上午", "下午", "早上", "晚上", "中午")
    return f"{'' if said else half}{match[1]}{'' if ':' in match[1] else '点'}"


ADDRESSES = (
    Rule(r"(?i)(?<![\p{Latin}0-9])(?:https?|ftp)://[\x21-\x7e]+", _address, spaced=False),
    Rule(
        r"(?i)(?<![\p{Latin}0-9.@-])[a-z0-9_.+-]{1,64}@[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){1,4}",
        _address,
        spaced=False,
    ),
    Rule(
        r"(?i)(?<![\p{Latin}0-9.@-])(?:www\.)?[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){0,3}"
        r"\.(?:com|org|net|edu|gov|io|ai|cn|co|tv|cc)(?![\p{Latin}0-9@]|\.[a-z0-9])(?:/[\x21-\x7e]*)?",
        _address,
        spaced=False,
    ),
    Rule(names.FILE_NAME, _file, spaced=False),
)

NAMES = (
    Rule(names.INITIALS, lambda match: f"{names.letters(match[1])} and {names.letters(match[2])}"),
    Rule(names.ACRONYM, lambda match: names.letters(match[1])),
    Rule(r"(?<![\p{Latin}0-9])C\+\+", "C加加", spaced=False),
    Rule(r"(?<![\p{Latin}0-9])C#", "C sharp", spaced=False),
    Rule(r"(?<=\p{Han})\s?[vV][sS]\.?\s?(?=\p{Han})", "对", spaced=False),
    Rule(r"@(?=[\p{L}_])", "艾特", spaced=False),
    Rule(rf"(?<=第\s?){_ROMAN_NUMBER}(?![\p{{Latin}}0-9])", _roman, spaced=False),
    Rule(rf"(?<![\p{{Latin}}0-9]){_ROMAN_NUMBER}(?=\s?(?:{_AFTER_ROMAN}))", _roman, spaced=False),
    Rule(
        r"(?<![\p{Latin}0-9:.])(1[0-2]|0?[0-9]|(?:1[0-2]|0?[0-9]):[0-5][0-9])\s?([AaPp])(?:[Mm](?![\p{Latin}0-9])|\.[Mm]\.)",
        _half_day,
        spaced=False,
    ),
    Rule(r"(?<![0-9.])(?:240|360|480|720|1080|1440|2160)[pP](?![\p{Latin}0-9])",
         lambda match: f"{chinese_digits(match[0][:-1])}P", spaced=False),
    Rule(r"(?<![0-9.])([0-9]{1,2})[·・‧]([0-9]{1,2})(?=\p{Han}|[”\"])",
         lambda match: chinese_digits(match[1] + match[2]), spaced=False),
    Rule(r"(?<![\p{Latin}0-9])-\s?(?=(?:US|HK|NT|A|C)?[¥￥$€£]\s?[0-9])", "负", spaced=False),
    Rule(r"(?<=(?:气温|温度|低温|高温|最低|最高|降至|降到|跌至|体感)\p{Han}{0,4})-(?=[0-9.~～-]{1,8}\s?度)", "零下",
         spaced=False),
    Rule(r"(?<![0-9.])(0[0-9]|[5-9][0-9])(?=年(?:出生|生的|生人|毕业|入学|入职|入伍|参军|高考|结婚|世界杯|奥运))",
         lambda match: chinese_digits(match[1]), spaced=False),
    Rule(r"(?<![0-9.])(0[0-9])(?=年)", lambda match: chinese_digits(match[1]), spaced=False),
    Rule(r"(?<=[0-9])\s?[★⭐]+", "星", spaced=False),
    Rule(r"(?<=[\p{L}\p{N}])\s?(?:→|⇒|->|=>)\s?(?=[\p{L}\p{N}])", "到", spaced=False),
)  # fmt: skip

LAST = (
    Rule(names.GREEK_LETTER, lambda match: names.GREEK_CHINESE[match[0].lower()], spaced=False),
    Rule(r"(?<=[\p{L}\p{N}])\s?×\s?(?=[\p{L}\p{N}])", "乘以", spaced=False),
    Rule(r"[©★→⇒]", "", spaced=False),
)
