"""Requests that are known to have brought down servers of this kind, sent to a whole server while it works."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
import soundfile
from websockets.asyncio.client import connect

from light_tts.messages import Stage
from test.soak.asks import LONG, PROMPT_TEXT, differences, mixed, recording
from test.soak.client import PATH, Answer, Ask, Kind, send_all
from test.soak.harness import Server, running_server

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]

REPEAT = 40  # more often than thirty: that many slots one server of this kind had


def _wav(seconds: float, value: float | None = None) -> bytes:
    """Noise, or one value throughout."""
    number = round(24_000 * seconds)
    noise = np.random.default_rng(0).normal(0, 0.1, number).astype(np.float32)
    out = io.BytesIO()
    soundfile.write(
        out, noise if value is None else np.full(number, value, np.float32), 24_000, "FLOAT", format="WAV"
    )
    return out.getvalue()


def _ask(prompt: bytes | None = None, text: str = "你好。", **fields: str) -> Ask:
    given = {"prompt_text": PROMPT_TEXT} if prompt is not None else {}
    return Ask(Kind.STREAM, (text,), {**given, **fields}, prompt)


POISON = {
    "a recording of 31 s": (_ask(_wav(31.0)), 413, "prompt_too_long"),
    "a recording of 0.2 s": (_ask(_wav(0.2)), 400, "prompt_too_short"),
    "silence": (_ask(_wav(3.0, 0.0)), 400, "invalid_audio"),
    "numbers that are none": (_ask(_wav(3.0, float("nan"))), 400, "invalid_audio"),
    "no recording at all": (_ask(b"this is no audio" * 100), 400, "invalid_audio"),
    "an empty recording": (_ask(b""), 400, "invalid_audio"),
    "an unknown model": (_ask(tts_model_name="typo"), 404, "model_not_found"),
    "an unknown voice": (_ask(voice="nobody"), 404, "voice_not_found"),
    "a text of nothing": (_ask(text="😀😀"), 400, "empty_text"),
    "an empty text": (_ask(text=""), 400, "empty_text"),
    "a text too long": (_ask(text="好" * 10_001), 413, "text_too_long"),
    "speed 0": (_ask(speed="0"), 400, "invalid_input"),
    "speed -1": (_ask(speed="-1"), 400, "invalid_input"),
    "speed that is no number": (_ask(speed="nan"), 400, "invalid_input"),
    "a body too large": (_ask(bytes(21_000_000)), 413, "body_too_large"),
}


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


def test_a_poisoned_request_is_told_and_hurts_nobody(
    server: Server, asks: list[Ask], alone: list[Answer]
) -> None:
    poison = [ask for ask, _, _ in POISON.values()] * 3 + [POISON["an unknown model"][0]] * REPEAT

    async def together() -> tuple[list[Answer], list[Answer]]:
        others = asyncio.create_task(send_all(server.url, asks, concurrency=6))
        return await send_all(server.url, poison, concurrency=12), await others

    answers, others = asyncio.run(together())
    told = [(answer.status, answer.code) for answer in answers]
    expected = [(status, code) for _, status, code in POISON.values()]
    wrong = [
        f"{name}: {answer.told}"
        for name, answer, got, want in zip(POISON, answers, told, expected, strict=False)
        if got != want
    ]
    assert wrong == []
    assert told == expected * 3 + [(404, "model_not_found")] * REPEAT
    assert differences(asks, others, alone) == []
    server.wait_idle()
    assert [child.restarts for child in server.state().children] == [0] * 4
    assert "Traceback" not in server.log


def test_a_voice_whose_first_use_failed_serves_the_next(server: Server) -> None:
    voice = recording(1.3)
    first = _ask(voice, text="😀", seed="1")
    second = _ask(voice, seed="1")
    answers = asyncio.run(send_all(server.url, [first, second], concurrency=1, limit_s=60))
    assert answers[0].code == "empty_text"
    assert answers[1].whole, answers[1].told
    server.wait_idle()


def test_a_conversation_that_ends_before_it_begins_is_closed(server: Server) -> None:
    async def talk() -> list[str | bytes]:
        address = server.url.replace("http", "ws", 1) + PATH + "_bistream"
        async with asyncio.timeout(20), connect(address, proxy=None) as websocket:
            await websocket.send(json.dumps({"voice": "clara"}))
            await websocket.send(json.dumps({"finish": True}))
            return [message async for message in websocket]

    assert asyncio.run(talk()) == []
    server.wait_idle()


def test_sentences_of_one_request_are_generated_together(server: Server) -> None:
    text = " ".join([LONG[1]] * 12)

    async def watch() -> int:
        most = 0
        async with httpx.AsyncClient(base_url=server.url, timeout=120, trust_env=False) as http:
            asking = asyncio.create_task(
                http.post(PATH, json={"tts_text": text, "voice": "nora", "seed": 1, "stream": True})
            )
            while not asking.done():
                most = max(most, server.child(Stage.LLM).running)
                await asyncio.sleep(0.05)
            assert (await asking).status_code == 200
        return most

    assert asyncio.run(watch()) >= 2
    server.wait_idle()


def test_speed_is_served_in_streams(server: Server) -> None:
    asks = [
        Ask(Kind.STREAM, (LONG[1],), {"seed": "2", "voice": "nora", "speed": speed}) for speed in ("1", "2")
    ]
    normal, fast = asyncio.run(send_all(server.url, asks, concurrency=2))
    assert fast.whole, fast.told
    assert len(fast.audio) == pytest.approx(len(normal.audio) / 2, rel=0.05)
