from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from light_tts.child import EXIT_START_FAILED, Control
from light_tts.config import ServerConfig
from light_tts.messages import Heartbeat, Ready, Stage, StartFailed, ToSupervisor
from light_tts.server.run_dir import is_alive, write_config
from light_tts.transport import Inbox, supervisor_address
from test.server.running_server import ROOT, wait_for

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="light-tts-test-") as folder:
        write_config(Path(folder), ServerConfig(num_gpus=0))
        yield Path(folder)


@pytest.fixture
def inbox(run_dir: Path) -> Iterator[Inbox[ToSupervisor]]:
    box: Inbox[ToSupervisor] = Inbox(supervisor_address(run_dir), ToSupervisor)  # type: ignore[arg-type]
    yield box
    box.close()


@pytest.fixture
def start(run_dir: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def start_child(order: str = "", module: str = "test.server.fake_stage") -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "light_tts.child", "llm", "--index", "0", "--run_dir", str(run_dir)]
        environment = {**os.environ, "FAKE_DIR": str(run_dir / "orders"), "OMP_NUM_THREADS": "1"}
        (run_dir / "orders").mkdir(exist_ok=True)
        if order:
            (run_dir / "orders" / "llm-0").write_text(order, "ascii")
        child = subprocess.Popen(
            [*command, "--module", module], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
        )
        started.append(child)
        return child

    yield start_child
    for child in started:
        if child.poll() is None:
            child.kill()
        child.communicate()


def test_a_child_says_when_it_is_ready_then_that_it_lives(start: Start, inbox: Inbox[ToSupervisor]) -> None:
    child = start()
    ready = inbox.receive(20)
    assert ready == Ready(Stage.LLM, 0, child.pid, {"device": "fake", "threads": "1"})
    begin = time.monotonic()
    beats = [inbox.receive(5) for _ in range(3)]
    assert 0.8 < time.monotonic() - begin < 3  # twice a second
    assert all(isinstance(beat, Heartbeat) and beat.pid == child.pid for beat in beats)


def test_a_child_stops_when_asked_and_not_at_ctrl_c(start: Start, inbox: Inbox[ToSupervisor]) -> None:
    child = start()
    assert isinstance(inbox.receive(20), Ready)
    child.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.5)
    child.send_signal(signal.SIGTERM)
    _, log = child.communicate(timeout=10)
    assert (child.returncode, log) == (0, "")


@pytest.mark.parametrize(
    ("order", "code", "message"),
    [
        ("fail", "model_not_found", "no llm.pt here"),
        ("crash", "internal_error", "RuntimeError: not foreseen"),
    ],
)
def test_a_child_that_cannot_start_tells_why(
    start: Start, inbox: Inbox[ToSupervisor], order: str, code: str, message: str
) -> None:
    child = start(order)
    assert inbox.receive(20) == StartFailed(Stage.LLM, 0, child.pid, code, message)
    _, log = child.communicate(timeout=10)
    assert child.returncode == EXIT_START_FAILED
    assert message in log
    assert ("Traceback" in log) is (order == "crash")  # what nobody foresaw needs one


def test_a_child_without_a_configuration_tells_why(
    start: Start, inbox: Inbox[ToSupervisor], run_dir: Path
) -> None:
    (run_dir / "config.json").unlink()
    child = start()
    failed = inbox.receive(20)
    assert isinstance(failed, StartFailed)
    assert (failed.code, "config.json" in failed.message) == ("os_error", True)
    assert child.wait(10) == EXIT_START_FAILED


@pytest.mark.parametrize("order", ["", "hang"])
def test_a_child_dies_with_its_parent(run_dir: Path, inbox: Inbox[ToSupervisor], order: str) -> None:
    (run_dir / "orders").mkdir()
    code = (
        "import subprocess, sys, time\n"
        "command = [sys.executable, '-m', 'light_tts.child', 'llm', '--index', '0', '--run_dir', sys.argv[1]]\n"
        "subprocess.Popen([*command, '--module', 'test.server.fake_stage'])\n"
        "time.sleep(1000)\n"
    )
    environment = {**os.environ, "FAKE_DIR": str(run_dir / "orders"), "OMP_NUM_THREADS": "1"}
    parent = subprocess.Popen([sys.executable, "-c", code, str(run_dir)], cwd=ROOT, env=environment)
    try:
        ready = inbox.receive(20)
        assert isinstance(ready, Ready)
        (run_dir / "orders" / "llm-0").write_text(order, "ascii")
        time.sleep(0.2)
    finally:
        parent.kill()
        parent.wait()
    wait_for("the child is gone", lambda: not is_alive(ready.pid), 5)


def test_a_child_that_began_after_its_parents_end_ends_too(run_dir: Path) -> None:
    command = [sys.executable, "-m", "light_tts.child", "llm", "--index", "0", "--run_dir", str(run_dir)]
    command += ["--module", "test.server.fake_stage", "--parent_pid", "1"]  # not the one who started it
    child = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "FAKE_DIR": "/nowhere"}, timeout=20, check=False
    )
    assert child.returncode == -signal.SIGKILL


def test_beats_are_sent_twice_a_second_however_often_it_beats(
    run_dir: Path, inbox: Inbox[ToSupervisor]
) -> None:
    control = Control(run_dir, Stage.DECODE, 3)
    for number in range(1000):
        control.beat(queued=number, oldest_s=1.5, running=2)
    first = inbox.receive(5)
    assert isinstance(first, Heartbeat)
    assert (first.stage, first.index, first.pid) == (Stage.DECODE, 3, os.getpid())
    assert (first.queued, first.oldest_s, first.running) == (0, 1.5, 2)
    assert inbox.receive(0.1) is None
    control.close()


def test_control_waits_until_it_is_time_to_stop(run_dir: Path) -> None:
    control = Control(run_dir, Stage.LLM, 0)
    assert not control.wait(0.01)
    assert not control.stopping
    control.stop()
    assert control.wait(10)
    control.close()
