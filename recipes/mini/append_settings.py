"""Numbers of `prepare-text --append`: what is added to a table of utterances that is used up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AppendSettings:
    """Shares are of the added utterances; what they leave is running text that the table has not yet.

    Speakers' speeds, spellings and the shares of both languages inside a pool are those of TextSettings.
    """

    chinese: float = 0.52  # of the running text and of pools that both languages have
    names: float = 0.20  # sentences with names of people and places
    words: float = 0.16  # words for syllables that are rare in the table
    long: float = 0.15  # sentences of several clauses
    numbers: float = 0.05
    switched: float = 0.03
    short: float = 0.05
    tones: float = 0.01
    rare_chinese: float = 0.7  # share of Chinese among `words`: its syllables are the symbols
    of_each_symbol: int = 36  # times that a syllable should occur, where there are words with it
    long_english: tuple[int, int] = (26, 44)  # words
    long_chinese: tuple[int, int] = (34, 54)  # characters
    max_phonemes: int = (
        270  # of one sentence: about 15 s, and generate.max_s leaves out what is longer than 16 s
    )
