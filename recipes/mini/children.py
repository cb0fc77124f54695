"""Child processes of a run: each with its own log and its own fate."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

Command = Callable[[float], Sequence[str]]
Missing = Callable[[Collection[str]], str | None]


class State(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Task:
    """Something that a run does in a process of its own.

    command: from the seconds that it may take, what to start
    missing: from the names of the tasks that are over, well or not, what it waits for, in words; None if it can start
    finished: whether there is nothing left to do, now and in later runs
    """

    name: str
    command: Command
    missing: Missing
    finished: Callable[[], bool]


@dataclass(slots=True)
class Child:
    """A task's process, restarted after a crash while `restarts` are left."""

    task: Task
    log: Path
    restarts: int
    state: State = State.WAITING
    crashes: int = 0
    exit_code: int | None = None
    waits_for: str | None = None
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _not_before: float = 0.0

    def advance(self, now: float, left_s: float, over: Collection[str] = ()) -> str | None:
        """Look after the process: start it, or see how it ended. Returns what changed, in words, for the log.

        now: seconds, monotonic; left_s: that a process started now may take, none is started without;
        over: names of the tasks that are done or failed
        """
        if self.state is State.RUNNING:
            return self._look(now)
        if self.state is not State.WAITING or now < self._not_before or left_s <= 0:
            return None
        if self.task.finished():
            self.state = State.DONE
            return f"{self.task.name}: nothing left to do"
        self.waits_for = self.task.missing(over)
        if self.waits_for is not None:
            return None
        return self._start(left_s)

    def is_busy(self, now: float) -> bool:
        """Whether it runs, or will start again without waiting for another task."""
        return self.state is State.RUNNING or (self.state is State.WAITING and now < self._not_before)

    def _start(self, left_s: float) -> str:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.task.command(left_s),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=Path(__file__).parents[2],
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
                start_new_session=True,  # a process group of its own: what it starts ends with it
            )
        self.state = State.RUNNING
        return f"{self.task.name}: started, process {self._process.pid}"

    def _look(self, now: float) -> str | None:
        assert self._process is not None, "a running child has a process"
        self.exit_code = self._process.poll()
        if self.exit_code is None:
            return None
        self._signal(signal.SIGKILL)  # what it may have left behind
        name = self.task.name
        if self.exit_code == 0:
            self.state = State.DONE
            return f"{name}: ended"
        self.crashes += 1
        end = tail(self.log, 3)
        if self.crashes > self.restarts:
            self.state = State.FAILED
            return f"{name}: failed for good with exit code {self.exit_code}: {end}"
        self.state = State.WAITING
        self._not_before = now + min(30.0, 2.0**self.crashes)
        return f"{name}: crashed with exit code {self.exit_code}, will start again: {end}"

    def ask_to_stop(self) -> None:
        """SIGTERM to the process itself: it saves a checkpoint and ends."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        """End the process and all that it started, at once."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self.exit_code = self._process.wait()
            if self.state is State.RUNNING:
                self.state = State.FAILED

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return  # all of the group are gone


def stop_all(children: Sequence[Child], deadline: float) -> None:
    """Ask all to stop, and kill what still runs at `deadline` (monotonic seconds)."""
    running = [child for child in children if child.state is State.RUNNING]
    for child in running:
        child.ask_to_stop()
    for child in running:
        while child.state is State.RUNNING and time.monotonic() < deadline:
            child.advance(time.monotonic(), 0.0)
            time.sleep(0.05)
    for child in running:
        if child.state is State.RUNNING:
            child.kill()


def tail(path: Path, lines: int) -> str:
    """The last lines of a log, as one line."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4096))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    return " | ".join(line.strip() for line in text.splitlines()[-lines:])
