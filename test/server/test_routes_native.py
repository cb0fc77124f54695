"""Light-TTS's own routes, as their clients use them."""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from light_tts.errors import STATUS
from light_tts.messages import Mode, Stage
from test.server.fake_pipeline import FakePipeline, all_audio, client_of, failing, fake_pipeline, silent

WAV = b"RIFF" + bytes(range(256)) * 200
PATHS = ["/inference_zero_shot", "/inference_zero_shot/"]


@pytest.fixture(scope="module")
def pipeline() -> Iterator[FakePipeline]:
    with fake_pipeline(max_body_mb=0.5, max_text_chars=100) as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def client(pipeline: FakePipeline) -> Iterator[TestClient]:
    with client_of(pipeline) as client:
        yield client


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [None, "True", "False"])
def test_a_multipart_request_gets_raw_samples_and_what_they_are(
    pipeline: FakePipeline, client: TestClient, path: str, stream: str | None
) -> None:
    data = {"tts_text": "你好", "prompt_text": "hello", "tts_model_name": "default"}
    if stream is not None:
        data["stream"] = stream
    files = {"prompt_wav": ("prompt.wav", WAV, "application/octet-stream")}
    answer = client.post(path, data=data, files=files, follow_redirects=False)
    assert answer.status_code == 200
    assert answer.content == all_audio()
    assert answer.headers["content-type"] == "audio/pcm"
    headers = {"X-Sample-Rate": "24000", "X-Channels": "1", "X-Bit-Depth": "16"}
    assert {name: answer.headers[name] for name in headers} == headers
    assert ("content-length" in answer.headers) == (stream != "True")
    request = list(pipeline.requests.values())[-1]
    assert (request.text, request.prompt_text, request.prompt_wav) == ("你好", "hello", WAV)
    assert request.stream == (stream == "True")


@pytest.mark.parametrize("path", PATHS)
def test_a_json_request_gets_the_same(pipeline: FakePipeline, client: TestClient, path: str) -> None:
    body = {"tts_text": "你好", "prompt_text": "hello", "prompt_wav": base64.b64encode(WAV).decode()}
    answer = client.post(path, json={**body, "stream": True, "speed": 1.5, "seed": 3, "top_k": 7})
    assert answer.content == all_audio()
    request = list(pipeline.requests.values())[-1]
    assert (request.prompt_wav, request.speed, request.mode) == (WAV, 1.5, Mode.AUTO)
    assert (request.sampling.seed, request.sampling.top_k) == (3, 7)


