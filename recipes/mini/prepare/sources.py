"""Sentences as they stand in the packages; `sentences.py` cleans and chooses."""

from __future__ import annotations

import html
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from recipes.mini.errors import RecipeError
from recipes.mini.prepare.packages import HSK, TATOEBA, WORDNET, find

_NO_TEXT = re.compile(r"(?is)<(script|style|head|pre|code|screen|title|info|nav)\b.*?</\1>")
_BLOCK = re.compile(r"(?i)</?(p|li|dd|dt|h\d|td|th|tr|div|ul|ol|item|section|note|page|br)\b[^>]*>")
_CHINESE_SENTENCE = re.compile(r"[^。！？]+[。！？]")
_ENGLISH_SENTENCE = re.compile(r"[A-Z][^.!?]*(?:[.](?=\w)[^.!?]*)*[.!?](?=\s|$)")

_DOCUMENTS = (  # language, package, pages
    ("zh", "debian-handbook", "usr/share/doc/debian-handbook/html/zh-CN/**/*.html"),
    ("en", "debian-handbook", "usr/share/doc/debian-handbook/html/en-US/**/*.html"),
    ("zh", "gnome-user-docs", "usr/share/help/zh_CN/**/*.page"),
    ("en", "gnome-user-docs", "usr/share/help/C/**/*.page"),
    ("zh", "libreoffice-help-zh-cn", "usr/share/libreoffice/help/zh-CN/**/*.html"),
    ("zh", "debian-edu-doc-zh-cn", "usr/share/doc/debian-edu-doc-zh-cn/**/*.html"),
)


def package_sentences(folder: Path) -> Iterator[tuple[str, str]]:
    """(language, sentence) of all packages in `folder`, in a fixed order. Needs opencc. Raises RecipeError."""
    yield from _tatoeba(folder)
    yield from _hsk(folder)
    yield from (("en", sentence) for sentence in _wordnet(folder))
    for language, package, pages in _DOCUMENTS:
        pattern = _CHINESE_SENTENCE if language == "zh" else _ENGLISH_SENTENCE
        for path in sorted((folder / package).glob(pages)):
            for block in _blocks(path.read_text("utf-8", errors="ignore")):
                yield from ((language, sentence) for sentence in pattern.findall(block))


def _tatoeba(folder: Path) -> Iterator[tuple[str, str]]:
    """Pairs of everyday sentences; the Chinese ones are written in traditional characters too."""
    simplify = _simplifier()
    for line in _wheel_text(find(TATOEBA, folder), "tatoeba.tsv").splitlines():
        fields = line.split("\t")
        if len(fields) == 4:
            yield "zh", simplify(fields[1])
            yield "en", fields[3]


def _hsk(folder: Path) -> Iterator[tuple[str, str]]:
    """Graded sentences of the Chinese proficiency test with translations."""
    for row in json.loads(_wheel_text(find(HSK, folder), "sentences.json")):
        yield "zh", row["chinese"]
        yield "en", row["translation"]["en"]


def _wordnet(folder: Path) -> Iterator[str]:
    """Examples of the dictionary's entries: quoted after the gloss."""
    for path in sorted((folder / WORDNET.name / "usr/share/wordnet").glob("data.*")):
        for line in path.read_text("latin1").splitlines():
            for quoted in re.findall(r'"([^"]{20,200})"', line.partition(" | ")[2]):
                text = quoted.strip()
                if text and not re.search(r"[-;:(]", text):
                    yield text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")


def _blocks(page: str) -> Iterator[str]:
    """Paragraphs of HTML or Mallard."""
    page = _BLOCK.sub("\n\n", _NO_TEXT.sub(" ", page))
    for block in re.split(r"\n\s*\n", html.unescape(re.sub(r"<[^>]+>", "", page))):
        if text := re.sub(r"\s+", " ", block).strip():
            yield text


def _wheel_text(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        found = [entry for entry in archive.namelist() if entry.endswith(name)]
        if not found:
            raise RecipeError(f"{wheel} holds no {name}")
        return archive.read(found[0]).decode("utf-8-sig")


def _simplifier() -> Callable[[str], str]:
    try:
        from opencc import OpenCC
    except ImportError as error:
        raise RecipeError("opencc is missing: install recipes/mini/requirements-prepare.txt") from error
    convert: Callable[[str], str] = OpenCC("t2s").convert
    return convert
