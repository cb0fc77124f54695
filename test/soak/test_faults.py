"""Every kind of process is killed or hangs while it works: nobody waits for ever, nobody gets a part for the whole, and
the service is back soon.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import httpx
import psutil
import pytest

from light_tts.messages import Stage
from test.soak.asks import differences, mixed, to_hold
from test.soak.client import Answer, Ask, Hold, client, send, send_all
from test.soak.harness import Server, running_server, wait_for

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]

HANG_S = 5.0
BACK_S = 60.0  # until a process is replaced on a machine that is busy with other things
LIMIT_S = 90.0
NUMBER = 18
HELD = 6  # of them, the first: inside every stage when it is struck, however fast the machine is


@dataclass(slots=True)
class Watch:
    """readiness: (time, status) as often as the server says it; 0: no connection"""

    readiness: list[tuple[float, int]] = field(default_factory=list)
    struck_s: float = 0.0

    def between(self, start_s: float, end_s: float) -> list[int]:
        return [status for at, status in self.readiness if start_s <= at < end_s]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    flags = ["--httpserver_workers", "2", "--decode_process_num", "2", "--hang_timeout_s", str(HANG_S)]
    with running_server(*flags) as running:
        yield running


@pytest.fixture(scope="module")
def asks() -> list[Ask]:
    return to_hold(HELD) + mixed(NUMBER - HELD, long_every=4)


@pytest.fixture(scope="module")
def alone(server: Server, asks: list[Ask]) -> list[Answer]:
    answers = asyncio.run(send_all(server.url, asks, concurrency=2))
    assert [answer.told for answer in answers if not answer.whole] == []
    server.wait_idle()  # else a test would take what its state says of these for its own load
    return answers


async def _watch(http: httpx.AsyncClient, watch: Watch) -> None:
    while True:
        at = time.monotonic()
        try:
            answer = await http.get("/readiness", timeout=10)
            watch.readiness.append((at, answer.status_code))
        except httpx.TransportError:
            watch.readiness.append((at, 0))
        await asyncio.sleep(0.1)


async def _under_load(
    url: str, asks: Sequence[Ask], strike: Callable[[], None]
) -> tuple[list[Answer], Watch]:
    """All requests at once; `strike` falls while those that are held have begun and cannot end."""
    watch = Watch()
    async with client(url) as http:
        watching = asyncio.create_task(_watch(http, watch))
        holds, sending = await _begin(http, asks)
        strike()
        watch.struck_s = time.monotonic()
        for hold in holds:
            hold.released.set()
        answers = await asyncio.gather(*sending)
        await asyncio.sleep(0.5)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    return answers, watch


async def _begin(
    http: httpx.AsyncClient, asks: Sequence[Ask]
) -> tuple[list[Hold], list[asyncio.Task[Answer]]]:
    """Returns once every held request has audio."""
    holds = [Hold() for _ in range(HELD)]
    sending = [
        asyncio.create_task(send(http, ask, limit_s=LIMIT_S, hold=hold))
        for ask, hold in zip_longest(asks, holds)
    ]
    async with asyncio.timeout(60):
        for hold in holds:
            await hold.begun.wait()
    return holds, sending


def _faults_of(
    asks: Sequence[Ask], answers: Sequence[Answer], alone: Sequence[Answer], *, cut: bool
) -> list[str]:
    """Answers that are neither the whole audio, nor a clear 503, nor a broken stream that begins rightly.

    cut: the connection may break without a word, for nobody is left to say one
    """
    lines = []
    for ask, answer, expected in zip(asks, answers, alone, strict=True):
        begun = expected.audio.startswith(answer.audio) and len(answer.audio) > 0
        if answer.whole:
            fine = not differences([ask], [answer], [expected])
        elif answer.code:
            fine = (answer.status, answer.code) == (503, "unavailable") and (begun or not answer.audio)
        else:
            fine = bool(answer.broken) and (begun or (cut and not answer.audio))
        if answer.late or not fine:
            lines.append(f"{ask.name}: {answer.told}")
    return lines


def _assert_back(server: Server, asks: list[Ask], alone: list[Answer]) -> None:
    """As before: ready, right, and without anything left in work."""
    server.wait_ready(BACK_S)
    answers = asyncio.run(send_all(server.url, asks[:6], concurrency=6, limit_s=LIMIT_S))
    assert differences(asks[:6], answers, alone[:6]) == []
    server.wait_idle()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
@pytest.mark.parametrize(
    ("stage", "index"), [(Stage.ENCODE, 0), (Stage.LLM, 0), (Stage.DECODE, 0), (Stage.DECODE, 1)]
)
def test_a_stage_is_replaced(
    server: Server, asks: list[Ask], alone: list[Answer], stage: Stage, index: int, number: int
) -> None:
    old = server.child(stage, index).pid
    restarts = f'light_tts_restarts_total{{stage="{stage.value}"}}'
    before = server.metric(restarts)
    lost_after_s = HANG_S if number == signal.SIGSTOP else 0.0

    answers, watch = asyncio.run(_under_load(server.url, asks, lambda: os.kill(old, number)))
    assert _faults_of(asks, answers, alone, cut=False) == []
    failed = [answer for answer in answers if not answer.whole]
    if stage is not Stage.ENCODE:  # where a request stays for a millisecond only
        assert failed, "nothing was inside"
    for answer in failed:
        assert answer.ended_s < watch.struck_s + lost_after_s + 10, answer.told
        if answer.code and "retry-after" not in answer.headers:
            assert answer.audio or not answer.headers, f"no Retry-After: {answer.told}"
    if stage is Stage.DECODE:
        assert any(answer.whole and answer.ended_s > watch.struck_s for answer in answers), (
            "no other finished"
        )
        assert set(watch.between(0.0, watch.struck_s + lost_after_s + 5)) == {200}
    else:
        noticed_s = watch.struck_s + lost_after_s + 1.5
        assert 503 in watch.between(watch.struck_s, noticed_s + 1), watch
    server.wait_replaced(stage, index, old, BACK_S)
    assert server.metric(restarts) == before + 1
    _assert_back(server, asks, alone)


def test_an_http_worker_is_replaced(server: Server, asks: list[Ask], alone: list[Answer]) -> None:
    workers, restarts = set(server.workers()), 'light_tts_restarts_total{stage="http"}'
    before, killed = server.metric(restarts), list[int]()
    assert len(workers) == 2

    def strike() -> None:
        # The kernel shares connections out as it likes: the one that has most.
        killed.append(max(workers, key=lambda pid: len(psutil.Process(pid).net_connections("tcp"))))
        os.kill(killed[0], signal.SIGKILL)

    answers, _ = asyncio.run(_under_load(server.url, asks, strike))
    (other,) = workers - set(killed)
    assert _faults_of(asks, answers, alone, cut=True) == []
    assert any(answer.broken for answer in answers), "it had no request"
    assert any(answer.whole for answer in answers), "the other had no request"
    wait_for("another worker", lambda: len(set(server.workers()) - workers) == 1, BACK_S)
    assert other in server.workers()
    wait_for("the restart is counted", lambda: server.metric(restarts) == before + 1, 5.0)
    _assert_back(server, asks, alone)


def test_gunicorn_is_replaced(server: Server, asks: list[Ask], alone: list[Answer]) -> None:
    old = server.workers()
    master = server.gunicorn()
    children = [child.pid for child in server.state().children]
    answers, watch = asyncio.run(_under_load(server.url, asks, lambda: os.kill(master, signal.SIGKILL)))
    assert _faults_of(asks, answers, alone, cut=True) == []
    wait_for("other workers", lambda: len(set(server.workers()) - set(old)) == 2, BACK_S)
    assert [child.pid for child in server.state().children] == children, "the models were loaded again"
    assert set(watch.between(watch.struck_s + 0.5, watch.struck_s + 1)) <= {0, 200}
    _assert_back(server, asks, alone)


def test_nothing_survives_the_supervisor(asks: list[Ask]) -> None:
    with running_server("--httpserver_workers", "2", "--decode_process_num", "2") as server:
        pid = server.process.pid
        answers, watch = asyncio.run(_under_load(server.url, asks, lambda: os.kill(pid, signal.SIGKILL)))
        assert [answer.told for answer in answers if answer.late] == []
        assert max(answer.ended_s for answer in answers) < watch.struck_s + 10
        assert server.process.wait(10) == -signal.SIGKILL
        server.assert_nothing_is_left()


def test_sigterm_finishes_what_is_accepted(asks: list[Ask], alone: list[Answer]) -> None:
    refused: list[Answer] = []

    async def terminate(server: Server) -> list[Answer]:
        async with client(server.url) as http:
            holds, sending = await _begin(http, asks[:12])
            server.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(1.0)
            refused.extend(await asyncio.gather(*(send(http, ask, limit_s=10) for ask in asks[12:15])))
            assert (await http.get("/readiness")).status_code == 503
            for hold in holds:
                hold.released.set()
            return await asyncio.gather(*sending)

    with running_server("--httpserver_workers", "2", "--drain_timeout_s", "90") as server:
        answers = asyncio.run(terminate(server))
        assert differences(asks[:12], answers, alone[:12]) == []
        assert [(answer.status, answer.code) for answer in refused] == [(503, "unavailable")] * 3, refused
        assert server.process.wait(30) == 0
        server.assert_nothing_is_left()


def test_sigint_ends_at_once(asks: list[Ask]) -> None:
    with running_server("--httpserver_workers", "2") as server:
        answers, watch = asyncio.run(
            _under_load(server.url, asks, lambda: server.process.send_signal(signal.SIGINT))
        )
        assert [answer.told for answer in answers if answer.late] == []
        assert max(answer.ended_s for answer in answers) < watch.struck_s + 10
        assert not all(answer.whole for answer in answers)
        assert server.process.wait(10) == 0
        server.assert_nothing_is_left()
