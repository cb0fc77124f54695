"""What precedes every reading rule: invisible characters, look-alikes, line breaks, mark-up."""

from __future__ import annotations

import unicodedata

import regex

_HALF_WIDTH = str.maketrans(
    {chr(code): chr(code - 0xFEE0) for code in range(0xFF10, 0xFF5B) if chr(code).isalnum()}
    | dict(zip("％＄＋－＝＠＆／＃＊．＜＞", "%$+-=@&/#*.<>", strict=True))
    | {"\u3000": " ", "\u00a0": " ", "\t": " ", "\r": "\n", "\v": "\n", "\f": "\n", "\x85": "\n"}
    | {"\u2028": "\n", "\u2029": "\n\n", "〇": "零", "−": "-", "‐": "-", "‑": "-", "‒": "–", "µ": "μ"}
    | {
        "℃": "°C",
        "℉": "°F",
        "№": "No.",
        "㎡": "m²",
        "㎥": "m³",
        "㎏": "kg",
        "㎎": "mg",
        "㎜": "mm",
        "㎝": "cm",
        "㎞": "km",
    }
)
# Invisible or unassigned; joiners between letters stay, some scripts are spelled with them.
_UNSEEN = regex.compile(
    r"(?<![\p{L}\p{M}])[\u200c\u200d]|[\u200c\u200d](?![\p{L}\p{M}])|[\p{Cf}--[\u200c\u200d]]|[\p{Cc}--\n]|[\p{Co}\p{Cn}]",
    regex.VERSION1,
)
# Letters of formulas and ornament, ligatures, Han characters of radicals and of old character sets.
_OTHER_FORM = regex.compile(
    r"[\U0001d400-\U0001d7ff\ufb00-\ufb06\u2e80-\u2fd5\uf900-\ufaff\U0002f800-\U0002fa1f]"
)
_OTHER_DIGIT = regex.compile(r"[\p{Nd}--[0-9]]", regex.VERSION1)
_COMPOSED_NUMBER = regex.compile(r"[\p{No}\p{Nl}--[²³\u2070-\u209f\u00b9\u3007]]", regex.VERSION1)
_PICTURES = regex.compile(
    r"(?!(?<=[0-9] ?)[★⭐])[\p{So}\p{Sk}\p{Emoji_Presentation}--[°^`©]][\p{Emoji_Modifier}\ufe0e\ufe0f\u20e3]*"
    r"|[\ufe0e\ufe0f\u20e3]",
    regex.VERSION1,
)
_EMPHASIS = regex.compile(r"(?<!\w)(?:\*{1,3}|_{1,3}|~~)(?=\S)|(?<=\S)(?:\*{1,3}|_{1,3}|~~)(?!\w)")
_BACKTICKS = regex.compile(r"(?m)^\s*```\w*\s*$|`+")
_LINE_MARKUP = regex.compile(r"^(?:(?:#{1,6}|>|[-*+•·])(?:\s+|$))+")
_ITEM_NUMBER = regex.compile(r"([0-9]{1,3})(?:[.)．）]\s+|[、)）．]\s*|\.(?=\p{Han}))(?=\D)")
_RULE = regex.compile(r"[-*_=|:\s]*|`{3}\w*")
_PAUSE_BEFORE = regex.compile(r"[\p{P}--[\p{Pe}\p{Pf}\"'*#%&@]]", regex.VERSION1)
_PAUSE_AFTER = regex.compile(r"[，。！？；：、,.!?;:]")
_APOSTROPHE = regex.compile(r"(?<=\p{L})[’ʼ](?=\p{L})")
_BARE_POINT = regex.compile(r"(?<![\p{L}\p{N}.])\.(?=[0-9])")
_SPACES = regex.compile(r"[ \u2000-\u200a\u202f\u205f]+")


def clean(text: str) -> str:
    """Text with one way to write each thing: no invisible characters or pictures, ASCII digits and letters for
    full-width ones, plain spaces. Line breaks stay."""
    text = text.encode("utf-8", "ignore").decode("utf-8").translate(_HALF_WIDTH)
    text = _OTHER_FORM.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
    text = _OTHER_DIGIT.sub(lambda match: str(unicodedata.decimal(match[0])), text)
    text = _UNSEEN.sub("", text)
    text = _COMPOSED_NUMBER.sub(_plain_number, text)
    text = _PICTURES.sub(" ", _EMPHASIS.sub("", _BACKTICKS.sub("", text)))
    text = _BARE_POINT.sub("0.", text)
    return _SPACES.sub(" ", _APOSTROPHE.sub("'", text))


def _plain_number(match: regex.Match[str]) -> str:
    """½ as 1/2, ① and Ⅳ as digits; set apart from a number before it ("2½" is two and a half)."""
    char = match.group()
    before = match.string[match.start() - 1 : match.start()]
    value = unicodedata.numeric(char, None)
    if value is not None and value == int(value):
        plain = str(int(value))
    else:
        plain = unicodedata.normalize("NFKC", char).replace("⁄", "/")
    if unicodedata.category(char) == "No" and "\u2460" <= char <= "\u2793":  # circled: the number of an item
        plain += ", "
        return f", {plain}" if match.string[: match.start()].rstrip()[-1:].isalnum() else plain
    return f" {plain}" if before.isascii() and before.isalnum() else plain


def join_lines(text: str, chinese: bool) -> str:
    """Lines as one: paragraphs, list items and headings end as sentences do; any other new line is a pause in Chinese
    and a space in English. Mark-up at the start of lines is dropped."""
    joined, ends_sentence = "", False
    for raw in text.split("\n"):
        line = _LINE_MARKUP.sub("", raw.strip())
        stands_alone = line != raw.strip()
        if _RULE.fullmatch(line):
            ends_sentence = True
            continue
        if item := _ITEM_NUMBER.match(line):
            line = f"{item[1]}{'、' if chinese else ', '}{line[item.end() :]}"
            stands_alone = True
        if joined:
            joined += _break_mark(joined[-1], line[0], ends_sentence or stands_alone, chinese)
        joined += line
        ends_sentence = raw.lstrip().startswith("#")
    return joined


def _break_mark(before: str, after: str, ends_sentence: bool, chinese: bool) -> str:
    if _PAUSE_BEFORE.match(before) or _PAUSE_AFTER.match(after):
        return "" if chinese and not before.isascii() else " "
    if chinese:
        return "。" if ends_sentence else "，"
    return ". " if ends_sentence else " "
