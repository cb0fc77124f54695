from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from light_tts.cli import main as light_tts
from light_tts.config import ServerConfig
from light_tts.server.api_server import main
from light_tts.server.prepare import prepare
from light_tts.server.run_dir import remove_run_dir
from test.server.running_server import ROOT, free_port

MODEL = "test/golden/cosyvoice2"


@pytest.fixture(autouse=True)
def _logging_as_it_is(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("light_tts.server.prepare.set_up_logging", lambda level, process: None)
    caplog.set_level("INFO")


@pytest.mark.parametrize("verb", [["-m", "light_tts.server.api_server"], ["-m", "light_tts.cli", "serve"]])
@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ("--decode_proces_num 2", 2, "did you mean --decode_process_num?"),
        ("--model_dir /nowhere", 1, "model_not_found: model directory /nowhere does not exist"),
        (f"--model_dir {MODEL} --host 192.0.2.1", 2, "invalid_input: cannot listen on 192.0.2.1"),
    ],
)
def test_what_cannot_work_is_told_at_once_and_nothing_is_started(
    verb: list[str], arguments: str, status: int, message: str
) -> None:
    if "serve" in verb and status == 2 and "did you mean" in message:
        message = "unrecognized arguments: --decode_proces_num"  # argparse's own words
    command = [sys.executable, *verb, "--port", str(free_port()), *arguments.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, message in done.stderr) == (status, True), done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_told_before_the_model_is_looked_at(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["--port", str(port), "--model_dir", "/nowhere"]) == 2
    assert f"light-tts: port_taken: port {port} of 127.0.0.1 is taken" in capsys.readouterr().err


def test_the_configuration_that_processes_read_has_nothing_open(
    golden: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    config, run_dir = prepare(
        ServerConfig(model_dir=golden / "cosyvoice2", num_gpus=0, voices_dir=Path("voices")), listens=False
    )
    try:
        assert ServerConfig.read(run_dir) == config
    finally:
        remove_run_dir(run_dir)
    assert (config.num_gpus, config.cpu_threads, config.run_dir) == (0, 2, run_dir)
    assert config.voices_dir == Path.cwd() / "voices"
    assert "decode 0    cpu" in caplog.text


def test_fewer_threads_can_be_had_from_the_environment(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    config, run_dir = prepare(ServerConfig(model_dir=golden / "cosyvoice2", num_gpus=0), listens=False)
    remove_run_dir(run_dir)
    assert config.cpu_threads == 1


def test_serve_has_the_flags_of_the_server(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        light_tts(["serve", "--help"])
    assert "--router_max_wait_tokens" in capsys.readouterr().out
