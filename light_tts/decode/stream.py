"""When a streamed segment's tokens become chunks: token offset, hop growth, chunk borders."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HopPlan:
    """Chunk sizes of a stream, in speech tokens (25 a second)."""

    chunk: int = (
        25  # streaming attention chunk: chunks end on multiples of it, counted from the prompt's start
    )
    # Fewest new tokens in the first chunk. The vocoder holds back 10.5 of them: with 16 the listener has 0.2 s to hear
    # while the second chunk is made.
    first_hop: int = 16
    hop: int = 25
    max_hop: int = 100
    scale: int = 2
    lookahead: int = 3

    @classmethod
    def reference(cls, chunk: int, lookahead: int) -> HopPlan:
        """The reference's plan: a whole hop beyond the first border, then 25, 50, 100."""
        return cls(chunk=chunk, first_hop=chunk, hop=chunk, max_hop=4 * chunk, lookahead=lookahead)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens [start, end) of a segment become audio now; `finalize` means that nothing follows."""

    start: int
    end: int
    finalize: bool


class HopSchedule:
    """Turns a growing token count into chunks. Depends on counts alone, never on timing.

    prompt_tokens: length of the flow's prompt. Non-final chunks end where prompt + tokens is a multiple of
    `plan.chunk`, so that no frame of theirs would see more if the whole text were there already.
    `hop` starts the schedule elsewhere than `plan.hop` (the reference never resets it between requests).
    """

    def __init__(self, plan: HopPlan, prompt_tokens: int, hop: int | None = None) -> None:
        self._plan = plan
        self._offset = 0
        self._hop = plan.hop if hop is None else hop
        pad = -prompt_tokens % (self._hop if hop is not None else plan.chunk)
        self._next_hop = self._first_hop(pad)
        self._finished = False

    def _first_hop(self, pad: int) -> int:
        hop = pad
        while hop < self._plan.first_hop:
            hop += self._plan.chunk
        if self._plan.first_hop == self._plan.chunk:  # the reference always adds a whole hop to the pad
            hop = self._hop + pad
        return hop

    @property
    def offset(self) -> int:
        """Tokens already turned into chunks."""
        return self._offset

    @property
    def hop(self) -> int:
        """The hop after growth: where the reference's next request would start."""
        return self._hop

    @property
    def finished(self) -> bool:
        return self._finished

    def tokens_wanted(self) -> int:
        """Token count at which the next chunk becomes ready."""
        return self._offset + self._next_hop + self._plan.lookahead

    def peek(self, num_tokens: int, ended: bool) -> Chunk | None:
        """The next ready chunk of a segment that has `num_tokens` tokens, `ended` if it gets no more."""
        if self._finished:
            return None
        if num_tokens >= self.tokens_wanted():
            return Chunk(self._offset, self._offset + self._next_hop, finalize=False)
        return Chunk(self._offset, num_tokens, finalize=True) if ended else None

    def next_chunk(self, num_tokens: int, ended: bool) -> Chunk | None:
        """As `peek`; the schedule moves on behind the chunk."""
        chunk = self.peek(num_tokens, ended)
        if chunk is None:
            return None
        if chunk.finalize:
            self._finished = True
        else:
            self._offset = chunk.end
            self._grow()
        return chunk

    def _grow(self) -> None:
        first = self._offset == self._next_hop
        if self._plan.first_hop == self._plan.chunk or not first:
            self._hop = min(self._plan.max_hop, self._hop * self._plan.scale)
        self._next_hop = self._hop
