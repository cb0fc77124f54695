"""English abbreviations, web addresses, Roman numbers and signs, read in words."""

from __future__ import annotations

import regex

from light_tts.encode.normalise import english_words as words
from light_tts.encode.normalise import names
from light_tts.encode.normalise.numbers import english_cardinal, english_digits, english_ordinal
from light_tts.encode.normalise.rules import Rule, alternatives

_WORD_START = r"(?<![\p{Latin}\p{N}.'@/])"
_NEXT_WORD = regex.compile(r"[\"'”’)\]]*\s+[\"'“‘(\[]?(\p{Lu}[\p{L}']*)")
_WORD_BEFORE = regex.compile(r"(?<![\p{L}\p{N}'])([\p{L}\p{N}][\p{L}\p{N}']*)\s$")
_FUNCTION_WORDS = frozenset("In At On The From To Near And Of For Mount Mt Fort Port Lake Saint".split())
_SENTENCE_START = regex.compile(r"(?:^|[.!?]\s+)[\p{L}']+\s$")
_ROMAN = {"I": 1, "V": 5, "X": 10, "L": 50}


def _ends_sentence(match: regex.Match[str]) -> bool:
    """The full stop that closes `match` also closes a sentence."""
    rest = match.string[match.end() :][:40]
    if not rest.strip("\"'”’)] \n"):
        return True
    following = _NEXT_WORD.match(rest)
    return following is not None and following[1] in words.SENTENCE_STARTERS


def _with_stop(match: regex.Match[str], reading: str) -> str:
    return reading + ("." if _ends_sentence(match) else "")


def _anywhere(match: regex.Match[str]) -> str:
    return _with_stop(match, words.ANYWHERE[match[1]])


def _dotted_capitals(match: regex.Match[str]) -> str:
    return _with_stop(match, " ".join(char for char in match[1] if char.isalpha()))


def _initial(match: regex.Match[str]) -> str | None:
    return None if match[2] in words.SENTENCE_STARTERS else match[1]


def _saint_or_street(match: regex.Match[str]) -> str:
    """Street after a name or an ordinal ("Main St.", "5th St."), else Saint ("St. John")."""
    before = _WORD_BEFORE.search(match.string[: match.start()][-40:])
    name = before[1] if before is not None else ""
    if not name or name[0].islower() or name in _FUNCTION_WORDS:
        return "Saint"
    begins = _SENTENCE_START.search(match.string[: match.start()][-60:])
    following = _NEXT_WORD.match(match.string[match.end() :][:40])
    if begins and following and following[1] not in words.SENTENCE_STARTERS:
        return "Saint"  # "Visit St. Paul's"
    return _with_stop(match, "Street")


def _title(match: regex.Match[str]) -> str | None:
    before = _WORD_BEFORE.search(match.string[: match.start()][-40:])
    after_name = before is not None and before[1][0].isupper() and before[1] not in _FUNCTION_WORDS
    if after_name and match[2] in words.SENTENCE_STARTERS:
        return None  # "on Maple Dr. The house"
    return words.TITLES[match[1]]


def _street(match: regex.Match[str]) -> str:
    return _with_stop(match, f"{match[1]} {words.STREETS[match[2]]}")


_TITLE_NUMBER = regex.compile(r"X{0,2}(?:I{2,3}|VI{1,3}|IX)|XI?V")  # never one letter, nor IV


def _roman_value(text: str) -> int:
    values = [_ROMAN[char] for char in text]
    return sum(-v if v < after else v for v, after in zip(values, [*values[1:], 0], strict=True))


def _roman(match: regex.Match[str]) -> str | None:
    noun, number = match[1], _roman_value(match[2])
    if noun in words.NUMBERED:
        return f"{noun} {english_cardinal(number)}"
    if noun in words.MONARCHS and match[2] != "I":
        return f"{noun} the {english_ordinal(number).capitalize()}"
    if _TITLE_NUMBER.fullmatch(match[2]) and noun not in words.ROMAN_NOT_NUMBERED:
        return f"{noun} {english_cardinal(number)}"  # "Rocky II"
    return None


