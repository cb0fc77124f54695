"""Probes and metrics over HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from light_tts.messages import Stage
from test.server.fake_pipeline import FakePipeline, client_of, failing, fake_pipeline

PROBES = ["/health", "/healthz", "/liveness", "/readiness"]


@pytest.fixture
def pipeline() -> Iterator[FakePipeline]:
    with fake_pipeline(decode_process_num=2) as pipeline:
        yield pipeline


@pytest.fixture
def client(pipeline: FakePipeline) -> Iterator[TestClient]:
    with client_of(pipeline) as client:
        yield client


def _statuses(client: TestClient) -> list[int]:
    return [client.get(path).status_code for path in PROBES]


def test_all_is_well_where_each_stage_has_a_process(pipeline: FakePipeline, client: TestClient) -> None:
    assert client.get("/healthz").json() == {"message": "Ok", "status": "healthy"}
    assert client.get("/readiness").json()["status"] == "ok"
    pipeline.change_state(not_ready=((Stage.DECODE, 1),))
    assert _statuses(client) == [200] * 4
    assert client.head("/healthz").status_code == 200


def test_a_stage_without_a_process_is_unhealthy_but_alive(pipeline: FakePipeline, client: TestClient) -> None:
    pipeline.change_state(not_ready=((Stage.DECODE, 0), (Stage.DECODE, 1)))
    assert _statuses(client) == [503, 503, 200, 503]
    assert client.get("/healthz").json()["message"] == "decode-0 is dead, decode-1 is dead"


def test_a_stopping_server_is_not_ready_but_healthy(pipeline: FakePipeline, client: TestClient) -> None:
    pipeline.change_state(draining=True)
    assert _statuses(client) == [200, 200, 200, 503]


def test_without_a_supervisor_every_probe_fails(pipeline: FakePipeline, client: TestClient) -> None:
    pipeline.change_state(supervised=False)
    assert _statuses(client) == [503] * 4


def test_a_probe_takes_milliseconds_and_asks_no_other_process(
    pipeline: FakePipeline, client: TestClient
) -> None:
    client.get("/healthz")
    start = time.perf_counter()
    for _ in range(20):
        client.get("/healthz")
    assert (time.perf_counter() - start) / 20 < 0.05
    assert not pipeline.requests


def test_metrics_tell_outcomes_routes_and_how_well_streams_played(
    pipeline: FakePipeline, client: TestClient
) -> None:
    body = {"tts_text": "a", "stream": True}
    assert client.post("/inference_zero_shot", json=body).status_code == 200
    assert client.post("/inference_zero_shot", json={**body, "speed": 9}).status_code == 400
    pipeline.script = failing("generation_failed")
    assert client.post("/inference_zero_shot", json=body).status_code == 500
    client.get("/made-up-by-a-client")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    lines = answer.text.splitlines()
    for line in (
        'light_tts_requests_total{outcome="ok"} 1.0',
        'light_tts_requests_total{outcome="invalid_input"} 1.0',
        'light_tts_requests_total{outcome="generation_failed"} 1.0',
        "light_tts_ttfa_seconds_count 1.0",
        "light_tts_underrun_seconds_count 1.0",
        'lightllm_request_count_total{route="/inference_zero_shot"} 3.0',
        'lightllm_request_success_total{route="/inference_zero_shot"} 1.0',
        'lightllm_request_failure_total{route="/inference_zero_shot"} 2.0',
        'lightllm_request_latency_count{route="/inference_zero_shot"} 3.0',
        'lightllm_request_count_total{route="other"} 1.0',
    ):
        assert line in lines
    (seconds,) = (line.split()[1] for line in lines if line.startswith("light_tts_audio_seconds_total "))
    assert float(seconds) == pytest.approx(0.06)
    assert "made-up" not in answer.text
