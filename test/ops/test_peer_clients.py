"""The requests of upstream's and CosyVoice's clients, in their shapes, against a real server."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
from websockets.sync.client import connect

from light_tts.synthesizer import LightTTS
from test.ops.conftest import unused_port
from test.ops.live_server import LiveServer, live_server

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]
TEXT, PROMPT_TEXT = "收到好友从远方寄来的生日礼物。", "希望你以后能够做的比我还好呦。"
VOICE = "中文女"
SHORT = {"max_token_text_ratio": "4"}  # random weights speak until the limit


@pytest.fixture(scope="module")
def prompt(golden: Path) -> Path:
    return golden / "fixtures/prompt_24k.wav"


@pytest.fixture(scope="module", params=[1, 2])
def server(
    golden: Path, prompt: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[LiveServer]:
    voices = tmp_path_factory.mktemp("voices")
    LightTTS(golden / "cosyvoice2", "cpu", voices_dir=voices).register_voice("anna", prompt, PROMPT_TEXT)
    workers = str(request.param)
    flags = ["--voices_dir", str(voices), "--httpserver_workers", workers, "--decode_process_num", workers]
    with live_server(golden / "cosyvoice2", unused_port(), *flags) as live:
        yield live


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as one:
        one.trust_env = False
        yield one


def _samples(audio: bytes) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    assert len(audio) % 2 == 0
    samples = np.frombuffer(audio, dtype=np.int16)
    assert len(samples) > 24_000 // 5
    assert not audio.startswith(b"RIFF")
    return samples


@pytest.mark.parametrize("path", ["/inference_zero_shot", "/inference_zero_shot/"])
@pytest.mark.parametrize("stream", [None, "True", "true", "1", "False"])
def test_upstream_zero_shot(
    server: LiveServer, session: requests.Session, prompt: Path, path: str, stream: str | None
) -> None:
    fields = {"tts_text": TEXT, "prompt_text": PROMPT_TEXT, "tts_model_name": "default", **SHORT}
    if stream is not None:
        fields["stream"] = stream
    with prompt.open("rb") as wav:
        answer = session.post(
            server.url + path, data=fields, files={"prompt_wav": wav}, stream=True, allow_redirects=False
        )
    assert answer.status_code == 200, answer.text
    audio = b"".join(answer.iter_content(chunk_size=4096))
    _samples(audio)
    assert answer.headers["X-Sample-Rate"] == "24000"
    assert answer.headers["X-Request-Id"]


def test_upstream_speed(server: LiveServer, session: requests.Session, prompt: Path) -> None:
    lengths = []
    for speed in ("1.0", "2.0"):
        fields = {"tts_text": TEXT, "prompt_text": PROMPT_TEXT, "speed": speed, "seed": "3", **SHORT}
        with prompt.open("rb") as wav:
            answer = session.post(f"{server.url}/inference_zero_shot", data=fields, files={"prompt_wav": wav})
        assert answer.status_code == 200, answer.text
        lengths.append(len(_samples(answer.content)))
    assert lengths[1] == pytest.approx(lengths[0] / 2, rel=0.1)


def test_upstream_bistream(server: LiveServer, prompt: Path) -> None:
    address = server.url.replace("http", "ws", 1) + "/inference_zero_shot_bistream"
    received: list[bytes] = []
    with connect(address, proxy=None, open_timeout=10) as websocket:
        websocket.send(json.dumps({"prompt_text": PROMPT_TEXT, "tts_model_name": "default"}))
        websocket.send(prompt.read_bytes())
        for piece in ("收到好友从远方", "寄来的生日礼物,", "那份意外的惊喜。"):
            websocket.send(json.dumps({"tts_text": piece}))
        websocket.send(json.dumps({"finish": True}))
        for message in websocket:  # until the server closes
            assert isinstance(message, bytes), message
            received.append(message)
    _samples(b"".join(received))


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_upstream_query_tts_model(server: LiveServer, session: requests.Session, method: str) -> None:
    answer = session.request(method, f"{server.url}/query_tts_model")
    assert answer.status_code == 200
    assert "default" in answer.json()["tts_models"]


@pytest.mark.parametrize("path", ["/health", "/healthz", "/liveness", "/readiness", "/metrics"])
def test_upstream_probes(server: LiveServer, session: requests.Session, path: str) -> None:
    answer = session.get(server.url + path)
    assert answer.status_code == 200, answer.text


def test_guide_benchmark_request(server: LiveServer, session: requests.Session, prompt: Path) -> None:
    body = {
        "tts_text": "这是一个性能测试",
        "prompt_text": "请用自然的声音朗读",
        "prompt_wav": base64.b64encode(prompt.read_bytes()).decode(),
        "max_token_text_ratio": 4,
    }
    answer = session.post(f"{server.url}/inference_zero_shot", json=body)
    assert answer.status_code == 200, answer.text
    _samples(answer.content)


COSYVOICE = {
    "inference_sft": {"tts_text": TEXT, "spk_id": "anna"},
    "inference_zero_shot": {"tts_text": TEXT, "prompt_text": PROMPT_TEXT},
    "inference_cross_lingual": {"tts_text": "And then later on, fully acquiring that company."},
    "inference_instruct": {"tts_text": TEXT, "spk_id": "anna", "instruct_text": "用四川话说这句话"},
    "inference_instruct2": {"tts_text": TEXT, "instruct_text": "用四川话说这句话"},
}


@pytest.mark.parametrize("mode", [*COSYVOICE])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_cosyvoice_client(
    server: LiveServer, session: requests.Session, prompt: Path, method: str, mode: str
) -> None:
    files = None
    if "spk_id" not in COSYVOICE[mode]:
        files = [("prompt_wav", ("prompt_wav", prompt.read_bytes(), "application/octet-stream"))]
    fields = {**COSYVOICE[mode], **SHORT}
    answer = session.request(method, f"{server.url}/{mode}", data=fields, files=files, stream=True)
    assert answer.status_code == 200, answer.text
    _samples(b"".join(answer.iter_content(chunk_size=16000)))


def test_cosyvoice_client_with_an_unknown_speaker(server: LiveServer, session: requests.Session) -> None:
    fields = {"tts_text": TEXT, "spk_id": VOICE}
    answer = session.request("GET", f"{server.url}/inference_sft", data=fields, stream=True)
    assert answer.status_code == 404
    assert VOICE in answer.json()["message"]