def _address(match: regex.Match[str]) -> str:
    text = regex.sub(r"^(?:https?|ftp)://", "", match[0])
    tail = regex.search(r"[.,;:!?)]*$", text)
    end = tail[0] if tail else ""
    text = text[: len(text) - len(end)].rstrip("/")
    host, slash, path = text.partition("/")
    head, dot, domain = host.rpartition(".")
    if domain.lower() in names.SPELLED_DOMAINS:
        text = head + dot + names.letters(domain) + slash + path
    text = text.replace("www.", "w w w dot ")
    for sign, word in _ADDRESS_SIGNS.items():
        text = text.replace(sign, f" {word} ")
    return " ".join(text.split()) + end


def _file(match: regex.Match[str]) -> str:
    name = match[1]
    for sign, word in _ADDRESS_SIGNS.items():
        name = name.replace(sign, f" {word} ")
    return f"{' '.join(name.split())} dot {names.extension(match[2])}"


_ADDRESS_SIGNS = {
    "@": "at", ".": "dot", "/": "slash", "-": "dash", "_": "underscore", "?": "question mark", "=": "equals",
    "&": "and", ":": "colon", "#": "hash", "%": "percent", "+": "plus", "~": "tilde",
}  # fmt: skip

_TLD = r"(?:com|org|net|edu|gov|io|ai|cn|uk|de|fr|jp|co|dev|app|me|info|tv|us|eu)"

ADDRESSES = (
    Rule(r"(?i)\b(?:https?|ftp)://[^\s<>\"”]+", _address),
    Rule(r"(?i)(?<![\w.@-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}", _address),
    Rule(
        r"(?i)(?<![\w.@-])(?:www\.)?[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){0,3}"
        rf"\.{_TLD}\b(?!\.\w|@)(?:/[^\s<>\"”]*)?",
        lambda match: _address(match) if regex.search(r"[A-Za-z]{2}", match[0]) else None,
    ),
    Rule(names.FILE_NAME, _file),
)

TITLE_RULES = (
    Rule(rf"{_WORD_START}({alternatives(words.TITLES)})\.(?=\s+(\p{{Lu}}[\p{{L}}']*))", _title),
    Rule(rf"{_WORD_START}(?:Mr|Mrs|Dr)(?=\s+\p{{Lu}})", lambda match: words.TITLES[match[0]]),
)

_SIGNS_OF_LETTERS = {
    "+": "plus", "×": "times", "÷": "divided by", "=": "equals", "<": "is less than", ">": "is greater than",
}  # fmt: skip


def _format_words(lines: str) -> str:
    """1080 as in 1080p: "ten eighty"."""
    head, rest = divmod(int(lines), 100)
    return f"{english_cardinal(head)} {english_cardinal(rest)}"


_CLOCK_END = r"[0-9]{1,2}(?::[0-5][0-9]|\s?[AaPp]\.?[Mm]\b)"
_WEEKDAYS = {"Mon": "Monday", "Tue": "Tuesday", "Tues": "Tuesday", "Wed": "Wednesday", "Thu": "Thursday",
             "Thur": "Thursday", "Thurs": "Thursday", "Fri": "Friday", "Sat": "Saturday", "Sun": "Sunday"}  # fmt: skip

