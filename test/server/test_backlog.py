"""Audio that waits for readers: long answers wait as text, and what is too much has an end."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import pytest

from light_tts.decode.session import Sessions
from light_tts.errors import LightTTSError, Overloaded
from light_tts.llm.turns import MAX_UNDER_WAY
from light_tts.messages import (
    AudioChunk,
    DecodeOpen,
    Pace,
    PeerLost,
    Planned,
    SegmentClosed,
    SpeechTokens,
    Stage,
    Synthesize,
)
from light_tts.observe import Metrics, metrics
from light_tts.server.backlog import BEHIND_BYTES, CAUGHT_UP_BYTES, Backlog
from light_tts.server.request_state import RequestState
from test.llm.wire import Wire, task

SECOND = 48_000  # bytes


@dataclass(slots=True)
class Worker:
    """A backlog, and what it said."""

    limit_bytes: int = 1000 * SECOND
    metrics: Metrics = field(default_factory=metrics)
    told: list[Pace] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    backlog: Backlog = field(init=False)

    def __post_init__(self) -> None:
        self.backlog = Backlog(self.limit_bytes, self.metrics, self._pace, self._end)

    def _pace(self, state: RequestState) -> None:
        self.told.append(Pace(state.request_id, state.behind, state.deadline_s))

    def _end(self, state: RequestState, error: LightTTSError) -> None:
        self.ended.append(state.request_id)
        state.drop(error)

    def request(self, name: str = "a", *, stream: bool = True, text_open: bool = False) -> RequestState:
        request = Synthesize(name, "", time.time() + 60, "text", stream=stream, text_open=text_open)
        return RequestState(request, 0, time.perf_counter(), self.backlog.note)

    def value(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(name)


def _add(state: RequestState, index: int, seconds: float, *, segment: int = 0, last: bool = False) -> None:
    state.add(AudioChunk(state.request_id, segment, index, bytes(round(seconds * 24_000) * 2), last))


def _take(state: RequestState, num_chunks: int) -> None:
    async def take() -> None:
        for _ in range(num_chunks):
            await state.next_audio()

    asyncio.run(take())


def test_a_stream_whose_reader_is_a_minute_behind_is_held_back_until_half_is_left() -> None:
    worker = Worker()
    state = worker.request()
    for index in range(60):
        _add(state, index, 1.0)
    assert worker.told == []
    _add(state, 60, 1.0)
    assert [pace.behind for pace in worker.told] == [True]
    _take(state, 31)
    assert len(worker.told) == 1
    _take(state, 1)
    assert [pace.behind for pace in worker.told] == [True, False]
    assert worker.told[1].deadline_s > state.request.deadline_s
    assert worker.value("light_tts_audio_waiting_bytes") == CAUGHT_UP_BYTES


def test_audio_that_nobody_could_have_taken_holds_nothing_back() -> None:
    worker = Worker()
    _add(worker.request(), 0, 100.0, segment=1)
    for state in (worker.request("b", stream=False), worker.request("c", text_open=True)):
        _add(state, 0, 100.0)
    assert worker.told == []


@pytest.mark.parametrize("end", ["finished", "failed"])
def test_what_ends_is_held_back_no_longer(end: str) -> None:
    worker = Worker()
    state = worker.request()
    state.plan(Planned("a", 1, 1, None))
    _add(state, 0, 61.0)
    if end == "finished":
        _add(state, 1, 1.0, last=True)
    else:
        state.fail(Overloaded("for some reason"))
    assert [pace.behind for pace in worker.told] == [True, False]


def test_who_holds_most_is_ended_where_all_together_hold_too_much() -> None:
    worker = Worker(limit_bytes=100 * SECOND)
    states = [worker.request(name, stream=False) for name in "abc"]
    for state, seconds in zip(states, (20, 60, 15), strict=True):
        state.plan(Planned(state.request_id, 1, 1, None))
        _add(state, 0, seconds, last=state is states[1])
    assert worker.ended == []
    _add(states[0], 1, 10.0)
    assert worker.ended == ["b"], "though all its audio was there"
    with pytest.raises(Overloaded, match="--max_waiting_audio_mb"):
        states[1].check()
    assert worker.value("light_tts_readers_dropped_total") == 1
    assert worker.value("light_tts_audio_waiting_bytes") == 45 * SECOND
    for state in states:
        worker.backlog.forget(state)
    assert worker.value("light_tts_audio_waiting_bytes") == 0


def _decode(wire: Wire, state: RequestState, worker: Worker, seconds: float) -> None:
    """All processes behind the HTTP worker, infinitely fast: what may be spoken is there at once."""
    while True:
        for pace in worker.told:
            wire.service.handle(pace)
        worker.told.clear()
        wire.run()
        ended = [m for m in wire.of(SpeechTokens) if m.end]
        if not ended:
            return
        wire.sent.clear()
        for tokens in sorted(ended, key=lambda message: message.segment):
            _add(state, 0, seconds, segment=tokens.segment, last=True)
            wire.service.handle(SegmentClosed(0, "a", tokens.segment))


def test_forty_minutes_for_a_listener_who_hears_them_as_they_play_never_wait_as_audio() -> None:
    worker, wire = Worker(), Wire(max_running=8)
    state = worker.request()
    num_segments, seconds = 160, 15.0
    state.plan(Planned("a", num_segments, 1, None))
    for number in range(num_segments):
        wire.service.handle(task(segment=number))
    most, taken = 0, 0
    while not state.finished or state.num_waiting_bytes:
        _decode(wire, state, worker, seconds)
        most = max(most, state.num_waiting_bytes)
        assert state.num_ready_bytes or state.finished, "the listener would hear nothing"
        _take(state, 1)
        taken += 1
    assert taken == num_segments + 1
    # What is under way goes on, and as much again had begun before the language model heard of it.
    assert most <= BEHIND_BYTES + 2 * MAX_UNDER_WAY * seconds * SECOND < num_segments * seconds * SECOND / 10
    assert wire.is_empty
    assert worker.ended == []


def test_a_decode_process_takes_the_later_deadline_of_a_later_segment() -> None:
    sessions = Sessions()
    request = sessions.request("a", "http-7", 5.0)
    assert sessions.request("a", "http-7", 9.0) is request
    assert request.deadline_s == 9.0
    assert sessions.request("a", "http-7", 5.0).deadline_s == 9.0


def test_held_back_segments_are_spoken_with_the_new_deadline_or_end_with_their_request() -> None:
    wire = Wire(max_running=8)
    for name in ("a", "gone"):
        for number in range(MAX_UNDER_WAY + 2):
            wire.service.handle(task(name, segment=number, reply_to=f"http-{7 + (name == 'a')}"))
        wire.service.handle(Pace(name, True, 0.0))
    wire.run()
    for name in ("a", "gone"):
        for number in range(MAX_UNDER_WAY):
            wire.service.handle(SegmentClosed(0, name, number))
    wire.run()
    assert len(wire.of(DecodeOpen)) == 2 * MAX_UNDER_WAY
    wire.service.handle(PeerLost(Stage.HTTP, 7))
    later = time.time() + 999
    wire.service.handle(Pace("a", False, later))
    wire.run()
    opened = wire.of(DecodeOpen)[2 * MAX_UNDER_WAY :]
    assert [(m.request_id, m.segment, m.deadline_s) for m in opened] == [("a", 4, later), ("a", 5, later)]
    assert wire.is_empty
