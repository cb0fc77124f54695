"""CosyVoice's routes, with requests as its client makes them: GET with a form or with a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from light_tts.messages import Mode
from test.server.fake_pipeline import FakePipeline, all_audio, client_of, failing, fake_pipeline

WAV = b"RIFF" + bytes(range(256))
CALLS: list[tuple[str, dict[str, str], bool, Mode]] = [
    ("/inference_sft", {"tts_text": "你好", "spk_id": "anna"}, False, Mode.SFT),
    ("/inference_zero_shot", {"tts_text": "你好", "prompt_text": "hello"}, True, Mode.AUTO),
    ("/inference_cross_lingual", {"tts_text": "你好"}, True, Mode.CROSS_LINGUAL),
    (
        "/inference_instruct",
        {"tts_text": "你好", "spk_id": "anna", "instruct_text": "softly"},
        False,
        Mode.INSTRUCT,
    ),
    ("/inference_instruct2", {"tts_text": "你好", "instruct_text": "softly"}, True, Mode.INSTRUCT),
]


@pytest.fixture(scope="module")
def pipeline() -> Iterator[FakePipeline]:
    with fake_pipeline() as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def client(pipeline: FakePipeline) -> Iterator[TestClient]:
    with client_of(pipeline) as client:
        yield client


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize(("path", "data", "with_file", "mode"), CALLS)
def test_each_route_speaks_in_its_mode(
    pipeline: FakePipeline,
    client: TestClient,
    method: str,
    slash: str,
    path: str,
    data: dict[str, str],
    with_file: bool,
    mode: Mode,
) -> None:
    files = {"prompt_wav": ("prompt_wav", WAV, "application/octet-stream")} if with_file else None
    answer = client.request(method, path + slash, data=data, files=files, follow_redirects=False)
    assert answer.status_code == 200
    assert answer.content == all_audio()
    request = list(pipeline.requests.values())[-1]
    assert request.mode is mode
    assert request.text == "你好"
    assert request.prompt_wav == (WAV if with_file else None)
    assert request.voice == data.get("spk_id")
    assert request.instruct_text == data.get("instruct_text")


def test_an_unknown_speaker_is_404_and_named_as_the_client_named_it(
    pipeline: FakePipeline, client: TestClient
) -> None:
    good, pipeline.script = pipeline.script, failing("voice_not_found", "there is no voice 'bob'")
    answer = client.get("/inference_sft", params={"tts_text": "a", "spk_id": "bob"})
    pipeline.script = good
    assert answer.status_code == 404
    assert answer.json()["error"]["param"] == "spk_id"


@pytest.mark.parametrize(
    ("path", "missing"),
    [
        ("/inference_sft", "spk_id"),
        ("/inference_cross_lingual", "prompt_wav"),
        ("/inference_instruct", "spk_id"),
        ("/inference_instruct2", "instruct_text"),
    ],
)
def test_a_missing_field_is_422_and_named(client: TestClient, path: str, missing: str) -> None:
    answer = client.post(path, data={"tts_text": "a"})
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == missing
