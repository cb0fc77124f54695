from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from light_tts.config import ChildSpec
from light_tts.messages import Heartbeat, Ready, Stage, StartFailed
from light_tts.server.children import Child
from light_tts.server.state import ChildStatus

SPEC = ChildSpec(Stage.DECODE, 1, "cpu")


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Child]:
    """Its process sleeps."""
    one = Child(SPEC, tmp_path, os.environ, None)
    monkeypatch.setattr(one, "_command", [sys.executable, "-c", "import time; time.sleep(1000)"])
    yield one
    one.kill()
    one.collect(10)


def heartbeat(pid: int, queued: int = 0, running: int = 0) -> Heartbeat:
    return Heartbeat(Stage.DECODE, 1, pid, time.time(), queued, 0.5, running)


def test_it_becomes_ready_by_its_own_word_alone(child: Child) -> None:
    child.start()
    assert not child.take_ready(Ready(Stage.DECODE, 1, child.pid + 1, {}))  # of the process before
    assert child.state().status is ChildStatus.STARTING
    assert child.take_ready(Ready(Stage.DECODE, 1, child.pid, {"device": "cpu"}))
    assert child.state().status is ChildStatus.READY
    assert child.state().info == {"device": "cpu"}
    assert child.exit_reason() is None


def test_heartbeats_of_an_earlier_process_do_not_count(child: Child) -> None:
    child.start()
    child.last_seen -= 100
    child.take_heartbeat(heartbeat(child.pid + 1, running=1))
    assert (child.silent_s() > 99, child.idle) == (True, True)
    child.take_heartbeat(heartbeat(child.pid, queued=2))
    assert (child.silent_s() < 10, child.idle) == (True, False)
    assert child.state().queued == 2


def test_each_death_makes_it_wait_longer_until_one_start_lasts(child: Child) -> None:
    waits = []
    for _ in range(8):
        child.start()
        child.kill()
        child.collect(10)
        assert child.exit_reason() == "killed by SIGKILL"
        child.bury()
        waits.append(child.restart_at - time.monotonic())
    assert waits == pytest.approx([0.5, 1, 2, 4, 8, 16, 30, 30], abs=0.4)
    assert child.state().restarts == 7
    child.start()
    child.take_ready(Ready(Stage.DECODE, 1, child.pid, {}))
    child.since -= 61
    child.bury()
    assert child.restart_at - time.monotonic() == pytest.approx(0.5, abs=0.4)


def test_what_it_told_before_it_ended_is_the_reason(child: Child) -> None:
    child.start()
    child.take_failure(StartFailed(Stage.DECODE, 1, child.pid, "model_not_found", "no flow.pt"))
    child.kill()
    child.collect(10)
    assert child.exit_reason() == "model_not_found: no flow.pt"
    child.bury()
    child.start()
    assert child.failure is None


@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGRTMIN + 3, "signal")])
def test_any_signal_that_ends_it_is_named(child: Child, number: int, name: str) -> None:
    child.start()
    os.kill(child.pid, number)
    child.collect(10)
    assert f"killed by {name}" in (child.exit_reason() or "")


def test_what_was_known_of_it_ends_with_it(child: Child) -> None:
    child.start()
    child.take_ready(Ready(Stage.DECODE, 1, child.pid, {}))
    child.take_heartbeat(heartbeat(child.pid, queued=5, running=3))
    child.kill_hung()
    assert child.state().status is ChildStatus.HUNG
    child.bury()
    state = child.state()
    assert (state.status, state.queued, state.running) == (ChildStatus.DEAD, 0, 0)
