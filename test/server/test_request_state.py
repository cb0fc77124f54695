"""Audio in the order in which it is heard, and exactly one end."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable

import pytest

from light_tts.errors import (
    EmptyText,
    GenerationFailed,
    InvalidInput,
    LightTTSError,
    Overloaded,
    RequestTimeout,
    StageError,
    Unavailable,
)
from light_tts.messages import AudioChunk, Planned, Routed, Sampling, Synthesize
from light_tts.server.request_state import RequestState
from test.server.fake_pipeline import all_audio, samples


def _state(timeout_s: float = 5.0, noted: Callable[[RequestState], None] = lambda _: None) -> RequestState:
    request = Synthesize("r", "ipc://x", time.time() + timeout_s, "hello")
    return RequestState(request, 0, time.perf_counter(), noted)


def _chunk(segment: int, index: int, *, last: bool = False) -> AudioChunk:
    return AudioChunk("r", segment, index, samples(segment, index), last, 5 if last else 0)


def _chunks(num_segments: int, num_chunks: int) -> list[AudioChunk]:
    pairs = itertools.product(range(num_segments), range(num_chunks))
    return [_chunk(segment, index, last=index == num_chunks - 1) for segment, index in pairs]


async def _all(state: RequestState) -> bytes:
    audio = b""
    while (piece := await state.next_audio()) is not None:
        audio += piece
    return audio


@pytest.mark.parametrize("seed", range(20))
def test_chunks_in_any_order_are_heard_in_one(seed: int) -> None:
    async def play() -> bytes:
        state = _state()
        messages: list[Planned | AudioChunk] = [Planned("r", 3, 5, None), *_chunks(3, 4)]
        random.Random(seed).shuffle(messages)
        for message in messages:
            state.plan(message) if isinstance(message, Planned) else state.add(message)
        assert state.finished
        assert state.num_tokens == 15
        return await _all(state)

    assert asyncio.run(play()) == all_audio(3, 4)


def test_audio_is_there_as_soon_as_its_turn_has_come() -> None:
    async def play() -> None:
        state = _state()
        state.add(_chunk(0, 1))
        state.add(_chunk(1, 0))
        assert not state.playback.audio_s
        state.add(_chunk(0, 0))
        assert await state.next_audio() == samples(0, 0)
        assert await state.next_audio() == samples(0, 1)
        state.add(_chunk(0, 2, last=True))
        assert await state.next_audio() == samples(0, 2)
        assert await state.next_audio() == samples(1, 0)

    asyncio.run(play())


def test_a_reader_that_waits_is_woken_by_audio_by_the_plan_and_by_an_error() -> None:
    async def play() -> None:
        state = _state()
        waiting = asyncio.create_task(_all(state))
        await asyncio.sleep(0)
        state.add(_chunk(0, 0, last=True))
        await asyncio.sleep(0)
        assert not waiting.done()
        state.plan(Planned("r", 1, 5, None))
        assert await waiting == samples(0, 0)
        other = _state()
        waiting = asyncio.create_task(_all(other))
        await asyncio.sleep(0)
        other.fail(Unavailable("lost"))
        with pytest.raises(Unavailable):
            await waiting

    asyncio.run(play())


@pytest.mark.parametrize(
    ("planned", "sampling", "error", "words"),
    [
        (Planned("r", 0, 0, None), Sampling(), EmptyText, "nothing that can be spoken"),
        (Planned("r", 1, 8, None), Sampling(), GenerationFailed, "another seed"),
        (
            Planned("r", 1, 8, None),
            Sampling(max_token_text_ratio=0.1),
            InvalidInput,
            "max_token_text_ratio is 0.1",
        ),
        (Planned("r", 1, 8, None), Sampling(max_token_text_ratio=0.2), GenerationFailed, "another seed"),
    ],
)
def test_a_request_without_any_audio_fails_and_says_why(
    planned: Planned, sampling: Sampling, error: type[LightTTSError], words: str
) -> None:
    async def play() -> None:
        request = Synthesize("r", "ipc://x", time.time() + 5, "hello", sampling=sampling)
        state = RequestState(request, 0, time.perf_counter())
        state.plan(planned)
        for segment in range(planned.num_segments):
            state.add(AudioChunk("r", segment, 0, b"", True, 0))
        with pytest.raises(error, match=words):
            await state.next_audio()

    asyncio.run(play())


def test_a_segment_without_audio_among_others_is_no_failure() -> None:
    async def play() -> bytes:
        state = _state()
        state.plan(Planned("r", 2, 9, None))
        state.add(AudioChunk("r", 0, 0, b"", True, 0))
        state.add(_chunk(1, 0, last=True))
        return await _all(state)

    assert asyncio.run(play()) == samples(1, 0)


def test_an_error_goes_before_audio_that_waits_and_only_the_first_counts() -> None:
    async def play() -> None:
        state = _state()
        state.add(_chunk(0, 0))
        state.fail(StageError("generation_failed", "first"))
        state.fail(StageError("generation_failed", "second"))
        with pytest.raises(StageError, match="first"):
            await state.next_audio()

    asyncio.run(play())


def test_an_error_after_the_last_audio_changes_nothing() -> None:
    async def play() -> bytes:
        state = _state()
        state.plan(Planned("r", 1, 5, None))
        state.add(_chunk(0, 0, last=True))
        state.fail(Unavailable("too late"))
        return await _all(state)

    assert asyncio.run(play()) == samples(0, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        AudioChunk("r", 0, 0, samples(0, 0)),
        AudioChunk("r", 0, 3, b"\x00"),
        AudioChunk("r", 0, 2, samples(0, 2)),
    ],
    ids=["played already", "half a sample", "there already"],
)
def test_a_chunk_out_of_place_ends_the_request(wrong: AudioChunk) -> None:
    async def play() -> None:
        state = _state()
        state.add(_chunk(0, 0))
        state.add(_chunk(0, 2))
        state.add(wrong)
        with pytest.raises(GenerationFailed, match="out of place"):
            await state.next_audio()

    asyncio.run(play())


def test_a_request_past_its_deadline_fails() -> None:
    with pytest.raises(RequestTimeout, match="request_timeout_s"):
        asyncio.run(_state(timeout_s=0.02).next_audio())


def test_audio_that_is_there_is_given_even_past_the_deadline() -> None:
    async def play() -> bytes:
        state = _state(timeout_s=-1.0)
        state.plan(Planned("r", 1, 5, None))
        state.add(_chunk(0, 0, last=True))
        return await _all(state)

    assert asyncio.run(play()) == samples(0, 0)


def test_audio_waits_until_its_reader_asks_for_the_next() -> None:
    async def play() -> None:
        noted: list[tuple[int, int]] = []
        state = _state(noted=lambda state: noted.append((state.num_waiting_bytes, state.num_ready_bytes)))
        state.plan(Planned("r", 1, 5, None))
        state.add(_chunk(0, 1, last=True))
        state.add(_chunk(0, 0))
        assert noted == [(0, 0), (480, 0), (960, 960)]
        await state.next_audio()
        assert state.num_waiting_bytes == 960, "it is being sent"
        await state.next_audio()
        assert await state.next_audio() is None
        assert noted[3:] == [(480, 480), (0, 0)]

    asyncio.run(play())


def test_a_dropped_request_ends_though_all_its_audio_is_there() -> None:
    async def play() -> None:
        state = _state()
        state.plan(Planned("r", 1, 5, None))
        state.add(_chunk(0, 0, last=True))
        assert await state.all_there() == 480
        state.drop(Overloaded("too much"))
        assert state.num_waiting_bytes == 0
        for ask in (state.next_audio, state.all_there):
            with pytest.raises(Overloaded):
                await ask()

    asyncio.run(play())


def test_the_time_that_its_reader_is_behind_counts_neither_to_the_deadline_nor_as_silence() -> None:
    async def play() -> None:
        state = _state(timeout_s=0.05)
        state.add(_chunk(0, 0))
        state.set_behind(True)
        await asyncio.sleep(0.1)
        state.add(_chunk(0, 1))
        state.set_behind(False)
        assert state.behind_s == pytest.approx(0.1, abs=0.05)
        assert state.deadline_s == pytest.approx(state.request.deadline_s + state.behind_s)
        assert state.playback.underrun_s < 0.02
        assert state.playback.last_s < time.perf_counter() - 0.09
        await state.next_audio()
        await state.next_audio()
        with pytest.raises(RequestTimeout):
            await state.next_audio()

    asyncio.run(play())


def test_a_segment_is_in_its_decode_process_until_its_last_chunk() -> None:
    state = _state()
    state.route(Routed("r", 0, 1))
    state.route(Routed("r", 1, 2))
    state.add(_chunk(1, 0, last=True))
    assert state.decode_of == {0: 1}
    state.route(Routed("r", 1, 2))
    assert state.decode_of == {0: 1}
