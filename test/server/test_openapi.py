"""The description of the synthesis routes says what the server does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from light_tts.config import ServerConfig
from light_tts.errors import STATUS
from light_tts.request import RANGES
from light_tts.server.api_http import create_app
from light_tts.server.containers import MEDIA_TYPES
from light_tts.server.error_response import ErrorBody
from test.server.fake_pipeline import client_of, fake_pipeline

OF_VOICES = {"voice_exists", "too_many_voices", "consent_required"}
ROUTES = ("zero_shot", "sft", "cross_lingual", "instruct", "instruct2")
DOCUMENT: dict[str, Any] = create_app(ServerConfig(max_text_chars=100), Path("/nowhere")).openapi()


def _operation(route: str) -> dict[str, Any]:
    operation: dict[str, Any] = DOCUMENT["paths"][f"/inference_{route}"]["post"]
    return operation


def _fields(route: str) -> dict[str, dict[str, Any]]:
    content = _operation(route)["requestBody"]["content"]
    assert len({str(kind["schema"]) for kind in content.values()}) == 1
    fields = content["application/json"]["schema"]["properties"]
    return {name: next(iter(field.get("anyOf", [field]))) for name, field in fields.items()}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with fake_pipeline(max_text_chars=100) as pipeline, client_of(pipeline) as client:
        yield client


@pytest.mark.parametrize("route", ROUTES)
def test_every_error_has_its_status_and_the_one_shape(route: str) -> None:
    answers = _operation(route)["responses"]
    assert {"200", "400", "404", "413", "422", "429", "500", "503", "504"} <= answers.keys()
    for status, answer in answers.items():
        if status == "200":
            assert set(answer["content"]) == set(MEDIA_TYPES.values())
            assert answer["headers"]["X-Sample-Rate"]["schema"]["const"] == "24000"
            continue
        schema = answer["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/ErrorBody"}
        assert ("Retry-After" in answer.get("headers", {})) == (status in ("429", "503"))
    told = {name for answer in answers.values() for name in answer["description"].split("`")[1::2]}
    assert STATUS.keys() - told == {"cancelled", "not_found", "method_not_allowed"} | OF_VOICES


def test_the_shape_is_that_of_real_errors(client: TestClient) -> None:
    answer = client.post("/inference_zero_shot", json={"tts_text": "a", "speed": 9})
    assert ErrorBody.model_validate(answer.json()).error.param == "speed"
    assert set(DOCUMENT["components"]["schemas"]["ErrorBody"]["required"]) == set(answer.json())


@pytest.mark.parametrize("route", ROUTES)
def test_ranges_and_lengths_are_told(route: str) -> None:
    fields = _fields(route)
    for name in RANGES:
        assert "maximum" in fields[name], name
        assert ("minimum" in fields[name]) != ("exclusiveMinimum" in fields[name]), name
    assert (fields["speed"]["minimum"], fields["speed"]["maximum"]) == (0.25, 4.0)
    texts = {"tts_text": 100, "prompt_text": 2000, "instruct_text": 2000, "voice": 256, "spk_id": 256}
    for name in texts.keys() & fields.keys():
        assert fields[name]["maxLength"] == texts[name]
    assert fields["response_format"]["enum"] == ["pcm", "wav", "mp3", "opus", "aac", "flac"]


@pytest.mark.parametrize("name", RANGES)
def test_ranges_are_those_that_the_server_holds_to(client: TestClient, name: str) -> None:
    field = _fields("zero_shot")[name]
    whole, high = field["type"] == "integer", field["maximum"]
    low: float = field["minimum"] if "minimum" in field else field["exclusiveMinimum"]
    if name == "seed":
        assert high == float(RANGES["seed"].high), "FastAPI writes limits as floats"
        high = RANGES["seed"].high
    body = {"tts_text": "a", "max_token_text_ratio": 100.0, "min_token_text_ratio": 0.0}
    refused = [int(low) - 1, int(high) + 1] if whole else [low - 0.01, high * 1.01]
    refused += [low] if "exclusiveMinimum" in field else []
    for value in refused:
        answer = client.post("/inference_zero_shot", json={**body, name: value})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, name), (value, answer.text)
    if name != "max_token_text_ratio":
        for value in (high, low) if "minimum" in field else (high,):
            assert client.post("/inference_zero_shot", json={**body, name: value}).status_code == 200, value


@pytest.mark.parametrize("name", ["tts_text", "prompt_text", "instruct_text"])
def test_lengths_are_those_that_the_server_holds_to(client: TestClient, name: str) -> None:
    limit = _fields("zero_shot")[name]["maxLength"]
    body = {"tts_text": "a", **({"prompt_wav": "UklGRg=="} if name == "prompt_text" else {})}
    assert client.post("/inference_zero_shot", json={**body, name: "a" * limit}).status_code == 200
    answer = client.post("/inference_zero_shot", json={**body, name: "a" * (limit + 1)})
    assert (answer.status_code, answer.json()["error"]["param"]) == (413, name)
    assert f"{name} has {limit + 1} characters, limit {limit}" in answer.json()["message"]
