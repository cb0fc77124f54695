"""Text that arrives in pieces of any size: hands on only what no later piece can change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import regex

# A run that later characters could extend into another word or number. The space before it belongs to it: tokenizers
# read " word" as one token.
_OPEN_END = regex.compile(r"\s*[\p{Latin}\p{N}\p{M}'’.,:%$¥€£@/\-+]+\Z|\s+\Z")
_MAX_HELD = 64  # characters; a longer unbroken run is no word


def small_pieces(pieces: Iterable[str]) -> Iterator[str]:
    """The same text in pieces of at most 64 characters, so that one huge piece is no special case."""
    for piece in pieces:
        for start in range(0, len(piece), _MAX_HELD):
            yield piece[start : start + _MAX_HELD]


class PieceBuffer:
    """Joins pieces and releases whole words, so that "12" + ".5 km" is read as one number.

    Chinese characters and white space are borders; `flush` releases the rest when the text ends.
    """

    def __init__(self) -> None:
        self._held = ""

    def push(self, piece: str) -> str:
        """Add a piece; returns the text that is complete now (often empty)."""
        text = self._held + piece
        match = _OPEN_END.search(text[-_MAX_HELD - 1 :])
        held = match.group() if match and len(match.group()) <= _MAX_HELD else ""
        self._held = held
        return text[: len(text) - len(held)]

    def flush(self) -> str:
        """What is still held; the buffer is empty afterwards."""
        held, self._held = self._held, ""
        return held
