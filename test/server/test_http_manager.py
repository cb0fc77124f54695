"""A worker's requests on their way, with the processes played by a thread."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

import pytest

from light_tts.errors import Cancelled, LightTTSError, Overloaded, RequestTimeout, StageError, Unavailable
from light_tts.messages import Abort, Drain, PeerLost, RequestFailed, Routed, Stage, Synthesize
from light_tts.observe import metrics
from light_tts.server.http_manager import HttpServerManager
from light_tts.server.request_state import RequestState
from light_tts.transport import Inbox, address
from test.server.fake_pipeline import (
    FakePipeline,
    Step,
    all_audio,
    chunk,
    failing,
    fake_pipeline,
    hanging,
    planned,
    silent,
    spoken,
)

Play = Callable[[HttpServerManager], Awaitable[None]]


def _with_manager(pipeline: FakePipeline, play: Play) -> HttpServerManager:
    manager = HttpServerManager(pipeline.config, pipeline.run_dir, metrics())

    async def run() -> None:
        await manager.start()
        try:
            await play(manager)
        finally:
            await manager.close()

    asyncio.run(run())
    return manager


def _request(text: str = "hello") -> Synthesize:
    return Synthesize("", "", 0.0, text, stream=True)


async def _all(state: RequestState) -> bytes:
    audio = b""
    while (piece := await state.next_audio()) is not None:
        audio += piece
    return audio


async def _say(manager: HttpServerManager, text: str = "hello", public_id: str = "id") -> bytes:
    with manager.answering(_request(text), public_id, "/route", time.perf_counter()) as state:
        return await _all(state)


async def _soon(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("what was waited for did not happen")


def _count(manager: HttpServerManager, outcome: str) -> float:
    return manager.metrics.registry.get_sample_value("light_tts_requests_total", {"outcome": outcome}) or 0.0


def test_requests_with_the_same_id_at_once_get_their_own_audio() -> None:
    def script(request: Synthesize) -> Sequence[Step]:
        return spoken(num_segments=int(request.text), pause_s=0.001)(request)

    async def play(manager: HttpServerManager) -> None:
        numbers = [1, 2, 3] * 10
        audio = await asyncio.gather(*(_say(manager, str(number)) for number in numbers))
        assert audio == [all_audio(number) for number in numbers]
        assert manager.num_pending == 0

    with fake_pipeline(script) as pipeline:
        manager = _with_manager(pipeline, play)
        assert len(pipeline.requests) == 30
        assert pipeline.aborted == []
    assert _count(manager, "ok") == 30


def test_a_request_carries_its_way_back_and_its_deadline() -> None:
    async def play(manager: HttpServerManager) -> None:
        await _say(manager, public_id="mine")

    with fake_pipeline(request_timeout_s=7.0) as pipeline:
        _with_manager(pipeline, play)
        (request,) = pipeline.requests.values()
    assert request.request_id.startswith("mine/")
    assert request.reply_to.startswith(f"ipc://{pipeline.run_dir}/http-")
    assert request.deadline_s == pytest.approx(time.time() + 7.0, abs=3.0)


def test_a_failed_request_is_aborted_once_and_forgotten() -> None:
    async def play(manager: HttpServerManager) -> None:
        with pytest.raises(StageError, match="silent") as caught:
            await _say(manager)
        assert caught.value.code == "invalid_audio"
        assert manager.num_pending == 0

    with fake_pipeline(failing("invalid_audio", "it is silent")) as pipeline:
        manager = _with_manager(pipeline, play)
        pipeline.wait_for(lambda p: p.aborted == list(p.requests))
    assert _count(manager, "invalid_audio") == 1


def test_a_cancelled_reader_aborts_its_request() -> None:
    async def play(manager: HttpServerManager) -> None:
        task = asyncio.create_task(_say(manager))
        await _soon(lambda: manager.num_pending == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert manager.num_pending == 0
        await _soon(lambda: pipeline.aborted == list(pipeline.requests))

    with fake_pipeline(silent) as pipeline:
        manager = _with_manager(pipeline, play)
    assert _count(manager, "cancelled") == 1


def test_a_request_past_its_deadline_fails_and_is_aborted() -> None:
    async def play(manager: HttpServerManager) -> None:
        with pytest.raises(RequestTimeout):
            await _say(manager)
        await _soon(lambda: pipeline.aborted == list(pipeline.requests))

    with fake_pipeline(silent, request_timeout_s=1.0) as pipeline:
        _with_manager(pipeline, play)


def test_a_full_worker_refuses_and_takes_again_once_there_is_room() -> None:
    async def play(manager: HttpServerManager) -> None:
        tasks = [asyncio.create_task(_say(manager)) for _ in range(2)]
        await _soon(lambda: manager.num_pending == 2)
        with pytest.raises(Overloaded):
            await _say(manager)
        tasks[0].cancel()
        await asyncio.wait(tasks[:1])
        pipeline.script = spoken()
        assert await _say(manager) == all_audio()
        tasks[1].cancel()
        await asyncio.wait(tasks)

    with fake_pipeline(silent, max_pending=2) as pipeline:
        manager = _with_manager(pipeline, play)
    assert _count(manager, "overloaded") == 1


def test_a_request_whose_audio_is_all_there_takes_no_place() -> None:
    async def play(manager: HttpServerManager) -> None:
        with manager.answering(_request(), "id", "/route", time.perf_counter()) as slow:
            await _soon(lambda: slow.finished)
            assert await _say(manager) == all_audio()
            assert await _all(slow) == all_audio()

    with fake_pipeline(max_pending=1) as pipeline:
        _with_manager(pipeline, play)


def test_encode_processes_share_the_work_and_one_that_is_lost_gets_none() -> None:
    async def play(manager: HttpServerManager) -> None:
        tasks = [asyncio.create_task(_say(manager)) for _ in range(6)]
        await _soon(lambda: len(pipeline.requests) == 6)
        assert sorted(pipeline.encode_of.values()) == [0, 0, 1, 1, 2, 2]
        pipeline.lose(Stage.ENCODE, 1)
        done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0.02)
        assert sum(task.done() for task in tasks) == 2
        assert {type(task.exception()) for task in done} == {Unavailable}
        more = [asyncio.create_task(_say(manager)) for _ in range(4)]
        await _soon(lambda: len(pipeline.requests) == 10)
        assert list(pipeline.encode_of.values())[6:].count(1) == 0
        for task in (*waiting, *more):
            task.cancel()
        await asyncio.wait((*tasks, *more))

    with fake_pipeline(silent, encode_process_num=3) as pipeline:
        _with_manager(pipeline, play)


def test_an_abort_goes_round_a_lost_process() -> None:
    async def play(manager: HttpServerManager) -> None:
        with manager.answering(_request(), "id", "/route", time.perf_counter()) as state:
            await state.next_audio()
            pipeline.lose(Stage.ENCODE, 0)
            await asyncio.sleep(0.05)
        assert await asyncio.to_thread(llm.receive, 5) == Abort(state.request_id)
        pipeline.replace(Stage.ENCODE, 0)
        with manager.answering(_request(), "id", "/route", time.perf_counter()) as state:
            await state.next_audio()
            pipeline.lose(Stage.LLM, 0)
            await _soon(lambda: state.error is not None)
        assert await asyncio.to_thread(decode.receive, 5) == Abort(state.request_id)
        assert await asyncio.to_thread(llm.receive, 0.05) is None

    with fake_pipeline(hanging(after_chunks=1)) as pipeline:
        llm: Inbox[Abort] = Inbox(address(pipeline.run_dir, Stage.LLM, 0), Abort)
        decode: Inbox[Abort] = Inbox(address(pipeline.run_dir, Stage.DECODE, 0), Abort)
        _with_manager(pipeline, play)
        llm.close()
        decode.close()


def test_a_lost_encode_process_does_not_matter_to_what_has_left_it() -> None:
    async def play(manager: HttpServerManager) -> None:
        with manager.answering(_request(), "id", "/route", time.perf_counter()) as state:
            assert await state.next_audio() is not None
            pipeline.lose(Stage.ENCODE, 0)
            await asyncio.sleep(0.05)
            pipeline.send(chunk(state.request, 0, 1, last=True))
            assert await state.next_audio() is not None
            assert await state.next_audio() is None

    with fake_pipeline(hanging(after_chunks=1)) as pipeline:
        _with_manager(pipeline, play)


def test_a_lost_language_model_fails_everything_unfinished() -> None:
    async def play(manager: HttpServerManager) -> None:
        with manager.answering(_request(), "id", "/route", time.perf_counter()) as done:
            await _soon(lambda: done.finished)
            pipeline.script = hanging(after_chunks=1)
            tasks = [asyncio.create_task(_say(manager)) for _ in range(3)]
            await _soon(lambda: len(pipeline.requests) == 4)
            pipeline.lose(Stage.LLM, 0)
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(result) for result in results] == [Unavailable] * 3
            assert await _all(done) == all_audio()
        await _soon(lambda: len(pipeline.aborted) == 3)

    with fake_pipeline() as pipeline:
        _with_manager(pipeline, play)


def _in_decode(index: int, *, ended: bool = False) -> Callable[[Synthesize], list[Step]]:
    """A request with one segment in a decode process, ended there or not, and another to come."""

    def script(request: Synthesize) -> list[Step]:
        routed = Routed(request.request_id, 0, index)
        return [(0.0, planned(request, 2)), (0.0, routed), (0.0, chunk(request, 0, 0, last=ended))]

    return script


@pytest.mark.parametrize(("where", "ended", "fails"), [(1, False, True), (0, False, False), (1, True, False)])
def test_a_lost_decode_process_fails_what_has_unfinished_segments_there(
    where: int, ended: bool, fails: bool
) -> None:
    async def play(manager: HttpServerManager) -> None:
        with manager.answering(_request(), "id", "/route", time.perf_counter()) as state:
            await state.next_audio()
            pipeline.lose(Stage.DECODE, 1)
            await asyncio.sleep(0.05)
            assert isinstance(state.error, Unavailable) == fails

    with fake_pipeline(_in_decode(where, ended=ended), decode_process_num=2) as pipeline:
        _with_manager(pipeline, play)


def test_a_segment_said_to_be_in_a_process_that_is_lost_fails_once_the_language_model_knows() -> None:
    async def play(manager: HttpServerManager) -> None:
        with manager.answering(_request(), "id", "/route", time.perf_counter()) as state:
            lost = PeerLost(Stage.DECODE, 1, pipeline.pids[Stage.DECODE, 1])
            pipeline.send(lost)
            await asyncio.to_thread(pipeline.replace, Stage.DECODE, 1)
            pipeline.send(Routed(state.request_id, 0, 1))
            pipeline.send(lost)
            await _soon(lambda: isinstance(state.error, Unavailable))
        assert manager.door.ready(Stage.DECODE) == [0, 1]

    with fake_pipeline(silent, decode_process_num=2) as pipeline:
        _with_manager(pipeline, play)


def test_draining_finishes_what_is_accepted_and_refuses_the_rest() -> None:
    async def play(manager: HttpServerManager) -> None:
        with manager.answering(_request(), "id", "/route", time.perf_counter()) as state:
            pipeline.send(Drain())
            await _soon(lambda: manager.door.draining)
            with pytest.raises(Unavailable, match="stopping"):
                await _say(manager)
            assert await _all(state) == all_audio()

    with fake_pipeline(spoken(pause_s=0.02)) as pipeline:
        _with_manager(pipeline, play)


def test_messages_for_nobody_are_dropped() -> None:
    async def play(manager: HttpServerManager) -> None:
        pipeline.send(RequestFailed("unknown", "internal_error", "x"))
        pipeline.send(Routed("unknown", 0, 0))
        assert await _say(manager) == all_audio()

    with fake_pipeline() as pipeline:
        _with_manager(pipeline, play)


def test_closing_ends_what_is_in_work_and_leaves_no_files() -> None:
    async def play(manager: HttpServerManager) -> None:
        with manager.answering(_request(), "id", "/route", time.perf_counter()) as state:
            assert len(list(pipeline.run_dir.glob("http-*"))) == 2
            await manager.close()
            with pytest.raises(Unavailable):
                await state.next_audio()
        assert not list(pipeline.run_dir.glob("http-*"))

    with fake_pipeline(silent) as pipeline:
        _with_manager(pipeline, play)


def test_bodies_that_arrive_at_once_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("light_tts.server.http_manager.MAX_ARRIVING", 1)
    with fake_pipeline() as pipeline:
        manager = HttpServerManager(pipeline.config, pipeline.run_dir, metrics())
        with manager.arriving(), pytest.raises(Overloaded), manager.arriving():
            pass
        with manager.arriving():
            pass


def test_a_finished_request_has_one_line_that_ends_in_its_cost(caplog: pytest.LogCaptureFixture) -> None:
    async def play(manager: HttpServerManager) -> None:
        await _say(manager, "my secret")

    with caplog.at_level(logging.INFO, "light_tts"), fake_pipeline() as pipeline:
        _with_manager(pipeline, play)
    (line,) = [record.getMessage() for record in caplog.records if "cost_time" in record.getMessage()]
    assert float(line.split()[-1].removesuffix("ms")) > 0
    for part in ("route=/route", "ttfa=", "rtf=", "tokens=10", "voice=hit", "segments=2"):
        assert part in line
    assert "secret" not in caplog.text


def test_a_failed_request_has_one_line_without_the_words_of_the_user(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def play(manager: HttpServerManager) -> None:
        with pytest.raises(LightTTSError):
            await _say(manager, "my secret")

    script = failing("invalid_input", "cannot say 'my secret'")
    with caplog.at_level(logging.INFO, "light_tts"), fake_pipeline(script) as pipeline:
        _with_manager(pipeline, play)
    (line,) = [record.getMessage() for record in caplog.records if "failed" in record.getMessage()]
    assert "code=invalid_input" in line
    assert "secret" not in caplog.text


def test_what_goes_wrong_in_the_block_is_its_outcome() -> None:
    async def play(manager: HttpServerManager) -> None:
        with pytest.raises(Cancelled), manager.answering(_request(), "id", "/route", time.perf_counter()):
            raise Cancelled("the client went away")
        with pytest.raises(KeyError), manager.answering(_request(), "id", "/route", time.perf_counter()):
            raise KeyError("a mistake of ours")
        await _soon(lambda: len(pipeline.aborted) == 2)

    with fake_pipeline(silent) as pipeline:
        manager = _with_manager(pipeline, play)
    assert _count(manager, "cancelled") == 1
    assert _count(manager, "internal_error") == 1
