"""Who owns which slots of the KV cache. The tensors themselves are `light_tts.models.kv_cache.KVCache`."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Slots start .. start + length - 1."""

    start: int
    length: int

    @property
    def stop(self) -> int:
        return self.start + self.length


class KVPool:
    """Contiguous reservations, first fit; a released span merges with its free neighbours."""

    def __init__(self, num_slots: int) -> None:
        if num_slots < 1:
            raise ValueError(f"a KV pool needs at least one slot, not {num_slots}")
        self.num_slots = num_slots
        self._free = [Span(0, num_slots)]  # ordered, no two adjacent
        self._reserved: set[Span] = set()

    @property
    def num_free(self) -> int:
        return sum(span.length for span in self._free)

    def reserve(self, length: int) -> Span | None:
        """`length` >= 1 contiguous slots, or None where no free span is long enough."""
        if length < 1:
            raise ValueError(f"cannot reserve {length} slots")
        for index, free in enumerate(self._free):
            if free.length >= length:
                rest = Span(free.start + length, free.length - length)
                self._free[index : index + 1] = [rest] if rest.length else []
                span = Span(free.start, length)
                self._reserved.add(span)
                return span
        return None

    def extend(self, span: Span, length: int) -> Span | None:
        """A reserved span made longer where it is; None where its neighbour is in the way."""
        more = length - span.length
        index = bisect_left(self._free, span)
        if span not in self._reserved or more < 1 or index == len(self._free):
            return None
        free = self._free[index]
        if free.start != span.stop or free.length < more:
            return None
        rest = Span(free.start + more, free.length - more)
        self._free[index : index + 1] = [rest] if rest.length else []
        self._reserved.remove(span)
        longer = Span(span.start, length)
        self._reserved.add(longer)
        return longer

    def would_fit(self, length: int, beside: Iterable[Span]) -> bool:
        """Whether `length` contiguous slots would be free if only the spans `beside` were reserved."""
        start = 0
        for span in sorted(beside):
            if span.start - start >= length:
                return True
            start = span.stop
        return self.num_slots - start >= length

    def release(self, span: Span) -> None:
        """Give back what `reserve` returned. Raises ValueError for anything else: a second release too."""
        if span not in self._reserved:
            raise ValueError(f"{span} is not reserved")
        self._reserved.remove(span)
        index = bisect_left(self._free, span)
        start, stop, first, last = span.start, span.stop, index, index
        if index > 0 and self._free[index - 1].stop == start:
            first, start = index - 1, self._free[index - 1].start
        if index < len(self._free) and self._free[index].start == stop:
            last, stop = index + 1, self._free[index].stop
        self._free[first:last] = [Span(start, stop - start)]
