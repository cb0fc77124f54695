"""Whatever is sent: an honest answer in bounded time, never a 500, and a server that goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import websockets
from websockets.asyncio.client import connect

from light_tts.errors import STATUS
from test.soak.asks import PROMPT_TEXT, recording
from test.soak.client import PATH, Ask, Kind, send_all
from test.soak.harness import Server, running_server

pytestmark = [pytest.mark.soak, pytest.mark.timeout(240)]

SCHEMA_S = 60
CALL_S = 60.0
NUM_RECORDINGS, NUM_TALKS, NUM_BODIES = 80, 80, 150
FINE = {200, 400, 404, 405, 413, 422, 429}  # what a client can cause
PLACES = (
    "tts_text",
    "prompt_text",
    "voice",
    "seed",
    "speed",
    "stream",
    "top_k",
    "response_format",
    "tts_model_name",
)
ODD: tuple[object, ...] = (
    "",
    "null",
    "NaN",
    "-1",
    "1e309",
    "\x00",
    "\ud800",
    "𠮷",
    "‮好",
    "a" * 5000,
    [],
    {},
    True,
    2**70,
    -0.0,
    None,
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server("--max_text_chars", "15", "--httpserver_workers", "2") as running:
        yield running


@pytest.fixture(autouse=True)
def _goes_on(server: Server) -> Iterator[None]:
    yield
    ask = Ask(Kind.STREAM, ("你好。",), {"seed": "1", "prompt_text": PROMPT_TEXT}, recording())
    answers = asyncio.run(send_all(server.url, [ask], concurrency=1))
    assert answers[0].whole, answers[0].told
    server.wait_idle()
    assert "Traceback" not in server.log
    assert [child.restarts for child in server.state().children] == [0] * 3
    assert server.metric('light_tts_requests_total{outcome="internal_error"}') == 0


def test_requests_out_of_the_schema(server: Server, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"]
    command += ["--max-time", str(SCHEMA_S), "--request-timeout", str(CALL_S), "--phases", "coverage,fuzzing"]
    command += ["--checks", "not_a_server_error", "--seed", "4", "--continue-on-failure", "--no-color"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=SCHEMA_S + 2 * CALL_S, env=_plain()
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    paths = httpx.get(f"{server.url}/openapi.json", trust_env=False).json()["paths"]
    assert f"Tested: {sum(map(len, paths.values()))}" in done.stdout, done.stdout[-3000:]


def _plain() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}


def _broken(rng: random.Random) -> bytes:
    """A WAV file with a few bytes changed, mostly of its header, and often cut."""
    data = bytearray(recording())
    for _ in range(rng.randint(1, 6)):
        data[rng.randrange(48 if rng.random() < 0.8 else len(data))] = rng.randrange(256)
    return bytes(data[: rng.choice((len(data), len(data), 44, 10, 1, rng.randrange(1, len(data))))])


def test_broken_recordings(server: Server) -> None:
    rng = random.Random(1)
    fields = {"prompt_text": PROMPT_TEXT, "max_token_text_ratio": "2"}
    asks = [Ask(Kind.BUFFERED, ("你好。",), fields, _broken(rng)) for _ in range(NUM_RECORDINGS)]
    answers = asyncio.run(send_all(server.url, asks, concurrency=8, limit_s=CALL_S))
    assert [answer.told for answer in answers if answer.late or answer.broken] == []
    assert {answer.status for answer in answers} <= FINE, [answer.told for answer in answers]
    assert sum(answer.code == "invalid_audio" for answer in answers) > NUM_RECORDINGS // 8


def _body(rng: random.Random) -> tuple[bytes, str]:
    """JSON with odd values, of which some bytes may be changed, and what it says that it is."""
    fields: dict[str, object] = {"tts_text": "好", "max_token_text_ratio": 2}
    for _ in range(rng.randint(0, 3)):
        fields[rng.choice(PLACES)] = rng.choice(ODD)
    body = bytearray(json.dumps(fields).encode())
    for _ in range(rng.choice((0, 0, 1, 5))):
        body[rng.randrange(len(body))] = rng.randrange(256)
    kinds = ("application/json", "multipart/form-data", "multipart/form-data; boundary=x", "text/plain", "")
    return bytes(body), rng.choice(kinds[:1] * 4 + kinds)


def test_broken_bodies(server: Server) -> None:
    async def ask_all() -> list[tuple[int, bytes, str]]:
        rng = random.Random(2)
        found = []
        async with httpx.AsyncClient(base_url=server.url, timeout=CALL_S, trust_env=False) as http:
            for _ in range(NUM_BODIES):
                body, kind = _body(rng)
                answer = await http.post(PATH, content=body, headers={"Content-Type": kind} if kind else {})
                found.append(
                    (answer.status_code, body, answer.text[:200] if answer.status_code != 200 else "")
                )
                if answer.status_code != 200:
                    code = answer.json()["error"]["code"]
                    assert STATUS[code] == answer.status_code, answer.text
        return found

    found = asyncio.run(ask_all())
    assert [case for case in found if case[0] not in FINE] == []
    assert len({status for status, _, _ in found}) >= 3


async def _talk(server: Server, rng: random.Random) -> None:
    """Messages in any order, of any kind, until the server closes or the client has had enough."""
    words: list[str | bytes] = [
        json.dumps({}),
        json.dumps({"voice": "clara", "max_token_text_ratio": 2}),
        json.dumps({"tts_text": "你好"}),
        json.dumps({"tts_text": "好" * 16}),
        json.dumps({"finish": True}),
        json.dumps({"cancel": True}),
        json.dumps({"ping": 1}),
        json.dumps({rng.choice(PLACES): rng.choice([odd for odd in ODD if odd != "\ud800"])}),
        "[]",
        "{",
        "",
        b"",
        b"RIFF",
        recording(),
    ]
    address = server.url.replace("http", "ws", 1) + PATH + "_bistream"
    async with asyncio.timeout(CALL_S):
        with contextlib.suppress(websockets.ConnectionClosed):
            async with connect(address, proxy=None, open_timeout=None) as websocket:
                for word in rng.choices(words, k=rng.randint(1, 8)):
                    await websocket.send(word)
                await websocket.send(json.dumps({"finish": True}))
                async for message in websocket:
                    if isinstance(message, str) and "error" in message:
                        code = json.loads(message)["error"]["code"]
                        assert STATUS.get(code) in FINE | {499}, message


def test_broken_conversations(server: Server) -> None:
    async def talk_all() -> None:
        rng = random.Random(3)
        for _ in range(NUM_TALKS // 8):
            async with asyncio.TaskGroup() as group:
                for _ in range(8):
                    group.create_task(_talk(server, random.Random(rng.random())))

    asyncio.run(talk_all())


def test_bytes_that_are_no_http(server: Server) -> None:
    async def throw(garbage: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        answer = b""
        with contextlib.suppress(OSError):
            async with asyncio.timeout(CALL_S):
                writer.write(garbage)
                await writer.drain()
                writer.write_eof()
                answer = await reader.read()
        with contextlib.suppress(OSError):
            writer.close()
            await writer.wait_closed()
        return answer

    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\n".encode()
    garbage = [
        random.Random(5).randbytes(2000),
        b"GET / HTTP/9.9\r\n\r\n",
        head + b"Content-Length: -1\r\n\r\n",
        head + b"Content-Length: 5\r\nContent-Type: application/json\r\n\r\n{",
        head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        head + b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 3\r\n\r\n--x",
        head + b"X: " + b"y" * 200_000 + b"\r\n\r\n",
    ]
    for thrown in garbage:
        answer = asyncio.run(throw(thrown))
        assert b" 500 " not in answer[:20], answer[:300]
