"""The text front end of the bundled voice: Chinese and English text to phonetic symbols."""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Callable, Mapping, Sequence

from light_tts.encode.normalise.numbers import (
    MAX_DIGITS,
    chinese_cardinal,
    chinese_digits,
    english_cardinal,
    english_digits,
    english_year,
)
from light_tts.encode.pronunciation import Pronouncer, single_phonemes
from light_tts.encode.sounds import phonetic_symbols

_TOKEN = re.compile(r"([\u3400-\u9fff\U00020000-\U0003ffff]+)|([A-Za-z]+(?:'[A-Za-z]+)*)|[^\sA-Za-z]")
_HAN = re.compile(r"[\u4e00-\u9fff]")
_LATIN_WORD = re.compile(r"[A-Za-z]+")
# "A M", "U S A": the dictionary has the article only.
_LETTER_A = re.compile(r"(?<=[A-Za-z0-9] )A(?![A-Za-z'’])|\bA(?= [A-Z](?![A-Za-z'’]))")
_BEFORE = ""  # stands for the symbols of the text before
_MARKS = {
    mark: symbol
    for symbol, marks in {",": ",，、；;：:—…", ".": ".。．", "!": "!！", "?": "?？"}.items()
    for mark in marks
}
_FOLDED = str.maketrans(
    {"ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "ı": "i"}
)


class PhonemeEncoder:
    """Text to the ids of the bundled voice's symbols. Dictionaries are read on first use; safe to share by threads."""

    def __init__(self, vocabulary: Mapping[str, int]) -> None:
        self._vocabulary = dict(vocabulary)
        self._pronouncer = Pronouncer()
        self._pinyin = _Pinyin()

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """Ids of everything in `text` that the voice can say; the rest is passed over.

        continues: other text came before, so a mark may be first.
        """
        symbols = self.symbols(normalise(_LETTER_A.sub("ay", fold_accents(text))), continues=continues)
        return [self._vocabulary[symbol] for symbol in symbols if symbol in self._vocabulary]

    def sound_ids(self, sounds: Sequence[str]) -> list[int]:
        """Ids of pinyin and ARPAbet. Raises KeyError with a sound that this voice has no symbol for."""
        return [self._vocabulary[symbol] for symbol in phonetic_symbols(sounds, self._vocabulary)]

    def symbols(self, text: str, *, continues: bool = False) -> list[str]:
        """Symbols of normalised text: a syllable each for Chinese, onset + vowel and coda for English."""
        symbols = [_BEFORE] if continues else []
        for match in _TOKEN.finditer(text.replace("’", "'")):
            han, word = match.groups()
            if han:
                symbols += [f"z_{syllable}" for syllable in self._pinyin.syllables(han)]
            elif word:
                symbols += self._known(self._pronouncer.symbols(word))
            elif mark := _MARKS.get(match.group()):
                _append_mark(symbols, mark)
        return symbols[continues:]

    def _known(self, symbols: list[str]) -> list[str]:
        """A symbol outside the vocabulary is taken apart into single phonemes."""
        known: list[str] = []
        for symbol in symbols:
            parts = [symbol] if symbol in self._vocabulary else single_phonemes(symbol)
            known += [part for part in parts if part in self._vocabulary]
        return known


def _append_mark(symbols: list[str], mark: str) -> None:
    """Never first, never two running; a question or exclamation mark replaces the mark before it."""
    if symbols and symbols[-1] not in (",", ".", "?", "!"):
        symbols.append(mark)
    elif symbols and mark in "?!":
        symbols[-1] = mark


class _Pinyin:
    """Chinese characters to syllables with tone numbers; the dictionaries are imported when first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._convert: Callable[[str], list[str]] | None = None

    def syllables(self, han: str) -> list[str]:
        with self._lock:
            if self._convert is None:
                self._convert = _load_pypinyin()
        return [syllable.replace("ü", "v") for syllable in self._convert(han)]


def _load_pypinyin() -> Callable[[str], list[str]]:
    from pypinyin import Style, lazy_pinyin

    def convert(han: str) -> list[str]:
        syllables: list[str] = lazy_pinyin(
            han, style=Style.TONE3, neutral_tone_with_five=True, errors="ignore", v_to_u=True
        )
        return syllables

    return convert


def fold_accents(text: str) -> str:
    """Latin letters without their accents ("café" -> "cafe"): the dictionary is spelled without."""
    decomposed = unicodedata.normalize("NFD", text.translate(_FOLDED))
    return unicodedata.normalize("NFC", re.sub(r"(?<=[A-Za-z])[\u0300-\u036f]+", "", decomposed))


def normalise(text: str) -> str:
    """Spell digits, per cent and a few signs as in the voice's training text; everything else is kept."""
    text = unicodedata.normalize("NFKC", text).replace("〇", "零")
    num_han = len(_HAN.findall(text))
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    if num_han and num_han >= len(_LATIN_WORD.findall(text)):
        return _spell_chinese(text)
    return _spell_english(text)


def _spell_chinese(text: str) -> str:
    text = re.sub(r"(?<!\d)(\d{4})年", lambda match: f"{chinese_digits(match[1])}年", text)
    text = re.sub(r"(?<!\d)(\d++(?:\.\d++)?+)%", r"百分之\1", text)
    text = re.sub(r"(?<!\d)(\d++)\.(\d+)", _chinese_decimal, text)
    return re.sub(r"\d+", lambda match: _chinese_integer(match[0]), text)


def _chinese_decimal(match: re.Match[str]) -> str:
    whole, fraction = match.groups()
    head = chinese_cardinal(int(whole)) if len(whole) <= MAX_DIGITS else chinese_digits(whole)
    return f"{head}点{chinese_digits(fraction)}"


def _chinese_integer(digits: str) -> str:
    spelled = len(digits) >= 9 or (len(digits) > 1 and digits[0] == "0")
    return chinese_digits(digits) if spelled else chinese_cardinal(int(digits))


def _spell_english(text: str) -> str:
    text = re.sub(r"(?<!\d)(\d++(?:\.\d++)?+)%", r"\1 percent", text)
    text = re.sub(r"\$(\d+)", r"\1 dollars", text)
    text = re.sub(
        r"(?<!\d)(\d++)\.(\d+)",
        lambda match: f"{_english_integer(match[1])} point {english_digits(match[2])}",
        text,
    )
    text = re.sub(r"\b\d{4}\b", lambda match: _english_year(int(match[0])), text)
    text = re.sub(r"\d+", lambda match: f" {_english_integer(match[0])} ", text)
    return text.replace("&", " and ")


def _english_year(n: int) -> str:
    return english_year(n) if 1100 <= n <= 1999 or 2010 <= n <= 2099 else english_cardinal(n)


def _english_integer(digits: str) -> str:
    return english_cardinal(int(digits)) if len(digits) < 13 else english_digits(digits)
