"""OpenAI's speech API, as its own client and those of other servers use it."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import httpx2
import numpy as np
import openai
import pytest
import soundfile

from light_tts.messages import AudioChunk, Mode, Planned, Synthesize
from light_tts.server.containers import MEDIA_TYPES
from test.server.decoded import decoded, delay_and_likeness
from test.server.fake_pipeline import (
    FakePipeline,
    Script,
    Step,
    all_audio,
    failing,
    fake_pipeline,
    hanging,
    live_server,
    spoken,
)

SPEECH = Path(__file__).parents[1] / "golden/fixtures/prompt_24k.wav"
SAMPLES = np.asarray(soundfile.read(SPEECH, dtype="int16")[0]).tobytes()
Format = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
FORMATS: tuple[Format, ...] = ("mp3", "opus", "aac", "flac", "wav", "pcm")
OK = {"model": "tts-1", "voice": "alloy", "input": "hello"}


def _reading(pause_s: float = 0.0) -> Script:
    """A real recording, in chunks of a quarter of a second."""
    size = 12_000

    def script(request: Synthesize) -> list[Step]:
        steps: list[Step] = [(0.0, Planned(request.request_id, 1, 7, None))]
        starts = range(0, len(SAMPLES), size)
        for index, at in enumerate(starts):
            last = at == starts[-1]
            steps.append(
                (pause_s, AudioChunk(request.request_id, 0, index, SAMPLES[at : at + size], last, 25))
            )
        return steps

    return script


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FakePipeline, str]]:
    model_dir = tmp_path_factory.mktemp("models") / "CosyVoice2-0.5B"
    (model_dir / "voices").mkdir(parents=True)
    (model_dir / "voices/nova.safetensors").touch()
    with fake_pipeline(model_dir=model_dir, max_text_chars=100) as pipeline, live_server(pipeline) as host:
        yield pipeline, f"http://{host}"


@pytest.fixture
def pipeline(served: tuple[FakePipeline, str]) -> FakePipeline:
    served[0].script = spoken()
    return served[0]


@pytest.fixture
def url(served: tuple[FakePipeline, str]) -> str:
    return served[1] + "/v1"


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="any", max_retries=0) as client:
        yield client


def _last(pipeline: FakePipeline) -> Synthesize:
    return list(pipeline.requests.values())[-1]


def _post(url: str, body: dict[str, object], **headers: str) -> httpx.Response:
    return httpx.post(f"{url}/audio/speech", json=body, headers=headers, timeout=10)


def _events(text: str) -> list[dict[str, Any]]:
    events = []
    for block in text.strip().split("\n\n"):
        head, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert head == f"event: {event['type']}"
        events.append(event)
    return events


@pytest.mark.parametrize("kind", FORMATS)
def test_the_official_client_gets_each_format_whole(
    pipeline: FakePipeline, client: openai.OpenAI, kind: Format
) -> None:
    pipeline.script = _reading()
    answer = client.audio.speech.create(**OK, response_format=kind)  # type: ignore[arg-type]
    assert answer.response.headers["content-type"] == MEDIA_TYPES[kind]
    heard = decoded(answer.content, kind)
    late, likeness = delay_and_likeness(heard, decoded(SAMPLES, "pcm"))
    assert 0 <= late <= 1105  # samples that mp3 and aac put before the speech
    assert likeness > (0.97 if kind in ("mp3", "opus", "aac") else 0.999999)
    assert 0 <= len(heard) - len(SAMPLES) // 2 <= 2 * 1152


def test_the_default_is_mp3_and_a_stream(pipeline: FakePipeline, client: openai.OpenAI) -> None:
    answer = client.audio.speech.create(**OK)  # type: ignore[arg-type]
    assert answer.response.headers["content-type"] == "audio/mpeg"
    assert "content-length" not in answer.response.headers
    assert _last(pipeline).stream


@pytest.mark.parametrize("kind", FORMATS)
def test_the_official_client_hears_while_it_is_made(
    pipeline: FakePipeline, client: openai.OpenAI, kind: Format
) -> None:
    pipeline.script = _reading(pause_s=0.05)
    due = []
    speaking = client.audio.speech.with_streaming_response.create(**OK, response_format=kind)  # type: ignore[arg-type]
    with speaking as answer:
        data = b""
        for piece in answer.iter_bytes():
            data += piece
            due.append(pipeline.num_due)
    assert due[0] > due[-1] == 0
    assert len(set(due)) > 3
    assert len(decoded(data, kind)) >= len(SAMPLES) // 2


def test_voices_come_as_a_string_or_as_an_object(pipeline: FakePipeline, client: openai.OpenAI) -> None:
    for voice, wanted in (("clara", "clara"), ({"id": "clara"}, "clara"), ("alloy", None), ("nova", "nova")):
        client.audio.speech.create(model="tts-1", input="a", voice=voice)  # type: ignore[arg-type]
        assert _last(pipeline).voice == wanted, voice


def test_fields_of_the_official_client_arrive(pipeline: FakePipeline, client: openai.OpenAI) -> None:
    client.audio.speech.create(**OK, instructions="whisper", speed=0.25, extra_body={"unknown": [1]})  # type: ignore[arg-type]
    request = _last(pipeline)
    assert (request.text, request.instruct_text, request.speed) == ("hello", "whisper", 0.25)
    client.audio.speech.create(**OK, instructions="", speed=4)  # type: ignore[arg-type]
    assert (_last(pipeline).instruct_text, _last(pipeline).speed) == (None, 4.0)


@pytest.mark.parametrize("kind", ["pcm", "mp3", "wav"])
def test_events_carry_the_same_bytes_and_the_usage(
    pipeline: FakePipeline, client: openai.OpenAI, url: str, kind: Format
) -> None:
    pipeline.script = _reading()
    speaking = client.audio.speech.with_streaming_response.create(
        **OK,  # type: ignore[arg-type]
        response_format=kind,
        stream_format="sse",
    )
    with speaking as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        *deltas, done = _events("\n".join(answer.iter_lines()))
    assert {event["type"] for event in deltas} == {"speech.audio.delta"}
    data = b"".join(base64.b64decode(event["audio"]) for event in deltas)
    assert data == _post(url, {**OK, "response_format": kind}).content
    usage = {"input_tokens": 7, "output_tokens": 25, "total_tokens": 32}
    assert done == {"type": "speech.audio.done", "usage": usage}


@pytest.mark.parametrize(
    ("fields", "accept", "bare_stream", "events"),
    [
        ({}, "*/*", "audio", False),
        ({"stream": True}, "*/*", "audio", False),
        ({"stream": True}, "text/event-stream", "audio", True),
        ({"stream": True, "stream_format": "audio"}, "text/event-stream", "sse", False),
        ({"stream": True}, "*/*", "sse", True),
        ({}, "*/*", "sse", False),
        ({"stream": False}, "*/*", "sse", False),
        ({"stream_format": "sse"}, "*/*", "audio", True),
    ],
)
def test_whether_a_stream_is_of_events(
    fields: dict[str, object], accept: str, bare_stream: str, events: bool
) -> None:
    with fake_pipeline(bare_stream=bare_stream) as pipeline, live_server(pipeline) as host:
        answer = _post(f"http://{host}/v1", {**OK, **fields}, Accept=accept)
    assert answer.headers["content-type"].startswith("text/event-stream") == events


def test_without_streaming_the_length_is_known(pipeline: FakePipeline, url: str) -> None:
    answer = _post(url, {**OK, "stream": False, "response_format": "wav"})
    assert answer.headers["content-length"] == str(44 + len(all_audio()))
    assert answer.content[44:] == all_audio()
    assert not _last(pipeline).stream


WAV = base64.b64encode(SPEECH.read_bytes()).decode()
URL = f"data:audio/wav;base64,{WAV}"


@pytest.mark.parametrize(
    ("fields", "mode", "text", "instruction"),
    [
        ({"ref_audio": WAV, "ref_text": "abc"}, Mode.AUTO, "abc", None),
        ({"ref_audio": URL, "ref_text": "abc", "task_type": "Base"}, Mode.AUTO, "abc", None),
        ({"ref_audio": URL}, Mode.AUTO, None, None),
        ({"ref_audio": URL, "instructions": "whisper"}, Mode.AUTO, None, "whisper"),
        ({"ref_audio": URL, "ref_text": "abc", "x_vector_only_mode": True}, Mode.CROSS_LINGUAL, None, None),
        ({"references": [{"audio": WAV, "text": "abc"}]}, Mode.AUTO, "abc", None),
        ({"references": [{"audio_path": URL}]}, Mode.AUTO, None, None),
    ],
)
def test_a_recording_in_the_request_wins_over_the_voice(
    pipeline: FakePipeline,
    url: str,
    fields: dict[str, object],
    mode: Mode,
    text: str | None,
    instruction: str | None,
) -> None:
    assert _post(url, {**OK, "voice": "clara", **fields}).status_code == 200
    request = _last(pipeline)
    assert (request.voice, request.prompt_wav) == (None, SPEECH.read_bytes())
    assert (request.mode, request.prompt_text, request.instruct_text) == (mode, text, instruction)


def test_sampling_and_what_changes_nothing_here(pipeline: FakePipeline, url: str) -> None:
    sampling = {"seed": 3, "temperature": 0.7, "top_p": 0.9, "top_k": 20}
    others = {"repetition_penalty": 1.1, "max_new_tokens": 2048, "initial_codec_chunk_frames": 5}
    others |= {"language": "Auto", "non_streaming_mode": True, "task_type": "CustomVoice"}  # type: ignore[dict-item]
    assert _post(url, {**OK, **sampling, **others}).status_code == 200
    got = _last(pipeline).sampling
    assert (got.seed, got.temperature, got.top_p, got.top_k) == (3, 0.7, 0.9, 20)


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"input": ""}, 400, "empty_text", "input"),
        ({"input": None}, 400, "validation_error", "input"),
        ({"input": ["a"]}, 400, "validation_error", "input"),
        ({"input": "x" * 101}, 413, "text_too_long", "input"),
        ({"model": "whisper-1"}, 404, "model_not_found", "model"),
        ({"voice": 7}, 400, "validation_error", "voice"),
        ({"voice": "x" * 300}, 404, "voice_not_found", "voice"),
        ({"speed": 0.24}, 400, "invalid_input", "speed"),
        ({"speed": 4.01}, 400, "invalid_input", "speed"),
        ({"speed": "fast"}, 400, "validation_error", "speed"),
        ({"response_format": "ogg"}, 400, "invalid_input", "response_format"),
        ({"stream_format": "x"}, 400, "validation_error", "stream_format"),
        ({"ref_audio": "http://example.com/a.wav"}, 400, "invalid_audio", "ref_audio"),
        ({"ref_audio": "file:///etc/passwd"}, 400, "invalid_audio", "ref_audio"),
        ({"ref_audio": "/etc/passwd!"}, 400, "invalid_audio", "ref_audio"),
        ({"references": [{"audio_path": "https://a.example/b"}]}, 400, "invalid_audio", "ref_audio"),
        ({"references": [{}, {}]}, 400, "invalid_input", "references"),
        ({"references": [{}]}, 400, "invalid_input", "references"),
        ({"ref_text": "abc"}, 400, "invalid_input", "ref_audio"),
        ({"ref_audio": WAV, "ref_text": "a", "instructions": "b"}, 400, "invalid_input", "instructions"),
        ({"task_type": "VoiceDesign"}, 400, "invalid_input", "task_type"),
        ({"task_type": "CustomVoice", "ref_audio": WAV}, 400, "invalid_input", "task_type"),
        ({"seed": -1}, 400, "invalid_input", "seed"),
        ({"initial_codec_chunk_frames": -1}, 400, "validation_error", "initial_codec_chunk_frames"),
    ],
)
def test_errors_have_the_official_shape(
    url: str, fields: dict[str, object], status: int, code: str, param: str
) -> None:
    answer = _post(url, {**OK, **fields}, **{"X-Request-Id": "mine"})
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["code"], error["param"], error["type"]) == (code, param, "invalid_request_error")
    assert answer.headers["X-Request-Id"] == "mine"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("voice_not_found", openai.NotFoundError),
        ("overloaded", openai.RateLimitError),
        ("unavailable", openai.InternalServerError),
        ("generation_failed", openai.InternalServerError),
        ("invalid_audio", openai.BadRequestError),
    ],
)
def test_the_official_client_knows_what_failed_behind_the_worker(
    pipeline: FakePipeline, client: openai.OpenAI, code: str, kind: type[openai.APIStatusError]
) -> None:
    pipeline.script = failing(code)
    with pytest.raises(kind) as caught:
        client.audio.speech.create(**OK)  # type: ignore[arg-type]
    assert caught.value.code == code
    assert "it failed" in str(caught.value)


@pytest.mark.parametrize("kind", FORMATS)
def test_an_error_in_the_middle_breaks_audio_off(
    pipeline: FakePipeline, client: openai.OpenAI, kind: Format, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline.script = failing("generation_failed", after_chunks=2, pause_s=0.02)
    with pytest.raises((openai.APIConnectionError, httpx2.RemoteProtocolError)):
        client.audio.speech.create(**OK, response_format=kind)  # type: ignore[arg-type]
    assert "Traceback" not in caplog.text


def test_an_error_in_the_middle_of_events_is_an_event(
    pipeline: FakePipeline, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline.script = failing("generation_failed", after_chunks=2, pause_s=0.02)
    answer = _post(url, {**OK, "stream_format": "sse", "response_format": "pcm"})
    *deltas, error = _events(answer.text)
    assert len(deltas) == 2
    assert (error["type"], error["error"]["code"]) == ("speech.audio.error", "generation_failed")
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("stream_format", ["audio", "sse"])
def test_a_client_that_leaves_in_the_middle_aborts(
    pipeline: FakePipeline, client: openai.OpenAI, kind: Format, stream_format: Literal["audio", "sse"]
) -> None:
    pipeline.script = hanging(after_chunks=30)
    speaking = client.audio.speech.with_streaming_response.create(
        **OK,  # type: ignore[arg-type]
        response_format=kind,
        stream_format=stream_format,
    )
    with speaking as answer:
        next(answer.iter_bytes())
    newest = list(pipeline.requests)[-1]
    pipeline.wait_for(lambda p: newest in p.aborted)


def test_models_are_listed_and_retrieved(client: openai.OpenAI) -> None:
    listed = client.models.list().data
    assert [model.id for model in listed] == [
        "CosyVoice2-0.5B",
        "default",
        "tts-1",
        "tts-1-hd",
        "gpt-4o-mini-tts",
    ]
    assert all(model.object == "model" and model.created > 0 and model.owned_by for model in listed)
    same = {"FunAudioLLM/CosyVoice2-0.5B": "CosyVoice2-0.5B", "cosyvoice2-0.5b": "CosyVoice2-0.5B"}
    same |= {"gpt-4o-mini-tts-2025-12-15": "gpt-4o-mini-tts", "tts-1": "tts-1"}
    for name, known in same.items():
        assert client.models.retrieve(name).id == known
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-4o")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_batch_answers_each_item(pipeline: FakePipeline, url: str) -> None:
    items = [
        {"input": "a"},
        {"input": ""},
        {"input": "c", "response_format": "mp3", "speed": 2},
        {"speed": 1},
    ]
    body = {"items": items, "model": "tts-1", "voice": "clara", "response_format": "pcm", "stream": True}
    answer = httpx.post(f"{url}/audio/speech/batch", json=body)
    assert answer.status_code == 200
    told = answer.json()
    assert (told["total"], told["succeeded"], told["failed"]) == (4, 2, 2)
    first, second, third, fourth = told["results"]
    assert base64.b64decode(first["audio_data"]) == all_audio()
    assert (first["index"], first["status"], first["media_type"]) == (0, "success", "audio/pcm")
    assert first["usage"] == {"input_tokens": 1, "output_tokens": 10, "total_tokens": 11}
    assert (second["status"], second["error"]["code"]) == ("error", "empty_text")
    assert third["media_type"] == "audio/mpeg"
    assert len(decoded(base64.b64decode(third["audio_data"]), "mp3")) >= len(all_audio()) // 2
    assert (fourth["error"]["code"], fourth["error"]["param"]) == ("validation_error", "input")
    asked = {request.text: request for request in list(pipeline.requests.values())[-2:]}
    assert (asked["c"].speed, asked["c"].voice, asked["c"].stream) == (2.0, "clara", False)


@pytest.mark.parametrize("items", [[], [{"input": "a"}] * 33, "a", None, [1]])
def test_a_batch_that_is_none_is_refused(url: str, items: object) -> None:
    answer = httpx.post(f"{url}/audio/speech/batch", json={"items": items})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "items")


def test_a_batch_of_all_places_is_done_in_turns_and_aborted_with_its_client(
    pipeline: FakePipeline, url: str
) -> None:
    items = [{"input": str(number)} for number in range(32)]
    told = httpx.post(f"{url}/audio/speech/batch", json={"items": items}).json()
    assert told["succeeded"] == 32
    pipeline.script = hanging()
    before = len(pipeline.requests)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{url}/audio/speech/batch", json={"items": items}, timeout=0.5)
    begun = list(pipeline.requests)[before:]
    assert len(begun) == 8
    pipeline.wait_for(lambda p: set(begun) <= set(p.aborted))
