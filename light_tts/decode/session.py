"""What a decode process knows of its requests and their segments; no torch, and no thread but the main one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from light_tts.decode.clock import PlaybackClock
from light_tts.decode.scheduler import Kind, Work, whole_due

if TYPE_CHECKING:
    from light_tts.decode.segment import SegmentStream

MAX_REMEMBERED = 10_000
IDLE_REQUEST_S = 60.0  # a later segment of a request may be on its way: so long its clock is kept

SegmentKey = tuple[str, int]


@dataclass(slots=True, eq=False)
class Request:
    """deadline_s: monotonic; idle_since_s: when its last segment here ended"""

    id: str
    reply_to: str
    deadline_s: float
    clock: PlaybackClock = field(default_factory=PlaybackClock)
    segments: dict[int, Segment] = field(default_factory=dict)
    idle_since_s: float = 0.0


@dataclass(slots=True, eq=False)
class Segment:
    """One segment from its DecodeOpen to its end.

    stream: None until its voice is ready, and always where the whole segment is decoded at once
    has_memory: its streaming state is accounted for
    dropped: nobody wants it any more, but a batch in flight still holds it
    ready_since_s: since when there is work to do that nobody does
    work_s: time of all batches that it was in; num_chunks: handed out
    """

    request: Request
    number: int
    seed: int
    streaming: bool
    speed: float
    voice_key: str
    num_prompt_tokens: int
    tokens: list[int] = field(default_factory=list)
    ended: bool = False
    stream: SegmentStream | None = None
    has_memory: bool = False
    in_flight: bool = False
    dropped: bool = False
    ready_since_s: float | None = None
    num_chunks: int = 0
    work_s: float = 0.0

    @property
    def key(self) -> SegmentKey:
        return self.request.id, self.number

    def add(self, tokens: Iterable[int], end: bool) -> None:
        """What comes after the end is ignored."""
        if self.ended:
            return
        self.tokens.extend(tokens)
        self.ended = end
        self.request.clock.expect(self.number, len(self.tokens), self.speed)

    @property
    def silent(self) -> bool:
        """Ended before it began."""
        return self.ended and not self.tokens

    @property
    def size(self) -> int:
        """Speech tokens of the work that is ready now; 0 where none is. The first chunk has prompt tokens to compute
        too, but less than a streaming attention chunk of them.
        """
        if not self.streaming:
            return len(self.tokens) + self.num_prompt_tokens if self.ended else 0
        if self.stream is None:
            return 0
        chunk = self.stream.schedule.peek(len(self.tokens), self.ended)
        return 0 if chunk is None else max(1, chunk.end - chunk.start)

    def refresh(self, now_s: float) -> None:
        """Look whether there is work, after anything has changed."""
        idle = self.in_flight or self.dropped or not self.size
        if idle:
            self.ready_since_s = None
        elif self.ready_since_s is None:
            self.ready_since_s = now_s

    def work(self) -> Work:
        """The work that is ready. When it is due does not move while it waits, or it might wait for ever."""
        assert self.ready_since_s is not None
        if not self.streaming:
            due = whole_due(self.ready_since_s, self.request.deadline_s)
            return Work(self.key, Kind.WHOLE, due, self.size)
        first = self.number == 0 and self.request.clock.started_s is None
        due = self.ready_since_s if first else self.request.clock.dry_at(self.number, self.ready_since_s)
        return Work(self.key, Kind.CHUNK, due, self.size, first)

    def begin_batch(self) -> None:
        """The stream gets all tokens that are there: nobody else may touch it until the batch is done."""
        self.in_flight, self.ready_since_s = True, None
        if self.stream is None:
            return
        for token in self.tokens[len(self.stream.tokens) :]:
            self.stream.add(token)
        if self.ended:
            self.stream.end()


class Sessions:
    """All requests that have, or recently had, segments here; and those that must never have any again."""

    def __init__(self) -> None:
        self._requests: dict[str, Request] = {}
        self._segments: dict[SegmentKey, Segment] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()  # aborted, failed or too late
        self._idle: OrderedDict[str, Request] = OrderedDict()

    def __len__(self) -> int:
        return len(self._segments)

    def segments(self) -> Iterable[Segment]:
        return self._segments.values()

    def ready(self) -> list[Segment]:
        return [segment for segment in self.segments() if segment.ready_since_s is not None]

    def find(self, key: SegmentKey) -> Segment | None:
        """An open segment that somebody still wants."""
        segment = self._segments.get(key)
        return None if segment is None or segment.dropped else segment

    def held(self, key: SegmentKey) -> Segment:
        """A segment that a batch in flight holds, wanted or not."""
        return self._segments[key]

    def is_gone(self, request_id: str) -> bool:
        return request_id in self._gone

    def request(self, request_id: str, reply_to: str, deadline_s: float) -> Request:
        """The one that is known, or a new one. Later segments may bring a later deadline."""
        self._idle.pop(request_id, None)
        found = self._requests.get(request_id)
        if found is None:
            found = self._requests[request_id] = Request(request_id, reply_to, deadline_s)
        found.deadline_s = max(found.deadline_s, deadline_s)
        return found

    def add(self, segment: Segment) -> None:
        self._segments[segment.key] = segment
        segment.request.segments[segment.number] = segment

    def remove(self, segment: Segment, now_s: float) -> None:
        """A segment has ended."""
        request = segment.request
        del self._segments[segment.key]
        del request.segments[segment.number]
        if request.segments:
            return
        if request.id in self._gone:
            del self._requests[request.id]
        else:
            request.idle_since_s = now_s
            self._idle[request.id] = request

    def banish(self, request_id: str) -> list[Segment]:
        """Take nothing more of a request. Returns the segments that it still has here."""
        self._gone[request_id] = None
        while len(self._gone) > MAX_REMEMBERED:
            self._gone.popitem(last=False)
        request = self._requests.get(request_id)
        if request is None:
            return []
        if not request.segments:
            del self._requests[request_id]
            self._idle.pop(request_id, None)
        return list(request.segments.values())

    def overdue(self, now_s: float) -> list[Request]:
        """Open requests whose deadline has passed and whose client does not know yet. Forgets idle ones."""
        while self._idle:
            oldest = next(iter(self._idle.values()))
            if now_s - oldest.idle_since_s < IDLE_REQUEST_S and len(self._idle) <= MAX_REMEMBERED:
                break
            del self._idle[oldest.id], self._requests[oldest.id]
        open_requests = {segment.request.id: segment.request for segment in self.segments()}
        return [
            request
            for request in open_requests.values()
            if now_s >= request.deadline_s and request.id not in self._gone
        ]
