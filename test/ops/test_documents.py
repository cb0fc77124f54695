"""The documents tell all flags, fields, routes, codes and metrics that there are, and no others."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
from pydantic import BaseModel

from light_tts.config import ServerConfig
from light_tts.errors import STATUS
from light_tts.flags import PRESETS
from light_tts.observe import metrics
from light_tts.server.api_http import create_app
from light_tts.server.schemas import (
    CrossLingualForm,
    Instruct2Form,
    InstructForm,
    SftForm,
    ZeroShotForm,
)
from light_tts.server.schemas_openai import OpenAISpeech
from test.ops.project import ROOT

OPERATIONS = [ROOT / "docs/operations.md", ROOT / "docs/operations.zh.md"]
API = [ROOT / "docs/api.md", ROOT / "docs/api.zh.md"]
operations = pytest.mark.parametrize("document", OPERATIONS, ids=lambda p: p.name)
api = pytest.mark.parametrize("document", API, ids=lambda p: p.name)


def _fields_of_sections(document: Path) -> tuple[set[str], set[str]]:
    """Fields of our own speech route, and those of OpenAI's, by the tables of their sections."""
    told: list[set[str]] = []
    for section in document.read_text("utf-8").split("\n## ")[1:]:
        rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| `")]
        told.append({name for row in rows if len(row) == 3 for name in re.findall(r"`(\w+)`", row[0])})
    with_fields = [names for names in told if names]
    return with_fields[0], with_fields[1]


def _rows(document: Path) -> list[list[str]]:
    lines = document.read_text("utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("|")]


@operations
def test_flags_are_those_of_the_server(document: Path) -> None:
    rows = [row for row in _rows(document) if re.fullmatch(r"`--\w+`", row[0])]
    assert [row[0].strip("`-") for row in rows] == [item.name for item in fields(ServerConfig)]


@operations
def test_defaults_are_those_of_the_server(document: Path) -> None:
    told = {row[0].strip("`-"): row[1] for row in _rows(document) if row[0].startswith("`--")}
    for item in fields(ServerConfig):
        if item.default is None or item.default == () or item.name == "decode_gpus":
            continue
        number = f"{item.default:g}" if isinstance(item.default, float) else str(item.default)
        assert told[item.name] == number, item.name


@operations
def test_presets_are_those_of_the_server(document: Path) -> None:
    told = {row[0].strip("`"): row[2] for row in _rows(document) if row[0].strip("`") in PRESETS}
    assert told.keys() == PRESETS.keys()
    for name, values in PRESETS.items():
        for flag, value in values.items():
            text = ",".join(value) if isinstance(value, tuple) else value
            assert f"`{flag} {text}`" in told[name]
        assert told[name].count("`") == 2 * len(values)


@operations
def test_metrics_are_those_of_the_server(document: Path) -> None:
    text = document.read_text("utf-8")
    told = set(re.findall(r"`(light_tts_\w+)[`{]", text))
    there = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in metrics().registry.collect()
    }
    assert told <= there
    ours = {name for name in there if name.startswith("light_tts_") and "_audio_" not in name}
    assert ours - {"light_tts_audio_seconds_total"} <= told


@api
def test_routes_are_those_of_the_server(document: Path, tmp_path: Path) -> None:
    text = document.read_text("utf-8")
    paths = create_app(ServerConfig(), tmp_path).openapi()["paths"]
    assert {path for path in paths if path not in text} == set()
    told = set(re.findall(r"[ `](/(?:inference|query)_\w+)", text))
    assert told - {"/inference_zero_shot_bistream"} <= paths.keys()


@api
def test_fields_are_those_of_the_server(document: Path) -> None:
    speech, openai = _fields_of_sections(document)
    assert speech == ZeroShotForm.model_fields.keys()
    assert openai >= {"model", "input", "voice", "response_format", "stream_format", "stream"}
    assert openai <= OpenAISpeech.model_fields.keys()


@api
@pytest.mark.parametrize(
    ("route", "form"),
    [
        ("sft", SftForm),
        ("cross_lingual", CrossLingualForm),
        ("instruct", InstructForm),
        ("instruct2", Instruct2Form),
    ],
)
def test_required_fields_of_cosyvoice_routes_are_told(
    document: Path, route: str, form: type[BaseModel]
) -> None:
    (row,) = [row for row in _rows(document) if row[0] == f"`/inference_{route}`"]
    required = {name for name, info in form.model_fields.items() if info.is_required()}
    assert set(re.findall(r"`(\w+)`", row[1])) == required


@api
def test_error_codes_are_those_of_the_server(document: Path) -> None:
    told = {
        code: int(row[0])
        for row in _rows(document)
        if row[0].isdecimal()
        for code in re.findall(r"`(\w+)`", row[1])
    }
    assert {code: status for code, status in told.items() if status != 500} == dict(STATUS)


@api
def test_example_of_an_error_is_json(document: Path) -> None:
    (block,) = re.findall(r"```json\n(.*?)```", document.read_text("utf-8"), flags=re.DOTALL)
    error = json.loads(block)
    assert error["error"]["message"] == error["message"]
    assert error["error"]["code"] in STATUS


@pytest.mark.parametrize(("english", "chinese"), [OPERATIONS, API])
def test_both_languages_show_the_same_commands(english: Path, chinese: Path) -> None:
    def commands(document: Path) -> list[str]:
        blocks = re.findall(r"```bash\n(.*?)```", document.read_text("utf-8"), flags=re.DOTALL)
        lines = [re.sub(r"\s+#.*|^#.*", "", line) for block in blocks for line in block.splitlines()]
        return [re.sub(r'"[^"]*"', '""', line) for line in lines if line]

    assert commands(english)
    assert commands(english) == commands(chinese)


@pytest.mark.parametrize("document", [*OPERATIONS, *API], ids=lambda p: p.name)
def test_links_lead_to_headings_that_exist(document: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", document.read_text("utf-8")):
        there = (document.parent / target if target else document).read_text("utf-8")
        headings = re.findall(r"^#+ (.*)$", there, flags=re.MULTILINE)
        slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
        assert anchor in slugs, f"{target}#{anchor}"
