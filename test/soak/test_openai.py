"""OpenAI's own client against a whole server with the bundled voice: every format, whole and streamed."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from typing import Literal

import httpx
import openai
import pytest

from test.server.decoded import RATE_HZ, decoded, delay_and_likeness
from test.soak.harness import Server, running_server

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]

TEXT = "The train leaves at nine, so we have time. Let us sit down."
Format = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
FORMATS: tuple[Format, ...] = ("mp3", "opus", "aac", "flac", "wav")
SAME = {"seed": 3}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server("--httpserver_workers", "2") as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def plain(client: openai.OpenAI) -> bytes:
    """The samples of TEXT; equal seeds give equal ones."""
    answer = client.audio.speech.create(
        model="tts-1", voice="clara", input=TEXT, response_format="pcm", extra_body=SAME
    )
    assert len(answer.content) > 2 * RATE_HZ * 2
    return answer.content


@pytest.mark.parametrize("kind", FORMATS)
def test_each_format_holds_the_speech_of_pcm(client: openai.OpenAI, plain: bytes, kind: Format) -> None:
    data, times = b"", []
    with client.audio.speech.with_streaming_response.create(
        model="tts-1", voice={"id": "clara"}, input=TEXT, response_format=kind, extra_body=SAME
    ) as answer:
        for piece in answer.iter_bytes():
            data += piece
            times.append(time.perf_counter())
    heard, sent = decoded(data, kind), decoded(plain, "pcm")
    late, likeness = delay_and_likeness(heard, sent)
    assert 0 <= late <= 1105
    assert likeness > 0.95
    assert 0 <= len(heard) - len(sent) <= 2 * 1152
    assert times[-1] - times[0] > 0.05  # it came while it was made


@pytest.mark.parametrize("speed", [0.25, 0.5, 2.0, 4.0])
def test_speed_changes_the_length(client: openai.OpenAI, plain: bytes, speed: float) -> None:
    answer = client.audio.speech.create(
        model="tts-1", voice="clara", input=TEXT, response_format="pcm", speed=speed, extra_body=SAME
    )
    assert len(plain) / len(answer.content) == pytest.approx(speed, rel=0.03)


def test_a_recording_in_the_request_speaks(client: openai.OpenAI, plain: bytes) -> None:
    sample = client.audio.speech.create(
        model="tts-1", voice="owen", input=TEXT, response_format="mp3"
    ).content
    body = {"ref_audio": "data:audio/mpeg;base64," + base64.b64encode(sample).decode(), "ref_text": TEXT}
    answer = client.audio.speech.create(
        model="tts-1",
        voice="alloy",
        input="Good morning.",
        response_format="pcm",
        extra_body={**body, **SAME},
    )
    assert len(answer.content) > RATE_HZ


def test_a_client_that_leaves_takes_its_work_along(client: openai.OpenAI, server: Server) -> None:
    for kind in FORMATS:
        with client.audio.speech.with_streaming_response.create(
            model="tts-1", voice="clara", input=TEXT * 20, response_format=kind
        ) as answer:
            next(answer.iter_bytes())
    server.wait_idle()


def test_names_are_listed_and_unknown_ones_refused(client: openai.OpenAI, server: Server) -> None:
    assert "light-tts-mini" in [model.id for model in client.models.list()]
    voices = server.get("/v1/audio/voices").json()["voices"]
    assert {"clara", "owen"} <= {voice["id"] for voice in voices}
    with pytest.raises(openai.NotFoundError, match="known voices"):
        client.audio.speech.create(model="tts-1", voice="nobody", input="a")


def test_a_batch_speaks_all_items(server: Server, plain: bytes) -> None:
    items = [{"input": TEXT}, {"input": "再见。", "voice": "anning"}, {"input": "a", "voice": "nobody"}]
    body = {"items": items, "voice": "clara", "response_format": "pcm", **SAME}
    told = httpx.post(f"{server.url}/v1/audio/speech/batch", json=body, timeout=120).json()
    assert [result["status"] for result in told["results"]] == ["success", "success", "error"]
    whole = base64.b64decode(told["results"][0]["audio_data"])
    assert len(whole) == len(plain)  # streamed audio has the length of the whole
