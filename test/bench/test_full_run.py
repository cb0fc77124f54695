"""A whole run: parts, what fails, and the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from light_tts.bench import full_run
from light_tts.bench.full_report import comparable
from light_tts.bench.full_run import Report
from light_tts.bench.peers import beside
from light_tts.cli import main


def test_stages_and_server_are_measured_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["bench", "--random-weights", "mini", "--device", "cpu", "--seconds", "1", "--callers", "1,2"]
    assert main([*command, "--parts", "llm,server", "--out", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out/bench.json").read_text("utf-8"))
    assert report["stages"]["llm"]["step, batch 2, ms"] > 0
    assert report["failed"] == {}
    levels = [(level["stream"], level["concurrency"], level["requests"]) for level in report["levels"]]
    assert levels == [(False, 1, 3), (False, 2, 6), (True, 1, 3), (True, 2, 6)]
    assert all(level["audio_s"] == level["requests"] for level in report["levels"])  # a second each
    assert (tmp_path / "out/bench.png").read_bytes()[:4] == b"\x89PNG"
    assert "the server over HTTP" in capsys.readouterr().out


def test_a_part_that_fails_is_told_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(full_run.STAGE_S, "flow", 0.1)
    command = ["bench", "--random-weights", "mini", "--device", "cpu", "--seconds", "1", "--callers", "1"]
    flags = ["--parts", "flow,server,llm", "--server-flags=--port 0"]
    assert main([*command, *flags, "--out", str(tmp_path)]) == 1
    report = json.loads((tmp_path / "bench.json").read_text("utf-8"))
    assert "not done within 0 s" in report["failed"]["flow"]
    assert "the server ended with" in report["failed"]["server"]
    assert report["stages"].keys() == {"llm"}
    assert "flow failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--parts", "llm,voice"], "--parts names voice"),
        (["--callers", "0,1"], "--callers is (0, 1)"),
        (["--callers", "many"], "--callers is 'many'"),
        (["--seconds", "31"], "--seconds is 31"),
        (["--limit-s", "1"], "--limit-s is 1"),
        (["--text", "ok", "--profile"], "--text, --profile cannot be used with --random-weights"),
    ],
)
def test_wrong_usage_is_refused(
    wrong: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--random-weights", "mini", "--out", str(tmp_path / "out"), *wrong]) == 2
    assert message in capsys.readouterr().err


def test_peers_stand_beside_the_same_part_only() -> None:
    report = Report("cosyvoice2-0.5b", {}, {})
    report.stages = {"flow": {"batch 1, ms each": 20.0, "batch 8, ms each": 8.0}}
    pairs = beside(comparable(report), 2)
    assert [(peer.part, peer.callers, peer.value, mine) for peer, mine in pairs] == [("flow", 1, 418, 20.0)]
    assert beside(comparable(report), 3) == []