def test_the_guides_benchmark_with_its_placeholder_is_told_what_is_wrong(client: TestClient) -> None:
    body = {
        "tts_text": "这是一个性能测试",
        "prompt_text": "请用自然的声音朗读",
        "prompt_wav": "base64_encoded_audio_here",
    }
    answer = client.post("/inference_zero_shot", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "prompt_wav"
    assert "base64" in answer.json()["message"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_wav_answer_can_be_read_as_wav(client: TestClient, stream: bool) -> None:
    answer = client.post(
        "/inference_zero_shot", json={"tts_text": "hi", "response_format": "wav", "stream": stream}
    )
    assert answer.headers["content-type"] == "audio/wav"
    assert answer.content[44:] == all_audio()
    if not stream:
        with wave.open(io.BytesIO(answer.content)) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (24_000, 1, 2)
            assert file.readframes(1_000_000) == all_audio()


def test_the_clients_id_comes_back_and_stands_in_ours(pipeline: FakePipeline, client: TestClient) -> None:
    answer = client.post("/inference_zero_shot", json={"tts_text": "hi"}, headers={"X-Request-Id": "my-id.7"})
    assert answer.headers["X-Request-Id"] == "my-id.7"
    assert list(pipeline.requests)[-1].startswith("my-id.7/")


@pytest.mark.parametrize("wanted", ["", "a b", "a\tb", "x" * 65, "a/b", "é"])
def test_an_id_that_is_not_sensible_is_replaced(client: TestClient, wanted: str) -> None:
    headers = [(b"X-Request-Id", wanted.encode("latin-1"))]
    answer = client.post("/inference_zero_shot", json={"tts_text": "hi"}, headers=headers)
    assert answer.headers["X-Request-Id"] not in ("", wanted)
    assert len(answer.headers["X-Request-Id"]) == 16


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({}, 422, "validation_error", "tts_text"),
        ({"tts_text": ["a"]}, 422, "validation_error", "tts_text"),
        ({"tts_text": ""}, 400, "empty_text", "tts_text"),
        ({"tts_text": "x" * 101}, 413, "text_too_long", "tts_text"),
        ({"tts_text": "a", "speed": 5}, 400, "invalid_input", "speed"),
        ({"tts_text": "a", "tts_model_name": "b"}, 404, "model_not_found", "tts_model_name"),
        ({"tts_text": "a", "response_format": "ogg"}, 400, "invalid_input", "response_format"),
        ({"tts_text": "a", "prompt_text": "b"}, 400, "invalid_input", "prompt_wav"),
        ({"tts_text": "a", "prompt_wav": "A" * 700_000}, 413, "body_too_large", None),
    ],
)
def test_bad_input_gets_its_status_and_names_the_field(
    client: TestClient, body: dict[str, object], status: int, code: str, param: str | None
) -> None:
    answer = client.post("/inference_zero_shot", json=body)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == (code, param)
    assert error["type"] == "invalid_request_error"
    assert error["message"] == answer.json()["message"] != ""
    assert "X-Request-Id" in answer.headers


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("code", "param"),
    [
        ("invalid_audio", "prompt_wav"),
        ("prompt_too_long", "prompt_wav"),
        ("voice_not_found", "voice"),
        ("overloaded", None),
        ("unavailable", None),
        ("timeout", None),
        ("generation_failed", None),
        ("a_code_of_the_future", None),
    ],
)
def test_what_fails_behind_the_worker_has_its_status_also_when_streaming(
    pipeline: FakePipeline, client: TestClient, code: str, param: str | None, stream: bool
) -> None:
    good, pipeline.script = pipeline.script, failing(code)
    answer = client.post("/inference_zero_shot", json={"tts_text": "a", "stream": stream})
    pipeline.script = good
    assert answer.status_code == STATUS.get(code, 500)
    assert answer.json()["error"]["code"] == code
    assert answer.json()["error"]["param"] == param
    assert ("Retry-After" in answer.headers) == (code in ("overloaded", "unavailable"))


@pytest.mark.parametrize(("field", "sent"), [("prompt_text", "prompt_text"), ("text", "tts_text")])
def test_text_that_is_too_long_behind_the_worker_is_named_as_it_was_sent(
    pipeline: FakePipeline, client: TestClient, field: str, sent: str
) -> None:
    good = pipeline.script
    pipeline.script = failing("text_too_long", f"{field} has 1200 tokens, the limit is 1000")
    answer = client.post("/inference_zero_shot", json={"tts_text": "a"})
    pipeline.script = good
    assert (answer.status_code, answer.json()["error"]["param"]) == (413, sent)


def test_without_a_stage_the_answer_is_503_before_the_body_is_read(
    pipeline: FakePipeline, client: TestClient
) -> None:
    pipeline.change_state(not_ready=((Stage.LLM, 0),))
    answer = client.post("/inference_zero_shot", content=b"no body at all")
    pipeline.change_state()
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0


def test_a_request_that_takes_too_long_is_504() -> None:
    with fake_pipeline(silent, request_timeout_s=1.0) as pipeline, client_of(pipeline) as client:
        answer = client.post("/inference_zero_shot", json={"tts_text": "a", "stream": True})
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "timeout"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_models_are_listed(client: TestClient, method: str) -> None:
    assert client.request(method, "/query_tts_model").json() == {"tts_models": ["default"]}


def test_unknown_paths_and_methods_have_the_one_shape_of_errors(client: TestClient) -> None:
    for answer, code in (
        (client.get("/nothing"), "not_found"),
        (client.delete("/inference_zero_shot"), "method_not_allowed"),
    ):
        assert answer.json()["error"]["code"] == code
        assert answer.status_code == STATUS[code]


def test_other_origins_may_ask(client: TestClient) -> None:
    answer = client.post(
        "/inference_zero_shot", json={"tts_text": "a"}, headers={"Origin": "https://a.example"}
    )
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "X-Sample-Rate" in answer.headers["access-control-expose-headers"]
