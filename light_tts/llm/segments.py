"""What the language model process has in hand: segments, by sequence and by request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from light_tts.messages import LlmTask

_REMEMBER_S = 60.0  # how long after a request's end what is still on its way is recognised


@dataclass(slots=True)
class Segment:
    """A segment whose speech is being generated. Times are of `time.monotonic`.

    started_s: when its sequence began; decode: where its tokens go, once that is decided
    tokens: those that have not been sent
    """

    task: LlmTask
    sequence_id: int
    arrived_s: float
    started_s: float | None = None
    decode: int | None = None
    tokens: list[int] = field(default_factory=list)


class Segments:
    """All segments in hand, in order of arrival, and the requests that have ended early."""

    def __init__(self) -> None:
        self._by_sequence: dict[int, Segment] = {}
        self._by_request: dict[str, dict[int, Segment]] = {}
        self._unstarted: dict[int, Segment] = {}
        self._gone: dict[str, float] = {}  # request -> when it may be forgotten, in that order

    def __len__(self) -> int:
        return len(self._by_sequence)

    def __iter__(self) -> Iterator[Segment]:
        return iter(list(self._by_sequence.values()))

    @property
    def unstarted(self) -> Iterable[Segment]:
        """Those whose sequence has not begun, in order of arrival."""
        return self._unstarted.values()

    def add(self, segment: Segment) -> None:
        others = self._by_request.setdefault(segment.task.request_id, {})
        for other in others.values():
            # Each task brings the voice anew, up to half a megabyte: a long text must not fill the memory with it.
            if other.task.voice == segment.task.voice:
                segment.task = msgspec.structs.replace(segment.task, voice=other.task.voice)
            break
        self._by_sequence[segment.sequence_id] = self._unstarted[segment.sequence_id] = segment
        others[segment.task.segment] = segment

    def start(self, segment: Segment, now_s: float) -> None:
        """Its sequence begins, unless it has begun."""
        if self._unstarted.pop(segment.sequence_id, None) is not None:
            segment.started_s = now_s

    def find(self, request_id: str, number: int) -> Segment | None:
        return self._by_request.get(request_id, {}).get(number)

    def of_sequence(self, sequence_id: int) -> Segment | None:
        return self._by_sequence.get(sequence_id)

    def remove(self, segment: Segment) -> None:
        del self._by_sequence[segment.sequence_id]
        self._unstarted.pop(segment.sequence_id, None)
        of_request = self._by_request[segment.task.request_id]
        del of_request[segment.task.segment]
        if not of_request:
            del self._by_request[segment.task.request_id]

    def end_request(self, request_id: str, now_s: float) -> list[Segment]:
        """Remove all segments of a request, and take no more of it. Returns them."""
        removed = list(self._by_request.get(request_id, {}).values())
        for segment in removed:
            self.remove(segment)
        self._gone.pop(request_id, None)
        self._gone[request_id] = now_s + _REMEMBER_S
        return removed

    def is_gone(self, request_id: str) -> bool:
        return request_id in self._gone

    def forget_gone(self, now_s: float) -> None:
        while self._gone:
            request_id, until_s = next(iter(self._gone.items()))
            if until_s > now_s:
                return
            del self._gone[request_id]
