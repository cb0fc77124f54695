"""What the supervisor does when it is short of something itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from light_tts.config import ServerConfig
from light_tts.server import supervisor as supervisor_module
from light_tts.server.children import Child
from light_tts.server.state import ChildStatus, ServerState, read_state
from light_tts.server.supervisor import Parts, Supervisor


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    """Not running; its children have not been started."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")  # it sets its own, which must not outlive the test
    (tmp_path / "metrics").mkdir()
    one = Supervisor(ServerConfig(num_gpus=0, cpu_threads=1), tmp_path, Parts(app=None))
    yield one
    one._end()


def test_a_child_that_cannot_be_started_is_tried_again_later(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def start(child: Child) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(Child, "start", start)
    supervisor._turn()
    assert {state.status for state in supervisor._fleet.states()} == {ChildStatus.DEAD}
    assert caplog.text.count("cannot be started: [Errno 11]") == 3
    supervisor._turn()
    assert caplog.text.count("cannot be started") == 3, "it waits before it tries again"


def test_a_full_disk_does_not_end_the_server(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def write_state(run_dir: Path, state: ServerState) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(supervisor_module, "write_state", write_state)
        supervisor._write_state(0.0)
    assert "the state cannot be written: [Errno 28]" in caplog.text
    assert read_state(tmp_path) is None
    supervisor._write_state(1.0)
    state = read_state(tmp_path)
    assert state is not None
    assert state.supervisor_pid == os.getpid()
