"""RUN_DIR/state.json: what the supervisor knows of its children, for every HTTP worker to read."""

from __future__ import annotations

import os
import time
from enum import StrEnum
from pathlib import Path

import msgspec

from light_tts.messages import Stage

STALE_S = 3.0  # the supervisor writes twice a second: after so long it is gone or hangs
FILE_NAME = "state.json"


class ChildStatus(StrEnum):
    STARTING = "starting"
    READY = "ready"
    HUNG = "hung"
    DEAD = "dead"


class ChildState(msgspec.Struct, frozen=True):
    """since, last_heartbeat: `time.time()`; queued, oldest_s, running: of its last heartbeat"""

    stage: Stage
    index: int
    pid: int
    status: ChildStatus
    since: float
    last_heartbeat: float
    queued: int = 0
    oldest_s: float = 0.0
    running: int = 0
    restarts: int = 0
    info: dict[str, str] = {}


class ServerState(msgspec.Struct, frozen=True):
    """started, written: `time.time()`; draining: what is accepted finishes, nothing more is accepted"""

    supervisor_pid: int
    started: float
    draining: bool
    written: float
    children: tuple[ChildState, ...] = ()

    def is_fresh(self, now: float | None = None) -> bool:
        """False: nobody supervises any more, and the rest of this says nothing about now."""
        return (time.time() if now is None else now) - self.written <= STALE_S

    def ready(self, stage: Stage) -> list[ChildState]:
        return [
            child for child in self.children if child.stage is stage and child.status is ChildStatus.READY
        ]

    @property
    def all_ready(self) -> bool:
        return all(child.status is ChildStatus.READY for child in self.children)

    @property
    def serves(self) -> bool:
        """Whether a request could be answered: at least one process of each stage is ready."""
        return all(self.ready(stage) for stage in {child.stage for child in self.children})


def write_state(run_dir: Path, state: ServerState) -> None:
    """Atomic: a reader sees the old or the new one whole."""
    temporary = run_dir / f".{FILE_NAME}.tmp"
    temporary.write_bytes(msgspec.json.encode(state))
    os.replace(temporary, run_dir / FILE_NAME)


def read_state(run_dir: Path) -> ServerState | None:
    """None if there is no supervisor, or none yet."""
    try:
        return msgspec.json.decode((run_dir / FILE_NAME).read_bytes(), type=ServerState)
    except (OSError, msgspec.DecodeError):
        return None
