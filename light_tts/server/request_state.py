"""What an HTTP worker knows of one accepted request, and its audio in the order in which it is heard."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from light_tts.errors import (
    EmptyText,
    GenerationFailed,
    InvalidInput,
    LightTTSError,
    RequestTimeout,
)
from light_tts.messages import AudioChunk, Planned, Routed, Synthesize
from light_tts.server.playback import BYTES_PER_SAMPLE, Playback


@dataclass(slots=True)
class _Segment:
    """Chunks that wait for earlier ones; `num_chunks` once the last has come."""

    waiting: dict[int, bytes] = field(default_factory=dict)
    next_index: int = 0
    num_chunks: int | None = None

    @property
    def complete(self) -> bool:
        return self.num_chunks is not None and self.next_index >= self.num_chunks


class RequestState:
    """Fed by the manager, read by one task. It ends once: with all its audio, or with an error.

    request: as sent to the encode process; encode: its index
    started_s: when the client's request came, of `time.perf_counter()`
    noted: called after `num_waiting_bytes` or `settled` may have changed
    behind: its reader has too much that he has not taken, and nothing new is begun for him
    """

    def __init__(
        self,
        request: Synthesize,
        encode: int,
        started_s: float,
        noted: Callable[[RequestState], None] = lambda _: None,
    ) -> None:
        self.request = request
        self.encode = encode
        self.started_s = started_s
        self.planned: Planned | None = None
        self.decode_of: dict[int, int] = {}  # segment -> decode process, of segments that have not ended
        self.error: LightTTSError | None = None
        self.playback = Playback()
        self.num_tokens = 0
        self.num_text_chars = len(request.text)
        self.text_open = request.text_open
        self.aborted = False  # the processes have been told
        self.behind = False
        self.num_waiting_bytes = 0  # of audio that came and was not taken
        self.num_ready_bytes = 0  # of it, what could be taken
        self._noted = noted
        self._behind_s = 0.0
        self._behind_since_s = 0.0
        self._num_being_taken = 0
        self._segments: dict[int, _Segment] = {}
        self._current = 0
        self._ready: deque[bytes] = deque()
        self._changed = asyncio.Event()

    @property
    def request_id(self) -> str:
        return self.request.request_id

    @property
    def finished(self) -> bool:
        """Whether all audio is there."""
        return self.planned is not None and self._current >= self.planned.num_segments

    @property
    def settled(self) -> bool:
        """Whether nothing more can come."""
        return self.finished or self.error is not None

    @property
    def behind_s(self) -> float:
        """How long its reader was behind, all together."""
        since_s = time.perf_counter() - self._behind_since_s if self.behind else 0.0
        return self._behind_s + since_s

    @property
    def deadline_s(self) -> float:
        """Of `time.time()`: what the reader's being behind took does not count."""
        return self.request.deadline_s + self.behind_s

    def set_behind(self, behind: bool) -> None:
        self._behind_s, self._behind_since_s = self.behind_s, time.perf_counter()
        self.behind = behind

    def plan(self, message: Planned) -> None:
        self.planned = message
        self._changed.set()
        self._noted(self)

    def route(self, message: Routed) -> None:
        if not self._has_ended(message.segment):
            self.decode_of[message.segment] = message.decode

    def fail(self, error: LightTTSError) -> None:
        """The request's end, unless it has ended already."""
        if not self.settled:
            self.drop(error)

    def drop(self, error: LightTTSError) -> None:
        """The request's end, even if only its reader was waited for."""
        self.error = error
        self._ready.clear()
        self._segments.clear()
        self.num_waiting_bytes = self.num_ready_bytes = self._num_being_taken = 0
        self._changed.set()
        self._noted(self)

    def add(self, chunk: AudioChunk) -> None:
        """Chunks may come in any order. One that breaks the rules of the road ends the request."""
        if self.settled:
            return
        segment = self._segments.setdefault(chunk.segment, _Segment())
        if (
            chunk.segment < self._current
            or chunk.index < segment.next_index
            or chunk.index in segment.waiting
            or len(chunk.samples) % BYTES_PER_SAMPLE
        ):
            self.fail(GenerationFailed(f"chunk {chunk.index} of segment {chunk.segment} came out of place"))
            return
        segment.waiting[chunk.index] = chunk.samples
        self.num_waiting_bytes += len(chunk.samples)
        if chunk.last:
            segment.num_chunks = chunk.index + 1
            self.num_tokens += chunk.num_tokens
            self.decode_of.pop(chunk.segment, None)
        self._release()
        self._noted(self)

    def _release(self) -> None:
        """Hand on what is next to be heard."""
        now = time.perf_counter() - self.behind_s  # no player runs dry while its reader is behind
        while (segment := self._segments.get(self._current)) is not None:
            while (samples := segment.waiting.pop(segment.next_index, None)) is not None:
                segment.next_index += 1
                self.playback.add(now, len(samples) // BYTES_PER_SAMPLE)
                if samples:
                    self._ready.append(samples)
                    self.num_ready_bytes += len(samples)
            if not segment.complete:
                break
            del self._segments[self._current]
            self._current += 1
        self._changed.set()

    def _has_ended(self, number: int) -> bool:
        segment = self._segments.get(number)
        return number < self._current or (segment is not None and segment.num_chunks is not None)

    async def next_audio(self) -> bytes | None:
        """The next samples, int16 at 24 kHz; None after the last. Raises what ended the request, RequestTimeout once
        its deadline has passed, and EmptyText, InvalidInput or GenerationFailed where there is no audio at all.
        """
        self._taken()
        while True:
            self.check()
            if self._ready:
                samples = self._ready.popleft()
                self._num_being_taken = len(samples)
                return samples
            if self.finished:
                if self.playback.started_s is None:
                    raise self._why_silent()
                return None
            await self._change()

    async def all_there(self) -> int:
        """Wait for all audio; `next_audio` gives it. Returns its size in bytes, and raises as `next_audio` does."""
        while not self.finished:
            self.check()
            await self._change()
        self.check()
        if self.playback.started_s is None:
            raise self._why_silent()
        return self.num_waiting_bytes

    def check(self) -> None:
        """Raises what ended the request."""
        if self.error is not None:
            raise self.error

    def _taken(self) -> None:
        """The audio that was given last is with the reader."""
        if self._num_being_taken:
            self.num_waiting_bytes -= self._num_being_taken
            self.num_ready_bytes -= self._num_being_taken
            self._num_being_taken = 0
            self._noted(self)

    def _why_silent(self) -> LightTTSError:
        planned, ratio = self.planned, self.request.sampling.max_token_text_ratio
        if planned is None or not planned.num_segments:
            return EmptyText("the text holds nothing that can be spoken")
        if ratio is not None and ratio * planned.num_text_tokens < planned.num_segments:
            error = InvalidInput(f"max_token_text_ratio is {ratio:g}: that leaves this text no speech")
            error.param = "max_token_text_ratio"
            return error
        return GenerationFailed("the model ended the speech before it began: try again, or with another seed")

    async def _change(self) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(max(0.0, self.deadline_s - time.time())):
                await self._changed.wait()
        except TimeoutError:
            self.fail(RequestTimeout("the request took longer than its time limit (--request_timeout_s)"))
