"""scripts/deploy.sh with a stub in place of run.sh."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml

from test.ops.project import Project
from test.ops.stub_server import Stub

DEPLOY = "scripts/deploy.sh"


@pytest.fixture
def project(tmp_path: Path, free_port: int) -> Iterator[Project]:
    made = Project(tmp_path, free_port)
    yield made
    with suppress(OSError, ValueError):
        os.kill(int(made.pid_file.read_text("ascii")), signal.SIGKILL)


def _pid(project: Project) -> int:
    return int(project.pid_file.read_text("ascii"))


def test_deploy_starts_waits_and_stops(project: Project) -> None:
    done = project.run(DEPLOY, FAKE_HEALTHY_AFTER="1.5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "healthy after" in done.stdout
    assert f"http://127.0.0.1:{project.port}/metrics" in done.stdout
    pid = _pid(project)
    assert "run.sh" in psutil.Process(pid).cmdline()
    log = (project.root / "logs/light-tts.log").read_text("utf-8")
    assert "WORKERS=4 GPUS=0,1,2" in log

    status = project.run(DEPLOY, "--status")
    assert status.returncode == 0
    assert f"PID {pid}" in status.stdout

    again = project.run(DEPLOY)
    assert again.returncode == 1
    assert f"already running (PID {pid}" in again.stderr
    assert _pid(project) == pid

    stopped = project.run(DEPLOY, "--stop")
    assert stopped.returncode == 0, stopped.stderr
    _wait_until_gone(pid)
    assert not project.pid_file.exists()
    assert project.run(DEPLOY, "--status").returncode == 3
    assert project.run(DEPLOY, "--stop").returncode == 0


def test_configuration_has_the_keys_of_the_guide(project: Project, tmp_path: Path) -> None:
    model = tmp_path / 'a "model" \\ here'
    model.mkdir()
    assert project.run(DEPLOY, model.name, "2", "6", cwd=tmp_path).returncode == 0
    written = yaml.safe_load((project.root / "config/production.yaml").read_text("utf-8"))
    assert written == {
        "model_dir": str(model),
        "decode_process_num": 2,
        "httpserver_workers": 6,
        "decode_max_batch_size": 3,
        "gpt_paral_num": 150,
        "load_trt": True,
        "mode": ["triton_flashdecoding"],
        "log_level": "INFO",
    }
    assert "WORKERS=6 " in (project.root / "logs/light-tts.log").read_text("utf-8")


def test_without_a_model_the_configuration_leaves_it_out(project: Project) -> None:
    done = project.run(DEPLOY)
    assert "using the bundled voice" in done.stderr
    assert "model_dir" not in yaml.safe_load((project.root / "config/production.yaml").read_text("utf-8"))


def test_a_changed_configuration_is_kept_beside_the_new_one(project: Project) -> None:
    project.write("config/production.yaml", "gpt_paral_num: 7\n")
    done = project.run(DEPLOY)
    assert "production.yaml.old" in done.stderr
    assert (project.root / "config/production.yaml.old").read_text("utf-8") == "gpt_paral_num: 7\n"


def test_a_failed_start_shows_the_log_and_leaves_nothing(project: Project) -> None:
    done = project.run(DEPLOY, FAKE_FAILS="1")
    assert done.returncode == 1
    assert "the port is taken" in done.stderr
    assert "ended while it was starting" in done.stderr
    assert not project.pid_file.exists()


def test_a_start_that_takes_too_long_is_given_up(project: Project) -> None:
    done = project.run(DEPLOY, FAKE_HEALTHY_AFTER="1000", LIGHT_TTS_START_TIMEOUT_S="2")
    assert done.returncode == 1
    assert "not healthy within 2 s" in done.stderr
    assert "stub: starting" in done.stderr
    assert not project.pid_file.exists()
    with pytest.raises(ConnectionRefusedError):
        _connect(project.port)


def _connect(port: int) -> None:
    import socket

    socket.create_connection(("127.0.0.1", port), timeout=1).close()


def test_a_taken_port_is_told_before_anything_starts(project: Project, stub: Stub) -> None:
    done = project.run(DEPLOY, PORT=str(stub.server_port))
    assert done.returncode == 1
    assert "something else answers" in done.stderr
    assert not project.pid_file.exists()


def test_a_server_that_died_is_told_and_can_be_started_again(project: Project) -> None:
    assert project.run(DEPLOY).returncode == 0
    pid = _pid(project)
    os.kill(pid, signal.SIGKILL)
    _wait_until_gone(pid)
    status = project.run(DEPLOY, "--status")
    assert status.returncode == 1
    assert "is dead" in status.stdout
    assert project.run(DEPLOY).returncode == 0
    assert _pid(project) != pid


def test_an_unhealthy_server_is_exit_status_1(project: Project) -> None:
    assert project.run(DEPLOY, FAKE_HEALTHY_AFTER="0").returncode == 0
    status = project.run(DEPLOY, "--status", PORT="1")
    assert status.returncode == 1


def test_another_programs_pid_is_not_stopped(project: Project) -> None:
    project.pid_file.parent.mkdir()
    project.pid_file.write_text(f"{os.getppid()}\n", encoding="ascii")
    assert project.run(DEPLOY, "--status").returncode in (0, 1)
    project.pid_file.write_text("1\n", encoding="ascii")
    assert project.run(DEPLOY, "--stop").returncode == 0
    assert psutil.pid_exists(1)


def test_a_server_that_does_not_stop_is_killed(project: Project) -> None:
    run = (project.root / "run.sh").read_text("utf-8").replace('exec "$REAL', "trap '' TERM\n\"$REAL")
    project.write("run.sh", run + "while true; do sleep 0.1; done # run.sh\n", executable=True)
    assert project.run(DEPLOY).returncode == 0
    pid = _pid(project)
    children = psutil.Process(pid).children(recursive=True)
    done = project.run(DEPLOY, "--stop", LIGHT_TTS_STOP_TIMEOUT_S="1")
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    assert done.returncode == 0
    assert "killing it" in done.stderr
    _wait_until_gone(pid)


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("wrong", [["model", "none"], ["model", "2", "0"], ["--restart"]])
def test_wrong_usage_is_refused(project: Project, wrong: list[str]) -> None:
    done = project.run(DEPLOY, *wrong)
    assert done.returncode == 2
    assert not (project.root / "config").exists()


def test_a_missing_model_is_refused(project: Project) -> None:
    done = project.run(DEPLOY, "/nowhere")
    assert done.returncode == 1
    assert "/nowhere does not exist" in done.stderr
    assert not project.pid_file.exists()


def test_help_names_every_variable(project: Project) -> None:
    told = project.run(DEPLOY, "--help").stdout
    for name in (
        "MODEL_DIR",
        "--stop",
        "--status",
        "LIGHT_TTS_PID_FILE",
        "LIGHT_TTS_START_TIMEOUT_S",
        "PORT",
    ):
        assert name in told
