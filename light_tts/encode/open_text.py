"""Text that arrives while speech is already being generated, as token ids of one sequence after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import regex

from light_tts.encode.pieces import PieceBuffer, small_pieces
from light_tts.encode.planner import Plan
from light_tts.encode.text import language_of
from light_tts.errors import TextTooLong

MAX_SEQUENCE_TOKENS = 400
"""Text tokens of one sequence; the language model is told so in advance."""

_ENOUGH_TOKENS, _MANY_TOKENS = 60, 200
_SENTENCE_ENDS = tuple("。！？!?.…\n")
_OPENING = regex.compile(r"(?:\P{L}*\p{L}){8}")  # shorter than what the language model waits for anyway


def opening(text: str) -> str | None:
    """The beginning of a text, by which a default voice is chosen, always cut at the same place; None if more of it
    must come first.
    """
    match = _OPENING.match(text)
    return match.group() if match else None


@dataclass(frozen=True, slots=True)
class TextStep:
    """More text for a sequence. opens: its first; ends: its last (then ids may be empty)"""

    sequence: int
    ids: tuple[int, ...]
    opens: bool
    ends: bool


class OpenText:
    """The text of one request. A sequence ends at a sentence's end once it is long enough, anywhere when it is too
    long; none is empty.

    max_chars: of all the text; None: no limit
    """

    def __init__(self, plan: Plan, max_chars: int | None = None) -> None:
        self._plan = plan
        self._max_chars = max_chars
        self._num_chars = 0
        self._buffer = PieceBuffer()
        self._finished: list[str] = []  # what each complete sequence says
        self._text = ""  # of the sequence that is under way
        self._num_tokens = 0
        self.num_text_tokens = 0

    @property
    def texts(self) -> tuple[str, ...]:
        """What each sequence says so far, as it was written."""
        return (*self._finished, self._text.strip()) if self._num_tokens else tuple(self._finished)

    def push(self, text: str) -> Iterator[TextStep]:
        """More text, cut anywhere. Exhaust what this returns before the next call. Raises TextTooLong."""
        self._num_chars += len(text)
        if self._max_chars is not None and self._num_chars > self._max_chars:
            raise TextTooLong(f"text has {self._num_chars} characters so far, the limit is {self._max_chars}")
        for piece in small_pieces([text]):
            yield from self._take(self._buffer.push(piece))

    def end(self) -> Iterator[TextStep]:
        """There is no more text."""
        yield from self._take(self._buffer.flush())
        if self._num_tokens:
            yield self._step((), opens=False, ends=True)

    def _take(self, released: str) -> Iterator[TextStep]:
        ids = self._ids(released)
        if self._num_tokens + len(ids) > MAX_SEQUENCE_TOKENS and self._num_tokens:
            yield self._step((), opens=False, ends=True)
            ids = self._ids(released)
        self._text += released
        while len(ids) > MAX_SEQUENCE_TOKENS:  # sixty digits that are read one by one
            yield self._add(ids[:MAX_SEQUENCE_TOKENS], ends=True)
            ids = ids[MAX_SEQUENCE_TOKENS:]
        if ids:
            yield self._add(ids)

    def _add(self, ids: tuple[int, ...], ends: bool = False) -> TextStep:
        opens = self._num_tokens == 0
        self._num_tokens += len(ids)
        self.num_text_tokens += len(ids)
        return self._step(ids, opens, ends or self._ends())

    def _ids(self, text: str) -> tuple[int, ...]:
        """Ids of text that is complete up to here. What came before tells the language of a lone number."""
        first = not self._text.strip()
        text = text.lstrip() if first else text
        if not text.strip():
            return ()
        return tuple(self._plan.frontend.piece_ids(text, language_of(self._text + text), first=first))

    def _ends(self) -> bool:
        at_sentence_end = self._text.rstrip().endswith(_SENTENCE_ENDS)
        return self._num_tokens >= (_ENOUGH_TOKENS if at_sentence_end else _MANY_TOKENS)

    def _step(self, ids: tuple[int, ...], opens: bool, ends: bool) -> TextStep:
        step = TextStep(len(self._finished), ids, opens, ends)
        if ends:
            self._finished.append(self._text.strip())
            self._text, self._num_tokens = "", 0
        return step
