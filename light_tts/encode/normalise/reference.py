"""Text normalisation and splitting as the reference does it, bugs included; recorded numbers pass only with it."""

from __future__ import annotations

from collections.abc import Callable

import regex

from light_tts.encode.split import MIN_LAST, MIN_PIECE, TARGET_PIECE

_CHINESE_MARKS = frozenset("。？！；：、.?!;")
_ENGLISH_MARKS = frozenset(".?!;:")
_CLOSING_QUOTES = frozenset('"”')
_SIGNS_ONLY = regex.compile(r"[\p{P}\p{S}]*")
_DIGITS = regex.compile(r"[0-9]+")
_TRAILING_COMMAS = regex.compile(r"[，,、]+$")


def is_chinese(text: str) -> bool:
    """Any Chinese character makes text Chinese."""
    return regex.search("[\u4e00-\u9fff]", text) is not None


def normalise(text: str, verbalise: Callable[[str], str] | None = None) -> str:
    """Normalise stripped text. verbalise: reads numbers first, as a separate library does in the reference."""
    text, chinese = text.strip(), is_chinese(text)
    if verbalise is not None:
        text = verbalise(text)
    if not chinese:
        return spell_out_numbers(text)
    text = replace_blanks(text.replace("\n", ""))
    text = replace_superscripts(text).replace(".", "。").replace(" - ", "，")
    return _TRAILING_COMMAS.sub("。", remove_brackets(text))


def replace_blanks(text: str) -> str:
    """Drop spaces unless both neighbours are ASCII and no spaces themselves. A final space is an IndexError."""
    kept = []
    for index, char in enumerate(text):
        if char == " ":
            neighbours = (text[index + 1], text[index - 1])
            if not all(other.isascii() and other != " " for other in neighbours):
                continue
        kept.append(char)
    return "".join(kept)


def replace_superscripts(text: str) -> str:
    return text.replace("²", "平方").replace("³", "立方")


def remove_brackets(text: str) -> str:
    for bracket in "（）【】`":
        text = text.replace(bracket, "")
    return text.replace("——", " ")


def spell_out_numbers(text: str) -> str:
    """Every run of digits in English words, whatever stands around it."""
    import inflect  # slow to import, and only the reference's numbers need it

    engine = inflect.engine()

    def spell(match: regex.Match[str]) -> str:
        try:
            return str(engine.number_to_words(match.group()))
        except (inflect.NumOutOfRangeError, ValueError):  # ValueError: int() reads 4300 digits at most
            return match.group()

    return _DIGITS.sub(spell, text)


def is_only_punctuation(text: str) -> bool:
    """Nothing but punctuation and symbols, or nothing at all."""
    return _SIGNS_ONLY.fullmatch(text) is not None


def split(text: str, chinese: bool, count_tokens: Callable[[str], int]) -> list[str]:
    """Cut normalised text after sentence marks and join the parts to pieces of 60 to 80 characters or tokens.

    Of two adjacent marks the second is lost. count_tokens: measures English; Chinese is measured in characters.
    """
    pieces = merge(
        _cut(text, _CHINESE_MARKS if chinese else _ENGLISH_MARKS, chinese), len if chinese else count_tokens
    )
    return [piece for piece in pieces if not is_only_punctuation(piece)]


def _cut(text: str, marks: frozenset[str], chinese: bool) -> list[str]:
    if text[-1:] not in marks:
        text += "。" if chinese else "."
    parts: list[str] = []
    start = 0
    for index, char in enumerate(text):
        if char not in marks:
            continue
        if index > start:
            parts.append(text[start : index + 1])
        start = index + 1
        if parts and text[start : start + 1] and text[start] in _CLOSING_QUOTES:
            parts[-1] += text[start]
            start += 1
    return parts


def merge(parts: list[str], length: Callable[[str], int]) -> list[str]:
    """Join parts: a piece ends when it is over MIN_PIECE and the next part would take it over TARGET_PIECE."""
    pieces: list[str] = []
    current = ""
    for part in parts:
        if length(current + part) > TARGET_PIECE and length(current) > MIN_PIECE:
            pieces.append(current)
            current = ""
        current += part
    if not current:
        return pieces
    if pieces and length(current) < MIN_LAST:
        pieces[-1] += current
        return pieces
    return [*pieces, current]
