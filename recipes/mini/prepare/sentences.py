"""Sentences to read: cleaned text of freely licensed packages, or ready lists; none that the evaluation uses.

As a program it makes the lists, one sentence a line, with the prepare environment's Python:

    python -m recipes.mini.prepare.sentences --packages DOWNLOADS --out SENTENCES
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from recipes.mini.errors import RecipeError
from recipes.mini.languages import LANGUAGES

logger = logging.getLogger(__name__)

_UNWANTED_ENGLISH = re.compile(
    r"\b(fuck\w*|shit\w*|bitch\w*|cunt|nigg\w*|rape\w*|whore\w*|slut\w*|cock|porn\w*|sex\w*|suicide"
    r"|kill (?:him|her|your)self)\b",
    re.IGNORECASE,
)
_UNWANTED_CHINESE = re.compile("操你|他妈的|妓女|强奸|自杀|色情|做爱|傻逼|婊子|屌|性交|法轮|六四|狗日")
_ENGLISH_CHARACTERS = re.compile(r"[A-Za-z0-9 ,.!?';:\"$%-]+")
_NOT_PROSE = re.compile(r"[A-Z]{4,}|[a-z][A-Z]|\d{6,}|www|http|\.\w|\w/|--|\.{2,}")
_CHINESE_CHARACTERS = re.compile(r"[\u4e00-\u9fff，、：；“”《》]+[。！？]")
_HAN = re.compile(r"[\u4e00-\u9fff]")
_MIN_CONTAINED = {"en": 20, "zh": 8}  # characters from which a sentence inside another counts as the same


@dataclass(frozen=True, slots=True)
class Sentences:
    """Lists by language, in an order of their own that is kept."""

    english: list[str]
    chinese: list[str]


def read_sentences(folder: Path) -> Sentences:
    """sent_en.txt and sent_zh.txt of `folder`. Raises RecipeError."""
    lists = []
    for language in LANGUAGES:
        path = folder / f"sent_{language}.txt"
        if not path.is_file():
            raise RecipeError(
                f"{path} is missing: --sentences names a folder with sent_en.txt and sent_zh.txt"
            )
        lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
        unwanted = _UNWANTED_CHINESE if language == "zh" else _UNWANTED_ENGLISH
        lists.append([line for line in lines if line and not unwanted.search(line)])
    return Sentences(*lists)


def is_unwanted(text: str) -> bool:
    """Whether nobody should have to hear it."""
    return bool(_UNWANTED_ENGLISH.search(text) or _UNWANTED_CHINESE.search(text))


def collect_sentences(packages: Path, out: Path, seed: int) -> Sentences:
    """Make sent_en.txt and sent_zh.txt from the unpacked packages (see packages.SENTENCES)."""
    from recipes.mini.prepare.sources import package_sentences

    kept: dict[str, dict[str, str]] = {language: {} for language in LANGUAGES}
    for language, raw in package_sentences(packages):
        clean = clean_chinese(raw) if language == "zh" else clean_english(raw)
        if clean:
            kept[language].setdefault(key(clean), clean)
    out.mkdir(parents=True, exist_ok=True)
    lists = []
    for language in LANGUAGES:
        sentences = list(kept[language].values())
        random.Random(f"{seed} {language}").shuffle(sentences)
        (out / f"sent_{language}.txt").write_text("".join(f"{line}\n" for line in sentences), "utf-8")
        lists.append(sentences)
        logger.info("%s: %d sentences", language, len(sentences))
    return Sentences(*lists)


def clean_english(raw: str) -> str | None:
    """A complete sentence of 5 to 25 plain words, or None."""
    text = unicodedata.normalize("NFKC", raw).translate(str.maketrans("’‘“”–", "''\"\"-")).replace("—", ", ")
    text = re.sub(r"\s+", " ", text).strip().strip('"').strip()
    if not text or text[-1] not in ".!?" or not _ENGLISH_CHARACTERS.fullmatch(text):
        return None
    without_decimals = re.sub(r"\d\.\d", "0", text)
    if text.count('"') % 2 or _NOT_PROSE.search(without_decimals) or _UNWANTED_ENGLISH.search(text):
        return None
    if not re.match(r'["\']?[A-Z0-9$]', text):
        return None
    return text if 5 <= len(text.split()) <= 25 and len(text) <= 180 else None


def clean_chinese(raw: str) -> str | None:
    """A sentence of 5 to 40 characters and plain punctuation, or None."""
    text = re.sub(r"\s+", "", unicodedata.normalize("NFKC", raw))
    text = re.sub(r"\.$", "。", text.translate(str.maketrans(",?!:;", "，？！：；")))
    if text and text[-1] not in "。！？":
        text += "。"
    if not _CHINESE_CHARACTERS.fullmatch(text) or _UNWANTED_CHINESE.search(text):
        return None
    if text.count("“") != text.count("”") or text.count("《") != text.count("》") or text[0] in "，、：；”》":
        return None
    return text if 5 <= len(_HAN.findall(text)) <= 40 else None


def key(text: str) -> str:
    """What is left of a text when case, spaces and punctuation do not count."""
    return re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", text)).lower()


def read_excluded(paths: Iterable[Path]) -> set[str]:
    """Keys of all texts of evaluation files: see excluded_texts."""
    return {key(text) for text in excluded_texts(paths)} - {""}


def excluded_texts(paths: Iterable[Path]) -> list[str]:
    """The texts of evaluation files: lines of .txt, fields named text or ..._text of .jsonl."""
    texts: list[str] = []
    for path in paths:
        lines = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
        if path.suffix != ".jsonl":
            texts += lines
            continue
        for row in map(json.loads, lines):
            texts += [value for name, value in row.items() if name == "text" or name.endswith("_text")]
    return texts


def without(sentences: Sequence[str], excluded: Collection[str]) -> list[str]:
    """Sentences that are not, do not contain and are not part of an excluded text."""
    long = [text for text in excluded if _is_long(text)]
    joined = "\n".join(long)

    def clashes(sentence: str) -> bool:
        plain = key(sentence)
        if plain in excluded or any(text in plain for text in long):
            return True
        return _is_long(plain) and plain in joined

    return [sentence for sentence in sentences if not clashes(sentence)]


def _is_long(plain: str) -> bool:
    return len(plain) >= _MIN_CONTAINED["zh" if _HAN.search(plain) else "en"]


def unlike(sentences: Sequence[str], limit: int = 100) -> list[str]:
    """Sentences without the crowd: at most `limit` that begin with the same 12 letters or 6 Chinese characters."""
    counts: Counter[str] = Counter()
    kept = []
    for sentence in sentences:
        start = sentence[: 6 if _HAN.search(sentence) else 12]
        counts[start] += 1
        if counts[start] <= limit:
            kept.append(sentence)
    return kept


def hold_out(sentences: Sequence[str], num: int, seed: int) -> tuple[list[str], list[str]]:
    """(for training, held out): `num` sentences for later tests, the rest shuffled."""
    shuffled = list(sentences)
    random.Random(f"{seed} hold out").shuffle(shuffled)
    return shuffled[num:], shuffled[:num]


def varied(
    sentences: Sequence[str], num: int, symbols: Callable[[str], Collection[str]], wanted: int
) -> list[str]:
    """`num` of the sentences; first those by which each symbol occurs `wanted` times, as far as they hold it.

    symbols: of a sentence
    """
    counts: Counter[str] = Counter()
    needed: list[str] = []
    others: list[str] = []
    for sentence in sentences:
        found = set(symbols(sentence))
        is_needed = any(counts[symbol] < wanted for symbol in found)
        (needed if is_needed else others).append(sentence)
        counts.update(found if is_needed else ())
    return [*needed, *others][:num]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Make the lists of sentences from downloaded packages.")
    parser.add_argument("--packages", type=Path, required=True, help="folder of the downloads")
    parser.add_argument("--out", type=Path, required=True, help="folder for sent_en.txt and sent_zh.txt")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        collect_sentences(options.packages, options.out, options.seed)
    except RecipeError as error:
        logger.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
