"""Answers over a real connection: broken off, left, and read slowly."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from light_tts.messages import Pace, Stage, Synthesize
from light_tts.transport import Inbox, address
from test.server.fake_pipeline import (
    FakePipeline,
    Script,
    Step,
    all_audio,
    chunk,
    failing,
    fake_pipeline,
    hanging,
    live_server,
    planned,
    silent,
    spoken,
)

BODY = {"tts_text": "hello", "stream": True}


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[FakePipeline, str]]:
    with fake_pipeline() as pipeline, live_server(pipeline) as host:
        yield pipeline, f"http://{host}/inference_zero_shot"


def test_chunks_arrive_while_others_are_made(served: tuple[FakePipeline, str]) -> None:
    pipeline, url = served
    pipeline.script = spoken(1, 3, pause_s=0.1)
    times, audio = [], b""
    with httpx.stream("POST", url, json=BODY) as answer:
        for piece in answer.iter_raw():
            times.append(time.perf_counter())
            audio += piece
    assert audio == all_audio(1, 3)
    assert times[-1] - times[0] > 0.15


@pytest.mark.parametrize("response_format", ["pcm", "wav"])
def test_an_error_in_the_middle_breaks_the_connection(
    served: tuple[FakePipeline, str], response_format: str, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline, url = served
    pipeline.script = failing("generation_failed", after_chunks=2, pause_s=0.02)
    audio = bytearray()
    with httpx.stream("POST", url, json={**BODY, "response_format": response_format}) as answer:
        assert answer.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            audio.extend(itertools.chain.from_iterable(answer.iter_raw()))
    assert len(audio) <= len(all_audio(1, 2)) + 44
    assert "Traceback" not in caplog.text


def test_a_lost_process_breaks_a_stream_and_503s_what_has_not_begun(served: tuple[FakePipeline, str]) -> None:
    pipeline, url = served
    pipeline.script = hanging(after_chunks=1)
    with httpx.stream("POST", url, json=BODY) as answer:
        pieces = answer.iter_raw()
        next(pieces)
        pipeline.lose(Stage.LLM, 0)
        with pytest.raises(httpx.RemoteProtocolError):
            list(pieces)
    pipeline.replace(Stage.LLM, 0)
    pipeline.script = spoken()
    assert httpx.post(url, json=BODY).content == all_audio()


def test_a_client_that_leaves_in_the_middle_aborts(served: tuple[FakePipeline, str]) -> None:
    pipeline, url = served
    pipeline.script = hanging(after_chunks=1)
    with httpx.stream("POST", url, json=BODY) as answer:
        next(answer.iter_raw())
    newest = list(pipeline.requests)[-1]
    pipeline.wait_for(lambda p: newest in p.aborted)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_before_the_first_audio_aborts(
    served: tuple[FakePipeline, str], stream: bool
) -> None:
    pipeline, url = served
    pipeline.script = silent
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(url, json={**BODY, "stream": stream}, timeout=0.2)
    newest = list(pipeline.requests)[-1]
    pipeline.wait_for(lambda p: newest in p.aborted)


def test_a_client_that_leaves_while_it_sends_is_no_error(
    served: tuple[FakePipeline, str], caplog: pytest.LogCaptureFixture
) -> None:
    pipeline, url = served
    host, _, port = httpx.URL(url).netloc.decode().partition(":")
    before = len(pipeline.requests)
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST /inference_zero_shot HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
    time.sleep(0.1)
    assert len(pipeline.requests) == before
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("stream", [True, False])
def test_clients_that_leave_at_random_moments_leave_nothing_behind(stream: bool) -> None:
    chance = random.Random(7)

    async def leave(client: httpx.AsyncClient, url: str) -> None:
        try:
            async with asyncio.timeout(chance.uniform(0.0, 0.3)):
                await client.post(url, json={**BODY, "stream": stream})
        except TimeoutError:
            return

    async def leave_all(url: str) -> None:
        async with httpx.AsyncClient() as client:
            await asyncio.gather(*(leave(client, url) for _ in range(60)))

    script = spoken(2, 5, pause_s=0.02)
    with fake_pipeline(script) as pipeline, live_server(pipeline) as host:
        url = f"http://{host}/inference_zero_shot"
        for _ in range(10):  # on a busy machine a whole round may leave before anything is accepted
            asyncio.run(leave_all(url))
            if pipeline.aborted:
                break
        pipeline.wait_for(lambda p: not p.num_due)
        assert httpx.post(url, json=BODY).content == all_audio(2, 5)
        lines = httpx.get(f"http://{host}/metrics").text.splitlines()
    outcomes = [line.split() for line in lines if line.startswith("light_tts_requests_total")]
    assert {name.split('"')[1] for name, _ in outcomes} <= {"ok", "cancelled"}
    cancelled = sum(float(number) for name, number in outcomes if "cancelled" in name)
    assert 0 < len(pipeline.aborted) <= cancelled
    assert len(set(pipeline.aborted)) == len(pipeline.aborted)


def test_a_reader_that_takes_nothing_is_given_up() -> None:
    def script(request: Synthesize) -> list[Step]:
        big: list[Step] = [(0.0, chunk(request, 0, index, num_samples=500_000)) for index in range(20)]
        return [(0.0, planned(request, 1)), *big]

    with (
        fake_pipeline(script) as pipeline,
        live_server(pipeline, reader_idle_s=0.3) as host,
        httpx.stream("POST", f"http://{host}/inference_zero_shot", json=BODY),
    ):
        pipeline.wait_for(lambda p: p.aborted == list(p.requests))


def _megabytes(number: int, *, last: bool) -> Script:
    """Audio begins, and soon there is much more of it."""

    def script(request: Synthesize) -> list[Step]:
        steps: list[Step] = [(0.0, planned(request, 1)), (0.0, chunk(request, 0, 0))]
        for index in range(1, number + 1):
            end = last and index == number
            big = chunk(request, 0, index, num_samples=500_000, last=end)
            steps.append((0.2 if index == 1 else 0.0, big))
        return steps

    return script


def test_a_reader_too_slow_for_the_memory_of_all_gets_an_honest_broken_stream() -> None:
    script = _megabytes(40, last=True)
    with fake_pipeline(script, max_waiting_audio_mb=15) as pipeline, live_server(pipeline) as host:
        url = f"http://{host}/inference_zero_shot"
        with httpx.stream("POST", url, json=BODY) as answer:
            assert answer.status_code == 200
            time.sleep(1.5)
            with pytest.raises(httpx.RemoteProtocolError):
                list(answer.iter_raw())
        refused = httpx.post(url, json={**BODY, "stream": False})
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert "limit 15 MB (--max_waiting_audio_mb)" in refused.json()["message"]
        pipeline.script = _megabytes(10, last=True)
        assert len(httpx.post(url, json={**BODY, "stream": False}).content) == 10_000_480
        lines = httpx.get(f"http://{host}/metrics").text.splitlines()
    assert "light_tts_readers_dropped_total 2.0" in lines
    assert 'light_tts_requests_total{outcome="overloaded"} 2.0' in lines
    assert "light_tts_audio_waiting_bytes 0.0" in lines


def test_the_language_model_hears_whether_the_reader_of_a_stream_keeps_up() -> None:
    with fake_pipeline(_megabytes(30, last=False)) as pipeline, live_server(pipeline) as host:
        llm: Inbox[Pace] = Inbox(address(pipeline.run_dir, Stage.LLM, 0), Pace)
        with httpx.stream("POST", f"http://{host}/inference_zero_shot", json=BODY) as answer:
            behind = llm.receive(5)
            assert behind is not None
            assert behind.behind
            num_bytes = 0
            for piece in answer.iter_raw():
                num_bytes += len(piece)
                if num_bytes > 29_500_000:
                    break
            caught_up = llm.receive(5)
        (request,) = pipeline.requests.values()
        llm.close()
    assert caught_up is not None
    assert (caught_up.request_id, caught_up.behind) == (request.request_id, False)
    assert caught_up.deadline_s > request.deadline_s


def test_a_body_without_a_length_is_limited_too() -> None:
    def body() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 10_000

    with fake_pipeline(max_body_mb=0.1) as pipeline, live_server(pipeline) as host:
        answer = httpx.post(
            f"http://{host}/inference_zero_shot", content=body(), headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "body_too_large"


def test_a_query_is_not_in_the_access_log(
    served: tuple[FakePipeline, str], caplog: pytest.LogCaptureFixture
) -> None:
    pipeline, url = served
    pipeline.script = spoken()
    logging.getLogger("uvicorn.access").setLevel(logging.INFO)
    with caplog.at_level(logging.INFO, "uvicorn.access"):
        logging.getLogger("uvicorn.access").addHandler(caplog.handler)
        assert httpx.get(url, params={"tts_text": "secret"}).content == all_audio()
        logging.getLogger("uvicorn.access").removeHandler(caplog.handler)
    lines = [record.getMessage() for record in caplog.records if record.name == "uvicorn.access"]
    assert lines
    assert not any("secret" in line for line in lines)
