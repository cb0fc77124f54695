"""A child that crashes is started again, apart from the others; what is told to stop stops."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path

from recipes.mini.children import Child, State, Task, stop_all, tail

ENDS = "pass"
CRASHES = "import sys; print('no such index'); sys.exit(3)"
HANGS = "import time; time.sleep(60)"
STOPS = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); print('ready', flush=True); "
    "time.sleep(60)"
)
IGNORES = STOPS.replace("lambda *_: sys.exit(0)", "signal.SIG_IGN")


def child(
    folder: Path,
    code: str,
    *,
    restarts: int = 0,
    missing: Callable[[Collection[str]], str | None] = lambda _: None,
    finished: bool = False,
) -> Child:
    task = Task("stage", lambda left: [sys.executable, "-c", code, str(left)], missing, lambda: finished)
    return Child(task, folder / "logs" / "stage.log", restarts)


def advance_until(one: Child, state: State, timeout_s: float = 20.0, backoff: bool = False) -> list[str]:
    changes: list[str] = []
    deadline, now = time.monotonic() + timeout_s, 0.0
    while one.state is not state and time.monotonic() < deadline:
        now += 60.0 if backoff else 0.0  # as if a minute had passed
        if change := one.advance(now, 30.0):
            changes.append(change)
        time.sleep(0.02)
    assert one.state is state, changes
    return changes


def wait_for_log(one: Child, text: str) -> None:
    deadline = time.monotonic() + 20
    while text not in tail(one.log, 5) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert text in tail(one.log, 5)


def test_a_child_that_ends_well_is_done(tmp_path: Path) -> None:
    one = child(tmp_path, ENDS)
    assert advance_until(one, State.RUNNING)[0].startswith("stage: started")
    assert advance_until(one, State.DONE) == ["stage: ended"]
    assert one.exit_code == 0


def test_a_crash_is_tried_again_until_there_are_no_restarts_left(tmp_path: Path) -> None:
    one = child(tmp_path, CRASHES, restarts=2)
    changes = advance_until(one, State.FAILED, backoff=True)
    assert sum("started" in change for change in changes) == 3
    assert "exit code 3" in changes[-1]
    assert "no such index" in changes[-1]
    assert one.crashes == 3


def test_a_crashed_child_waits_before_it_starts_again(tmp_path: Path) -> None:
    one = child(tmp_path, CRASHES, restarts=1)
    advance_until(one, State.RUNNING)
    advance_until(one, State.WAITING)
    assert one.advance(0.0, 30.0) is None
    assert one.is_busy(0.0)
    assert one.advance(31.0, 30.0) is not None
    one.kill()


def test_a_task_waits_for_what_it_needs(tmp_path: Path) -> None:
    one = child(tmp_path, ENDS, missing=lambda done: None if "codes" in done else "no codes")
    assert one.advance(0.0, 30.0) is None
    assert one.waits_for == "no codes"
    assert not one.is_busy(0.0)
    assert one.advance(0.0, 30.0, {"codes"}) is not None
    one.kill()


def test_a_finished_task_is_never_started(tmp_path: Path) -> None:
    one = child(tmp_path, CRASHES, finished=True)
    one.advance(0.0, 30.0)
    assert one.state is State.DONE
    assert not one.log.exists()


def test_nothing_starts_without_time(tmp_path: Path) -> None:
    one = child(tmp_path, ENDS)
    assert one.advance(0.0, 0.0) is None
    assert one.state is State.WAITING


def test_a_child_is_told_how_long_it_has(tmp_path: Path) -> None:
    one = child(tmp_path, "import sys; print('left', sys.argv[1])")
    advance_until(one, State.DONE)
    assert tail(one.log, 1) == "left 30.0"


def test_all_are_asked_to_stop_and_the_deaf_are_killed(tmp_path: Path) -> None:
    polite, deaf = child(tmp_path / "a", STOPS), child(tmp_path / "b", IGNORES)
    for one in (polite, deaf):
        advance_until(one, State.RUNNING)
        wait_for_log(one, "ready")
    start = time.monotonic()
    stop_all([polite, deaf], start + 1.0)
    assert time.monotonic() - start < 10
    assert (polite.state, polite.exit_code) == (State.DONE, 0)
    assert (deaf.state, deaf.exit_code) == (State.FAILED, -9)


def test_what_a_child_started_ends_with_it(tmp_path: Path) -> None:
    beat = tmp_path / "beat"
    grandchild = f"import time\nwhile True: open({str(beat)!r}, 'a').write('x'); time.sleep(0.02)"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {grandchild!r}]); sys.exit(1)"
    one = child(tmp_path, code)
    advance_until(one, State.FAILED)
    time.sleep(0.3)
    before = beat.stat().st_size if beat.exists() else 0
    time.sleep(0.3)
    assert (beat.stat().st_size if beat.exists() else 0) == before


def test_a_missing_log_has_no_end(tmp_path: Path) -> None:
    assert tail(tmp_path / "none.log", 3) == ""
