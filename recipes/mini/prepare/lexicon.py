"""Words to practise rare syllables with, from the dictionaries of the prepare environment's packages.

As a program, with that environment's Python:

    python -m recipes.mini.prepare.lexicon --out words.tsv

A line of the result is language, word and how often it occurs (0 where the dictionary does not say).
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from recipes.mini.errors import RecipeError
from recipes.mini.prepare.sentences import is_unwanted

logger = logging.getLogger(__name__)

_CHINESE_WORD = re.compile(r"[\u4e00-\u9fff]{1,4}")
_ENGLISH_WORD = re.compile(r"(?!twat)[a-z]{3,}")
_MIN_COUNT = {1: 50, 2: 3, 3: 3, 4: 3}  # of a Chinese word by its length: what is rarer is often no word
_WORDS_PER_SYMBOL = 12
_ENOUGH_WORDS = 3  # of several characters, beside which single ones are not needed


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Words by language, those to be preferred first."""

    english: list[str]
    chinese: list[str]


def read_lexicon(path: Path) -> Lexicon:
    """Words of a file that this program made: Chinese ones of several characters first, then by frequency."""
    english: list[str] = []
    chinese: list[tuple[bool, int, str]] = []
    for line in path.read_text("utf-8").splitlines():
        try:
            language, word, count = line.split("\t")
            frequency = int(count)
        except ValueError as error:
            raise RecipeError(f"{path}: {line!r} is not language, word, count") from error
        if language == "zh":
            chinese.append((len(word) == 1, -frequency, word))
        else:
            english.append(word)
    return Lexicon(sorted(english), [word for _, _, word in sorted(chinese)])


def rare_words(
    words: Sequence[str],
    symbols: Callable[[str], Collection[str]],
    counts: Counter[str],
    wanted: int,
    known: Collection[str],
) -> list[str]:
    """Words, with repetitions, by which every symbol of `known` occurs `wanted` times where words hold it.

    words: those to be preferred first; symbols: of a word; counts: of the symbols so far
    The order goes in rounds over all rare symbols: any first part of the list is fair to them.
    """
    holding: defaultdict[str, list[str]] = defaultdict(list)
    rare = {symbol for symbol in known if counts[symbol] < wanted}
    for word in words:
        for symbol in sorted(rare & set(symbols(word))):
            if len(holding[symbol]) < (_ENOUGH_WORDS if len(word) == 1 else _WORDS_PER_SYMBOL):
                holding[symbol].append(word)
    counts = Counter(counts)
    chosen: list[str] = []
    for number in range(wanted):
        for symbol, choices in sorted(holding.items()):
            if counts[symbol] < wanted:
                word = choices[number % len(choices)]
                chosen.append(word)
                counts.update(symbols(word))
    return chosen


def _rows() -> Iterator[tuple[str, str, int]]:
    import jieba
    import misaki

    dictionary = Path(jieba.__file__).with_name("dict.txt")
    for line in dictionary.read_text("utf-8").splitlines():
        word, count, _ = line.split(" ")
        if _CHINESE_WORD.fullmatch(word) and int(count) >= _MIN_COUNT[len(word)]:
            yield "zh", word, int(count)
    spoken = Path(misaki.__file__).parent / "data" / "us_gold.json"
    for word in json.loads(spoken.read_text("utf-8")):
        if _ENGLISH_WORD.fullmatch(word):
            yield "en", word, 0


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="List the words of the dictionaries of jieba and misaki.")
    parser.add_argument("--out", type=Path, required=True, help="file of the result")
    options = parser.parse_args(arguments)
    rows = [row for row in _rows() if not is_unwanted(row[1])]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    partial = options.out.with_suffix(".tmp")
    partial.write_text("".join(f"{language}\t{word}\t{count}\n" for language, word, count in rows), "utf-8")
    partial.replace(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
