"""Clients that go away, that read slowly, that come in crowds: nobody else notices, and nothing stays behind."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from test.soak.asks import LONG, differences, mixed
from test.soak.client import PATH, Answer, Ask, Kind, client, files_of, send, send_all
from test.soak.harness import Server, running_server

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]

CROWD = 100
LONGEST_S = 3.0  # until the last of the crowd has left


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server("--httpserver_workers", "2", "--decode_process_num", "2") as running:
        yield running


@pytest.fixture(scope="module")
def asks() -> list[Ask]:
    return mixed(6)


@pytest.fixture(scope="module")
def alone(server: Server, asks: list[Ask]) -> list[Answer]:
    return asyncio.run(send_all(server.url, asks, concurrency=1))


async def _leave(server: Server, http: httpx.AsyncClient, index: int, stay_s: float) -> None:
    """Ask for minutes of audio, and go after stay_s: of three kinds of client, and as one that sends half a form."""
    text = "".join(LONG) * 3
    if index % 4 == 3:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 900000\r\n\r\n"
        writer.write(head.encode() + b'{"tts_text": "' + b"a" * 60_000)
        await asyncio.sleep(stay_s)
        writer.transport.abort()
        return
    ask = Ask(list(Kind)[index % 4], (text,), {"seed": str(index), "voice": "clara"})
    answer = await send(http, ask, limit_s=stay_s)
    assert answer.late or answer.status in (200, 0), answer.told


def test_a_crowd_that_leaves_takes_its_work_along(
    server: Server, asks: list[Ask], alone: list[Answer]
) -> None:
    async def crowd() -> None:
        stays = random.Random(7)
        async with client(server.url) as http, asyncio.TaskGroup() as group:
            for index in range(CROWD):
                group.create_task(_leave(server, http, index, stays.uniform(0.0, LONGEST_S)))

    asyncio.run(crowd())
    # Seventy-five times half a minute of audio would take far longer.
    server.wait_idle(15.0)
    assert server.metric('light_tts_requests_total{outcome="cancelled"}') > CROWD / 4
    assert server.metric('light_tts_requests_total{outcome="internal_error"}') == 0
    assert "Traceback" not in server.log
    assert differences(asks, asyncio.run(send_all(server.url, asks, concurrency=6)), alone) == []
    assert [child.restarts for child in server.state().children] == [0] * 4


async def _read_slowly(url: str, ask: Ask, stall_s: float) -> Answer:
    """Takes nothing for stall_s, then a kilobyte at a time, through a window of a few kilobytes."""
    small = httpx.AsyncHTTPTransport(socket_options=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)])
    body = bytearray()
    async with (
        httpx.AsyncClient(base_url=url, transport=small, timeout=60, trust_env=False) as http,
        http.stream("POST", PATH, files=files_of(ask)) as response,
    ):
        assert response.status_code == 200
        await asyncio.sleep(stall_s)
        async for piece in response.aiter_raw(chunk_size=1024):
            body += piece
            await asyncio.sleep(0.02)
    return Answer(status=200, audio=bytes(body), whole=True)


def test_slow_readers_get_everything_and_hold_up_nobody(
    server: Server, asks: list[Ask], alone: list[Answer]
) -> None:
    slow = [Ask(kind, (LONG[1],), {"seed": "5", "voice": "nora"}) for kind in (Kind.STREAM, Kind.BUFFERED)]

    async def together() -> tuple[list[Answer], list[Answer], float]:
        reading = [asyncio.create_task(_read_slowly(server.url, ask, 5.0)) for ask in slow for _ in range(4)]
        await asyncio.sleep(0.5)
        start = time.monotonic()
        others = await send_all(server.url, asks, concurrency=6)
        took_s = time.monotonic() - start
        return list(await asyncio.gather(*reading)), others, took_s

    expected = asyncio.run(send_all(server.url, slow, concurrency=1))
    answers, others, took_s = asyncio.run(together())
    assert differences(slow, expected, expected) == []
    for index, answer in enumerate(answers):
        assert answer.audio == expected[index // 4].audio
    assert differences(asks, others, alone) == []
    assert took_s < 60
    server.wait_idle()
