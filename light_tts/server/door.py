"""Whether one more request may come in, decided before any work is done for it."""

from __future__ import annotations

import math
import time
from pathlib import Path

from light_tts.config import ServerConfig
from light_tts.errors import Overloaded, Unavailable
from light_tts.messages import Stage
from light_tts.server.state import ServerState, read_state

_REREAD_S = 0.1
STAGES = (Stage.ENCODE, Stage.LLM, Stage.DECODE)


class Door:
    """An HTTP worker's view of the whole: its share of the places, and which processes are ready."""

    def __init__(self, config: ServerConfig, run_dir: Path) -> None:
        self.places = math.ceil(config.pending_limit / config.httpserver_workers)
        self.draining = False
        self._run_dir = run_dir
        self._state: ServerState | None = None
        self._read_s = -math.inf
        self._lost_pids: set[int] = set()

    def state(self) -> ServerState | None:
        """What the supervisor wrote last; None if it is gone, or not there yet."""
        now = time.monotonic()
        if now - self._read_s > _REREAD_S:
            self._state = read_state(self._run_dir)  # a few kilobytes, out of the page cache
            self._read_s = now
        return self._state if self._state is not None and self._state.is_fresh() else None

    def lose(self, pid: int) -> None:
        """The supervisor says that a process is gone, perhaps before it has written so; or long after that, when
        another process has its place.
        """
        self._lost_pids.add(pid)
        self._read_s = -math.inf
        if (state := self.state()) is not None:
            self._lost_pids.intersection_update(child.pid for child in state.children)

    def ready(self, stage: Stage) -> list[int]:
        """Indices of the processes that are ready."""
        state = self.state()
        if state is None:
            return []
        return [child.index for child in state.ready(stage) if child.pid not in self._lost_pids]

    def check(self, num_pending: int) -> None:
        """Raises Unavailable or Overloaded."""
        state = self.state()
        if state is None:
            raise Unavailable("the server is not supervised at the moment: nothing is accepted")
        if self.draining or state.draining:
            raise Unavailable("the server is stopping: nothing more is accepted")
        for stage in STAGES:
            if not self.ready(stage):
                raise Unavailable(f"no {stage.value} process is ready at the moment")
        if num_pending >= self.places:
            raise Overloaded(
                f"the server is full: {num_pending} requests are in work here, limit {self.places} (--max_pending)"
            )
