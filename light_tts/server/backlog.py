"""Audio that waits for its readers in one HTTP worker: who holds it, who makes no more of it, and who has to go.

A stream whose reader is a minute behind is held back: the language model begins no more of its segments until half of
that is left, and the time does not count towards its deadline. So a long answer waits as text, for as long as it plays.
What waits all the same (whole answers, segments under way) has one limit: above it, whoever holds most is ended.
"""

from __future__ import annotations

from collections.abc import Callable

from light_tts.errors import Overloaded
from light_tts.observe import Metrics
from light_tts.server.playback import BYTES_PER_SAMPLE, SAMPLE_RATE_HZ
from light_tts.server.request_state import RequestState

BEHIND_BYTES = 60 * SAMPLE_RATE_HZ * BYTES_PER_SAMPLE
CAUGHT_UP_BYTES = BEHIND_BYTES // 2


class Backlog:
    """pace: tells the language model whether the reader of a request is behind
    end: ends a request; nothing of it waits then
    """

    def __init__(
        self,
        limit_bytes: int,
        metrics: Metrics,
        pace: Callable[[RequestState], None],
        end: Callable[[RequestState, Overloaded], None],
    ) -> None:
        self._limit_bytes = limit_bytes
        self._metrics = metrics
        self._pace = pace
        self._end = end
        self._bytes: dict[RequestState, int] = {}
        self._total = 0

    def note(self, state: RequestState) -> None:
        """Audio of a request has come, was taken, or is not wanted any more. Call it after each."""
        self._total += state.num_waiting_bytes - self._bytes.pop(state, 0)
        if state.num_waiting_bytes:
            self._bytes[state] = state.num_waiting_bytes
        self._metrics.audio_waiting.set(self._total)
        self._hold(state)
        while self._total > self._limit_bytes:
            self._end_largest()

    def forget(self, state: RequestState) -> None:
        """Its reader is gone."""
        self._total -= self._bytes.pop(state, 0)
        self._metrics.audio_waiting.set(self._total)

    def _hold(self, state: RequestState) -> None:
        # Text that is still being written comes at its writer's pace, and is not held back.
        behind = not state.settled and state.request.stream and not state.request.text_open
        behind &= state.num_ready_bytes > (CAUGHT_UP_BYTES if state.behind else BEHIND_BYTES)
        if behind is not state.behind:
            state.set_behind(behind)
            self._pace(state)

    def _end_largest(self) -> None:
        state = max(self._bytes, key=self._bytes.__getitem__)
        self._metrics.readers_dropped.inc()
        limit = f"{self._limit_bytes / 1e6:g} MB (--max_waiting_audio_mb)"
        self._end(
            state,
            Overloaded(
                f"{self._total / 1e6:.1f} MB of audio wait for their readers here, limit {limit}: of all requests this "
                f"one holds most, {self._bytes[state] / 1e6:.1f} MB"
            ),
        )
