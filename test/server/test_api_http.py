"""The whole application: what it says of itself, and that no request makes it stumble, hang or hold up the others."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Iterator

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from starlette.testclient import TestClient

from light_tts.errors import InvalidInput
from light_tts.server import api_http
from light_tts.server.api_http import RUN_DIR_VARIABLE, WorkerApp
from test.server.fake_pipeline import all_audio, client_of, fake_pipeline, live_server

PATHS = [
    "/inference_zero_shot",
    "/inference_zero_shot/",
    "/inference_sft",
    "/inference_cross_lingual",
    "/inference_instruct",
    "/inference_instruct2",
    "/query_tts_model",
    "/healthz",
    "/metrics",
    "/nothing",
]
KINDS = [
    "",
    "application/json",
    "application/json; charset=utf-16",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=b",
    "multipart/form-data",
    "text/plain",
    ";;;",
]
FIELDS = [
    "tts_text",
    "prompt_text",
    "prompt_wav",
    "voice",
    "spk_id",
    "instruct_text",
    "stream",
    "speed",
    "seed",
    "top_k",
    "temperature",
    "response_format",
    "tts_model_name",
]


# A pipeline each: the address of an HTTP worker is its process's.
@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with fake_pipeline() as pipeline, client_of(pipeline) as client:
        yield client


@pytest.fixture(scope="module")
def live() -> Iterator[str]:
    with fake_pipeline() as pipeline, live_server(pipeline) as host:
        yield f"http://{host}"


def _multipart(fields: dict[str, str]) -> bytes:
    parts = [f'--b\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items()]
    return "".join([*parts, "--b--\r\n"]).encode()


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10)
BODIES = st.one_of(
    st.binary(max_size=40),
    st.dictionaries(st.sampled_from(FIELDS), VALUES | st.lists(VALUES, max_size=2), max_size=6).map(
        lambda fields: json.dumps(fields).encode()
    ),
    st.dictionaries(st.sampled_from(FIELDS), st.text('ab1.="\r\n-é', max_size=8), max_size=6).map(_multipart),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["GET", "POST", "PUT", "HEAD", "OPTIONS"]),
    st.sampled_from(PATHS),
    st.sampled_from(KINDS),
    BODIES,
    st.text(max_size=10),
)
def test_no_request_gets_a_500_or_an_error_without_a_code(
    client: TestClient, method: str, path: str, kind: str, body: bytes, query: str
) -> None:
    headers = {"Content-Type": kind} if kind else {}
    answer = client.request(method, path, content=body, headers=headers, params={"tts_text": query})
    assert answer.status_code < 500
    if answer.status_code >= 400 and method != "HEAD":
        error = answer.json()["error"]
        assert error["code"]
        assert error["message"] == answer.json()["message"]


@pytest.mark.parametrize("path", [path for path in PATHS[2:] if path != "/nothing"] + PATHS[:1])
def test_nothing_that_the_description_allows_gets_a_500(live: str, path: str) -> None:
    description = httpx.get(f"{live}/openapi.json").json()
    operations = schemathesis.openapi.from_dict(description)[path]

    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def call(data: st.DataObject) -> None:
        for method in operations:
            case = data.draw(operations[method].as_strategy())
            case.call_and_validate(base_url=live, timeout=10, checks=[not_a_server_error])

    call()


def test_the_description_names_every_route_and_its_fields(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for path in ("/inference_zero_shot", "/inference_sft", "/healthz", "/metrics", "/query_tts_model"):
        assert path in paths
    content = paths["/inference_zero_shot"]["post"]["requestBody"]["content"]
    for kind in ("multipart/form-data", "application/json"):
        fields = content[kind]["schema"]
        assert fields["required"] == ["tts_text"]
        assert {"prompt_wav", "seed", "speed", "voice"} <= set(fields["properties"])


def test_a_large_recording_does_not_hold_up_the_others(live: str) -> None:
    # 2 MB of base64: a recording of 30 s at 24 kHz
    body = json.dumps({"tts_text": "a", "prompt_wav": base64.b64encode(bytes(1_440_000)).decode()})

    async def measure() -> float:
        slowest = 0.0
        async with httpx.AsyncClient(base_url=live) as client:
            await client.get("/query_tts_model")
            upload = asyncio.create_task(
                client.post(
                    "/inference_zero_shot", content=body, headers={"Content-Type": "application/json"}
                )
            )
            while not upload.done():
                start = time.perf_counter()
                await client.get("/query_tts_model")
                slowest = max(slowest, time.perf_counter() - start)
            assert upload.result().content == all_audio()
        return slowest

    assert asyncio.run(measure()) < 0.25  # generous: the client is in this process, on a busy machine


def test_a_worker_reads_what_the_supervisor_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_http, "set_up_logging", lambda level, process: None)
    with fake_pipeline(max_text_chars=5) as pipeline:
        monkeypatch.setenv(RUN_DIR_VARIABLE, str(pipeline.run_dir))
        (pipeline.run_dir / "config.json").write_text(pipeline.config.to_json())
        with TestClient(WorkerApp()) as client:
            assert client.post("/inference_zero_shot", json={"tts_text": "hello"}).content == all_audio()
            assert client.post("/inference_zero_shot", json={"tts_text": "hello!"}).status_code == 413


def test_a_worker_without_a_supervisor_says_how_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RUN_DIR_VARIABLE, raising=False)
    with pytest.raises(InvalidInput, match="api_server"), TestClient(WorkerApp()):
        pass
