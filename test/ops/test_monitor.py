from __future__ import annotations

import io
import json
import shutil
import subprocess
from pathlib import Path

import pynvml
import pytest
from rich.console import Console

from light_tts.monitor import command
from light_tts.monitor.readings import Gpu, Machine, Watcher, between, parse_metrics, read_gpus
from light_tts.monitor.view import as_json, as_table
from test.ops.stub_server import Stub, metrics

SCRIPT = Path(__file__).parents[2] / "scripts/monitor.py"


def test_rates_come_from_two_readings() -> None:
    before, now = parse_metrics(metrics(10), 100.0), parse_metrics(metrics(30), 110.0)
    server = between(before, now, "url", "ok")
    assert server.requests_per_s == pytest.approx(2.0)
    assert server.audio_s_per_s == pytest.approx(4.0)
    assert server.ttfa_s == pytest.approx(0.25)
    assert server.latency_s is None  # the server does not tell it
    assert server.requests == {"ok": 30.0, "overloaded": 2.0}
    assert (server.kv_used, server.kv_total, server.restarts) == (100.0, 65536.0, 1.0)


def test_queues_are_told_by_stage() -> None:
    stages = parse_metrics(metrics(1), 0.0).stages
    assert (stages["llm"].queued, stages["llm"].oldest_s, stages["llm"].running) == (3.0, 0.5, 7.0)
    assert stages["decode"].queued == 1.0


def test_a_server_that_was_started_anew_gives_no_negative_rate() -> None:
    server = between(parse_metrics(metrics(100), 0.0), parse_metrics(metrics(5), 10.0), "url", "ok")
    assert server.requests_per_s == pytest.approx(0.7)
    assert server.audio_s_per_s == pytest.approx(1.0)


def test_once_as_json_tells_machine_and_server(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--once", "--json", "--url", stub.url]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["server"]["fault"] is None
    assert document["server"]["health"] == "ok"
    assert document["server"]["stages"]["llm"]["queued"] == 3
    assert 0 <= document["cpu_percent"] <= 100
    assert document["memory_used_gb"] > 0


def test_a_server_that_is_not_there_is_told_and_is_exit_status_1(
    free_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--once", "--url", f"http://127.0.0.1:{free_port}"]) == 1
    assert "cannot be read" in capsys.readouterr().out


def test_an_unhealthy_server_is_told(stub: Stub) -> None:
    stub.healthy_at += 1000
    assert Watcher(stub.url).server().health == "unhealthy (503)"


def test_what_is_no_metrics_page_is_a_fault(stub: Stub) -> None:
    stub.metrics = "<html>not { metrics</html>"
    assert Watcher(stub.url).server().fault


def test_table_names_gpus_queues_and_rate(stub: Stub) -> None:
    machine = Machine(12.5, 40.0, 8.0, (Gpu(0, "A card", 87.0, 10.0, 80.0),))
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(as_table(machine, Watcher(stub.url).server()))
    text = console.export_text()
    for expected in ("GPU 0 A card", "87.0%", "10.0/80.0 GB", "TPS", "llm", "decode", "12.5%"):
        assert expected in text


def test_the_table_fits_into_a_terminal_of_24_lines(stub: Stub) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(as_table(Machine(12.5, 40.0, 8.0, ()), Watcher(stub.url).server()))
    assert len(console.export_text().splitlines()) < 24


def test_a_utilization_that_is_not_told_is_null_in_json(stub: Stub) -> None:
    machine = Machine(1.0, 1.0, 1.0, (Gpu(0, "A slice", float("nan"), 1.0, 2.0),))
    document = json.loads(as_json(machine, Watcher(stub.url).server()))
    assert document["gpus"][0]["utilization_percent"] is None


def test_a_machine_without_a_driver_has_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", fails)
    assert read_gpus() == ()


def test_interrupt_ends_the_live_view(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("light_tts.monitor.command.time.sleep", interrupted)
    assert command.main(["--url", stub.url]) == 130
    assert "TPS" in capsys.readouterr().out


def test_script_finds_the_projects_python_by_itself() -> None:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ""}
    done = subprocess.run([SCRIPT, "--help"], capture_output=True, text=True, check=False, env=environment)
    if (
        not (SCRIPT.parents[1] / ".venv/bin/python").exists()
        or shutil.which("python3", path="/usr/bin") is None
    ):
        pytest.skip("there is no .venv, or no other Python")
    assert done.returncode == 0, done.stderr
    assert "--once" in done.stdout