ABBREVIATIONS = (
    Rule(names.INITIALS, lambda match: f"{names.letters(match[1])} and {names.letters(match[2])}"),
    Rule(names.ACRONYM, lambda match: names.letters(match[1])),
    Rule(r"(?<![\w.])[vV](?=[0-9]{1,3}\.[0-9])", "version ", spaced=False),
    Rule(
        r"(?<=\p{N}[ -]?|[+-])\s(?:[xX]|ext\.?|Ext\.?|extension)\s?([0-9]{1,6})(?![\w.,:-]*[0-9])",
        lambda match: f" extension {english_digits(match[1])}",
    ),
    Rule(
        r"(?<![0-9.,])(240|360|480|720|1080|1440|2160)[pP](?!\w)",
        lambda match: f"{_format_words(match[1])} P",
    ),
    Rule(rf"(?<=[0-9](?:\s?[AaPp]\.?[Mm]\.?)?)\s?[-–—]\s?(?={_CLOCK_END})", " to ", spaced=False),
    Rule(
        rf"{_WORD_START}({alternatives(_WEEKDAYS)})\.(?=,?\s(?:[0-9a-z]|{alternatives(words.MONTH_BY_NAME)}))",
        lambda match: _WEEKDAYS[match[1]],
    ),
    Rule(
        rf"{_WORD_START}((?:e\.g|E\.g|i\.e|I\.e|a\.k\.a))\.(?:,)?",
        lambda match: words.ANYWHERE[match[1]] + ("," if match[0].endswith(",") else ""),
    ),
    Rule(rf"{_WORD_START}St\.(?!\w)", _saint_or_street),
    *TITLE_RULES,
    Rule(
        r"((?<![\p{L}\p{N}])(?:\p{Lu}[\p{L}']*|[0-9]+(?:st|nd|rd|th)))\s"
        rf"({alternatives(words.STREETS)})\.(?!\w)",
        _street,
    ),
    Rule(
        r"(?<=[0-9](?:st|nd|rd|th)\s|\p{Lu}\p{Ll}+\s)(Ave|Blvd|Rd|Hwy)(?![\p{L}\p{N}.'])",
        lambda match: words.STREETS[match[1]],
    ),
    Rule(
        rf"{_WORD_START}({alternatives(words.BEFORE_NUMBER)})\.\s?(?=[0-9#])",
        lambda match: words.BEFORE_NUMBER[match[1]] + " ",
        spaced=False,
    ),
    Rule(rf"{_WORD_START}({alternatives(words.ANYWHERE)})\.(?![\p{{L}}\p{{N}}])", _anywhere),
    Rule(
        r"(?<=[0-9]\s?)([ap])\.?m\.(?![\p{L}\p{N}])", lambda match: _with_stop(match, f"{match[1].upper()} M")
    ),
    Rule(r"(?<=[0-9]\s?)([apAP])[mM]\b", lambda match: f"{match[1].upper()} M"),
    Rule(rf"{_WORD_START}((?:\p{{Lu}}\.){{2,8}})(?![\p{{L}}\p{{N}}])", _dotted_capitals),
    Rule(rf"{_WORD_START}(\p{{Lu}})\.(?=\s+(\p{{Lu}}[\p{{L}}']*))", _initial),
    Rule(r"(?<![\p{L}\p{N}])(\p{Lu}\p{Ll}+)\s([IVXL]{1,7})(?![\p{L}\p{N}'])", _roman),
)

SIGNS = (
    Rule(r"(?<=[\p{L}\p{N}.])\s?(?:→|⇒|->|=>)\s?(?=[\p{L}\p{N}])", " to ", spaced=False),
    Rule(r"(?<=[0-9])\s?[★⭐]+", " stars"),
    Rule(r"[★⭐→⇒]", "", spaced=False),
    Rule(r"©\s?", "copyright "),
    Rule(names.GREEK_LETTER, lambda match: names.GREEK_ENGLISH[match[0].lower()]),
    Rule(r"(?<=\p{L})\s?×\s?(?=[0-9\p{L}])", " by ", spaced=False),
    Rule(
        r"(?<=(?<!\w)[A-Za-z])\s?([+×÷=<>])\s?(?=[A-Za-z](?!\w))",
        lambda match: f" {_SIGNS_OF_LETTERS[match[1]]} ",
        spaced=False,
    ),
    Rule(r"(?<![\p{L}\p{N}])@(?=[\p{L}_])", "at "),
    Rule(r"(?<![\p{L}\p{N}&])#(?=\p{L}{2})", "hashtag "),
    Rule(
        rf"(?<=dollars?|cents?|euros?|pounds?|pence|yen|yuan|[0-9])\s?/\s?({alternatives(words.PERIODS)})\b",
        lambda match: f" per {words.PERIODS[match[1]]}",
    ),
    Rule(r"(?<=[\p{L}.,!?\"'”’])\s+-{1,3}\s+|(?<=\p{L})--+(?=\p{L})", " — ", spaced=False),
    Rule(r"\bC\+\+", "C plus plus"),
    Rule(r"\b([CF])#(?!\w)", r"\1 sharp"),
    Rule(r"#([0-9]{4,})(?![\w,.]*[0-9])", lambda match: f"number {english_digits(match[1])}"),
    Rule(r"#(?=[0-9])", "number "),
    Rule(r"\bw/(?=\s)", "with"),
    Rule(r"\bw/o\b", "without"),
    Rule(r"(?<=[A-Za-z0-9])\s?&\s?(?=[A-Za-z0-9])", " and ", spaced=False),
    Rule(r"(?<=\s)&(?=\s)", "and"),
    Rule(r"(?<=\s)@(?=\s)", "at"),
    Rule(r"\s&\s", " and ", spaced=False),
)
