"""Sends requests to a running server, several at once, and notes what a listener would have had."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import takewhile

import httpx

from light_tts.server.playback import BYTES_PER_SAMPLE, Playback

PATH = "/inference_zero_shot"


class Shape(StrEnum):
    """How the request travels."""

    JSON = "json"  # the deployment guide's: the recording in base64
    MULTIPART = "multipart"  # upstream's clients'


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send. The request number i speaks texts[i % len(texts)] with seed i.

    prompt_wav: encoded recording; None: the server's voice `voice`, or its default
    fields: further fields of the request, as they are
    """

    url: str
    texts: tuple[str, ...]
    prompt_wav: bytes | None = None
    prompt_text: str = ""
    voice: str | None = None
    shape: Shape = Shape.JSON
    fields: dict[str, str] = field(default_factory=dict)
    timeout_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request. ttfa_s: None without audio; fault: None if it was answered whole"""

    latency_s: float
    ttfa_s: float | None
    audio_s: float
    underrun_s: float
    continuous: bool
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Level:
    """All requests of one concurrency."""

    stream: bool
    concurrency: int
    wall_s: float
    outcomes: tuple[Outcome, ...]


async def measure(
    plan: Plan,
    *,
    stream: bool,
    concurrency: int,
    requests: int,
    done: Callable[[], None],
    limit_s: float = math.inf,
) -> Level:
    """`concurrency` clients, each sending its next request as soon as the last is answered.

    done: called after each request; limit_s: none is sent later than that, so there may be fewer than `requests`
    """
    outcomes: list[Outcome] = []
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    start = time.perf_counter()
    numbers = takewhile(lambda _: time.perf_counter() - start < limit_s, range(requests))
    client = httpx.AsyncClient(timeout=plan.timeout_s, limits=limits, trust_env=False)
    async with client as http, asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(_client(http, plan, stream, numbers, outcomes, done))
    return Level(stream, concurrency, time.perf_counter() - start, tuple(outcomes))


async def _client(
    http: httpx.AsyncClient,
    plan: Plan,
    stream: bool,
    numbers: Iterator[int],
    outcomes: list[Outcome],
    done: Callable[[], None],
) -> None:
    for number in numbers:
        outcomes.append(await send(http, plan, number, stream=stream))
        done()


async def send(http: httpx.AsyncClient, plan: Plan, number: int, *, stream: bool) -> Outcome:
    """One request and its whole answer. A fault is an outcome, not an exception."""
    playback = Playback()
    request = _request(http, plan, number, stream)
    start = time.perf_counter()
    fault = None
    try:
        response = await http.send(request, stream=True)
        try:
            if response.status_code == 200:
                fault = await _listen(response.aiter_raw(), playback)
            else:
                body = (await response.aread()).decode("utf-8", "replace")
                fault = f"{response.status_code} {_message(body)}"
        finally:
            await response.aclose()
    except httpx.HTTPError as error:
        fault = f"{type(error).__name__}: {error}"
    return Outcome(
        time.perf_counter() - start,
        None if playback.started_s is None else playback.started_s - start,
        playback.audio_s,
        playback.underrun_s,
        playback.continuous,
        fault,
    )


async def _listen(pieces: AsyncIterator[bytes], playback: Playback) -> str | None:
    num_bytes = 0
    async for piece in pieces:
        before, num_bytes = num_bytes, num_bytes + len(piece)
        playback.add(time.perf_counter(), num_bytes // BYTES_PER_SAMPLE - before // BYTES_PER_SAMPLE)
    if num_bytes % BYTES_PER_SAMPLE:
        return f"{num_bytes} bytes are not a whole number of samples"
    return None if num_bytes else "200, but no audio"


def _request(http: httpx.AsyncClient, plan: Plan, number: int, stream: bool) -> httpx.Request:
    fields = {
        "tts_text": plan.texts[number % len(plan.texts)],
        "stream": "true" if stream else "false",
        "seed": str(number),
        **plan.fields,
    }
    if plan.prompt_wav is not None:
        fields["prompt_text"] = plan.prompt_text
    elif plan.voice is not None:
        fields["voice"] = plan.voice
    url = plan.url.rstrip("/") + PATH
    if plan.shape is Shape.MULTIPART:
        files = {name: (None, value.encode(), None) for name, value in fields.items()}
        if plan.prompt_wav is None:
            return http.build_request("POST", url, files=files)
        recording = ("prompt.wav", plan.prompt_wav, "application/octet-stream")
        return http.build_request("POST", url, files={**files, "prompt_wav": recording})
    document: dict[str, object] = {**fields, "stream": stream, "seed": number}
    document.update({name: _plain(value) for name, value in plan.fields.items()})
    if plan.prompt_wav is not None:
        document["prompt_wav"] = base64.b64encode(plan.prompt_wav).decode("ascii")
    return http.build_request("POST", url, json=document)


def _plain(value: str) -> object:
    """A number or boolean as such, so that JSON has it unquoted."""
    try:
        return json.loads(value)
    except ValueError:
        return value


def _message(body: str) -> str:
    """What an error body says, shortened."""
    try:
        document = json.loads(body)
    except ValueError:
        return body[:200]
    message = document.get("message") if isinstance(document, dict) else None
    return str(message or body)[:200]
