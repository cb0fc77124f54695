"""The HTTP workers as the supervisor sees them: by the sockets in RUN_DIR, whoever started them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from light_tts.messages import Drain, PeerLost, Stage
from light_tts.server.run_dir import http_workers, is_alive
from light_tts.transport import Outbox, address

LOOK_S = 0.5


class HttpWorkers:
    """num_encode: encode processes, told as the LLM process is of a worker's death
    lost: called for each that died in the middle of its life; one that ended well took its socket along
    """

    def __init__(self, run_dir: Path, outbox: Outbox, num_encode: int, lost: Callable[[], None]) -> None:
        self._run_dir = run_dir
        self._outbox = outbox
        self._holders = [address(run_dir, Stage.LLM, 0)]
        self._holders += [address(run_dir, Stage.ENCODE, index) for index in range(num_encode)]
        self._lost = lost
        self._told_to_drain: set[int] = set()
        self._next_look = 0.0
        self.were_ready = False

    def ready(self) -> list[int]:
        """Pids of the workers that listen and answer."""
        pids = [pid for pid in http_workers(self._run_dir) if self._ready_file(pid).exists()]
        self.were_ready |= bool(pids)
        return pids

    def tell(self, message: PeerLost | Drain) -> None:
        for pid in http_workers(self._run_dir):
            self._outbox.send(address(self._run_dir, Stage.HTTP, pid), message)

    def look(self, *, draining: bool) -> None:
        """Twice a second: take away what dead workers left, tell new ones to drain."""
        now = time.monotonic()
        if now < self._next_look and not draining:
            return
        self._next_look = now + LOOK_S
        self._outbox.forget_silent()  # workers that took their socket away themselves
        for pid, path in http_workers(self._run_dir).items():
            if not is_alive(pid):
                self._forget(pid, path)
                if not draining:  # else nobody takes its place
                    self._lost()
            elif draining and pid not in self._told_to_drain:
                self._told_to_drain.add(pid)
                self._outbox.send(address(self._run_dir, Stage.HTTP, pid), Drain())

    def _forget(self, pid: int, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._ready_file(pid).unlink(missing_ok=True)
        self._outbox.forget(address(self._run_dir, Stage.HTTP, pid))
        for holder in self._holders:
            self._outbox.send(holder, PeerLost(Stage.HTTP, pid, pid))

    def _ready_file(self, pid: int) -> Path:
        return self._run_dir / f"{Stage.HTTP.value}-{pid}.ready"
