"""Clients of every kind, each call bounded: what a request got, and whether its end was honest."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import httpx
import websockets
from websockets.asyncio.client import ClientConnection, connect

from light_tts.errors import status_of

PATH = "/inference_zero_shot"
LIMIT_S = 240.0


class Kind(StrEnum):
    STREAM = "stream"
    BUFFERED = "buffered"
    BISTREAM = "bistream"


@dataclass(frozen=True, slots=True)
class Ask:
    """A request. pieces: its text, in one piece but for bistream; prompt: a recording in place of a named voice"""

    kind: Kind
    pieces: tuple[str, ...]
    fields: dict[str, str] = field(default_factory=dict)
    prompt: bytes | None = None

    @property
    def name(self) -> str:
        voice = self.fields.get("voice", "uploaded")
        return (
            f"{self.kind.value}, {voice}, {len(''.join(self.pieces))} characters, {self.fields.get('seed')}"
        )


@dataclass(slots=True)
class Hold:
    """Keeps a bistream inside the server: its last piece of text is sent only after `released`.

    begun: audio of the text before has come
    """

    begun: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Answer:
    """status: of HTTP, of a bistream's error otherwise; whole: it ended as complete audio ends;
    broken: the connection ended without a word; late: it did not end in time
    """

    status: int = 0
    code: str = ""
    message: str = ""
    audio: bytes = b""
    whole: bool = False
    broken: str = ""
    late: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    ended_s: float = 0.0

    @property
    def told(self) -> str:
        return (
            f"{self.status} {self.code} {self.message} {len(self.audio)} bytes, whole={self.whole}, "
            f"broken={self.broken}, late={self.late}"
        )


async def send(
    http: httpx.AsyncClient, ask: Ask, *, limit_s: float = LIMIT_S, hold: Hold | None = None
) -> Answer:
    """Never raises for what a server or network can do. hold: of a bistream only"""
    answer = Answer()
    try:
        async with asyncio.timeout(limit_s):
            if ask.kind is Kind.BISTREAM:
                await _talk(str(http.base_url), ask, answer, hold or _let_go())
            else:
                await _post(http, ask, answer)
    except TimeoutError:
        answer.late = True
    except (httpx.TransportError, websockets.WebSocketException, OSError) as error:
        answer.broken = f"{type(error).__name__}: {error}"
    answer.ended_s = asyncio.get_running_loop().time()
    return answer


async def send_all(
    url: str, asks: Sequence[Ask], *, concurrency: int, limit_s: float = LIMIT_S
) -> list[Answer]:
    """`concurrency` clients, each taking the next request as soon as its last is answered."""
    answers: dict[int, Answer] = {}
    waiting = iter(enumerate(asks))

    async def one(http: httpx.AsyncClient) -> None:
        for index, ask in waiting:
            answers[index] = await send(http, ask, limit_s=limit_s)

    async with client(url) as http, asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(one(http))
    return [answers[index] for index in range(len(asks))]


def client(url: str) -> httpx.AsyncClient:
    """A connection per request: what the load balancer of a fault test would do."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx.AsyncClient(base_url=url, timeout=None, limits=limits, trust_env=False)


def files_of(ask: Ask) -> dict[str, tuple[str | None, bytes]]:
    fields = {"tts_text": "".join(ask.pieces), "stream": str(ask.kind is Kind.STREAM), **ask.fields}
    files: dict[str, tuple[str | None, bytes]] = {
        name: (None, value.encode()) for name, value in fields.items()
    }
    if ask.prompt is not None:
        files["prompt_wav"] = ("prompt.wav", ask.prompt)
    return files


async def _post(http: httpx.AsyncClient, ask: Ask, answer: Answer) -> None:
    async with http.stream("POST", PATH, files=files_of(ask)) as response:
        answer.status = response.status_code
        answer.headers = dict(response.headers)
        body = bytearray()
        try:
            async for piece in response.aiter_raw():
                body += piece
        finally:
            if response.status_code == 200:
                answer.audio = bytes(body)
    if response.status_code == 200:
        answer.whole = True
    else:
        _take_error(answer, bytes(body))


def _let_go() -> Hold:
    hold = Hold()
    hold.released.set()
    return hold


async def _talk(url: str, ask: Ask, answer: Answer, hold: Hold) -> None:
    address = url.replace("http", "ws", 1).rstrip("/") + PATH + "_bistream"
    async with connect(address, proxy=None, open_timeout=None, max_size=None, close_timeout=5) as websocket:
        telling = asyncio.create_task(_tell(websocket, ask, hold))
        try:
            await _listen(websocket, answer, hold)
        except asyncio.CancelledError:
            websocket.transport.abort()  # as a client ends that is killed, without a goodbye
            raise
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)


async def _tell(websocket: ClientConnection, ask: Ask, hold: Hold) -> None:
    # Why a connection was closed meanwhile is in what was received.
    with contextlib.suppress(websockets.ConnectionClosed):
        await websocket.send(json.dumps(ask.fields))
        if ask.prompt is not None:
            await websocket.send(ask.prompt)
        for piece in ask.pieces[:-1]:
            await websocket.send(json.dumps({"tts_text": piece}))
            await asyncio.sleep(0)
        await hold.released.wait()
        await websocket.send(json.dumps({"tts_text": ask.pieces[-1]}))
        await websocket.send(json.dumps({"finish": True}))


async def _listen(websocket: ClientConnection, answer: Answer, hold: Hold) -> None:
    try:
        async for message in websocket:
            if isinstance(message, bytes):
                answer.audio += message
                hold.begun.set()
            else:
                _take_error(answer, message.encode())
    except websockets.ConnectionClosedError:
        if not answer.code:
            raise
    if not answer.code:
        answer.status = 200
        answer.whole = websocket.close_code == 1000
        answer.broken = "" if answer.whole else f"closed with {websocket.close_code}"


def _take_error(answer: Answer, body: bytes) -> None:
    try:
        error = json.loads(body)["error"]
        answer.code, answer.message = str(error["code"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        answer.code, answer.message = "no JSON error", body[:200].decode("utf-8", "replace")
    answer.status = answer.status or status_of(answer.code)
