"""One child of the supervisor: its process, and what is known of its state."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from light_tts.config import ChildSpec
from light_tts.messages import Heartbeat, Ready, StartFailed
from light_tts.server.state import ChildState, ChildStatus

FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.5, 30.0
FORGIVEN_AFTER_S = 60.0  # a process that was ready for so long starts again without a longer wait


class Child:
    """Starts as dead, to be started at once. Times are `time.monotonic()` but for those in `state`."""

    def __init__(
        self, spec: ChildSpec, run_dir: Path, environment: Mapping[str, str], module: str | None
    ) -> None:
        self.spec = spec
        self.name = f"{spec.stage.value}-{spec.index}"
        self.status = ChildStatus.DEAD
        self.since = time.monotonic()
        self.restart_at = 0.0
        self.restarts = -1
        self.last_seen = 0.0
        self.beat: Heartbeat | None = None
        self.info: dict[str, str] = {}
        self.failure: StartFailed | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._environment = dict(environment)
        self._backoff_s = FIRST_BACKOFF_S
        self._wall_since = time.time()
        self._command = [
            sys.executable,
            "-m",
            "light_tts.child",
            spec.stage.value,
            "--index",
            str(spec.index),
        ]
        self._command += ["--run_dir", str(run_dir), "--parent_pid", str(os.getpid())]
        self._command += ["--module", module] if module else []

    @property
    def pid(self) -> int:
        """0 before the first start."""
        return self._process.pid if self._process is not None else 0

    @property
    def idle(self) -> bool:
        """Whether its last heartbeat told of nothing that waits or runs."""
        return self.beat is None or self.beat.queued + self.beat.running == 0

    def start(self) -> None:
        """In a session of its own, so that Ctrl-C reaches the supervisor alone."""
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdin=subprocess.DEVNULL, start_new_session=True
        )
        self.restarts += 1
        self.beat, self.failure, self.info = None, None, {}
        self._become(ChildStatus.STARTING)

    def take_ready(self, message: Ready) -> bool:
        """False: it is a message of an earlier process."""
        if message.pid != self.pid or self.status is not ChildStatus.STARTING:
            return False
        self.info = message.info
        self._become(ChildStatus.READY)
        return True

    def take_heartbeat(self, message: Heartbeat) -> None:
        if message.pid == self.pid:
            self.beat, self.last_seen = message, time.monotonic()

    def take_failure(self, message: StartFailed) -> bool:
        """False: it is a message of an earlier process."""
        if message.pid == self.pid:
            self.failure = message
        return message.pid == self.pid

    def exit_reason(self) -> str | None:
        """Why it ended; None while it lives."""
        code = self._process.poll() if self._process is not None else 0
        if code is None:
            return None
        if self.failure is not None:
            return f"{self.failure.code}: {self.failure.message}"
        if code >= 0:
            return f"exit status {code}"
        named = -code in set(signal.Signals)  # not each real-time signal is
        return f"killed by {signal.Signals(-code).name if named else f'signal {-code}'}"

    def silent_s(self) -> float:
        """How long it has told nothing: of its life when ready, of its start when starting."""
        return time.monotonic() - self.last_seen

    def kill_hung(self) -> None:
        self._become(ChildStatus.HUNG)
        self.kill()

    def bury(self) -> None:
        """It has ended: wait with the next start, longer each time until one lasts."""
        if self.status is not ChildStatus.STARTING and time.monotonic() - self.since > FORGIVEN_AFTER_S:
            self._backoff_s = FIRST_BACKOFF_S
        self.restart_at = time.monotonic() + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, MAX_BACKOFF_S)
        self.beat = None
        self._become(ChildStatus.DEAD)

    def terminate(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    def collect(self, timeout_s: float) -> bool:
        """Wait for its end. False: it lives on."""
        if self._process is None:
            return True
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def state(self) -> ChildState:
        beat = self.beat
        return ChildState(
            stage=self.spec.stage,
            index=self.spec.index,
            pid=self.pid,
            status=self.status,
            since=self._wall_since,
            last_heartbeat=beat.time_s if beat is not None else 0.0,
            queued=beat.queued if beat is not None else 0,
            oldest_s=beat.oldest_s if beat is not None else 0.0,
            running=beat.running if beat is not None else 0,
            restarts=max(0, self.restarts),
            info=self.info,
        )

    def _become(self, status: ChildStatus) -> None:
        self.status = status
        self.since = self.last_seen = time.monotonic()
        self._wall_since = time.time()
