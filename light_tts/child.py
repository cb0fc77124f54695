"""What every child of the supervisor shares: `python -m light_tts.child STAGE --index I --run_dir DIR`."""

from __future__ import annotations

import argparse
import ctypes
import importlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from light_tts.config import ServerConfig
from light_tts.errors import LightTTSError
from light_tts.messages import Heartbeat, Ready, Stage, StartFailed
from light_tts.observe.log import set_up_logging
from light_tts.threads import calm_thread_waits
from light_tts.transport import Outbox, supervisor_address

logger = logging.getLogger(__name__)

BEAT_S = 0.5
EXIT_START_FAILED = 3
_PARENT_POLL_S = 1.0
_PR_SET_PDEATHSIG = 1


class StageProcess(Protocol):
    """What `light_tts.STAGE.process.create` returns: model loaded, inbox bound."""

    def info(self) -> dict[str, str]:
        """What the start-up table and `/metrics` tell of it: device, backend, ..."""
        ...

    def run(self, control: Control) -> None:
        """The main loop: until `control.stopping`, with a `control.beat` at least every 0.5 s, also when idle."""
        ...


@dataclass(frozen=True, slots=True)
class Load:
    """queued: waiting in this process; oldest_s: how long the oldest of them has waited; running: being worked on"""

    queued: int
    oldest_s: float
    running: int


class Control:
    """A child's line to the supervisor. Safe to use from several threads."""

    def __init__(self, run_dir: Path, stage: Stage, index: int) -> None:
        self._supervisor = supervisor_address(run_dir)
        self._stage = stage
        self._index = index
        self._outbox = Outbox()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._next_beat = 0.0

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    def stop(self) -> None:
        self._stop.set()

    def wait(self, timeout_s: float) -> bool:
        """Sleep until it is time to stop, at most so long. Returns `stopping`."""
        return self._stop.wait(timeout_s)

    def beat(self, queued: int = 0, oldest_s: float = 0.0, running: int = 0) -> None:
        """Tell that the main loop turns. Call it as often as you like: twice a second it is sent.

        queued: waiting in this process; oldest_s: how long the oldest of them has waited; running: being worked on
        """
        now = time.monotonic()
        with self._lock:
            if now < self._next_beat:
                return
            self._next_beat = now + BEAT_S
            beat = Heartbeat(self._stage, self._index, os.getpid(), time.time(), queued, oldest_s, running)
            self._outbox.send(self._supervisor, beat)

    def ready(self, info: dict[str, str]) -> None:
        with self._lock:
            self._outbox.send(self._supervisor, Ready(self._stage, self._index, os.getpid(), info))

    def start_failed(self, code: str, message: str) -> None:
        failed = StartFailed(self._stage, self._index, os.getpid(), code, message)
        with self._lock:
            self._outbox.send(self._supervisor, failed)

    def close(self) -> None:
        with self._lock:
            self._outbox.close()


def die_with_parent(parent: int, *, before: Callable[[], None] | None = None) -> None:
    """End this process when its parent `parent` ends, however that happens; `before` is called then.

    The kernel kills it (where there is no `before`); a thread looks as well, for the kernel's signal follows the
    thread that started us and is lost if the parent died before we asked for it.
    """
    if before is None and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    watch = threading.Thread(target=_watch_parent, args=(parent, before), name="watch-parent", daemon=True)
    watch.start()


def _watch_parent(parent: int, before: Callable[[], None] | None) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_POLL_S)
    if before is not None:
        before()
    os.kill(os.getpid(), signal.SIGKILL)


def _create(
    stage: Stage, module: str | None, config: ServerConfig, run_dir: Path, index: int
) -> StageProcess:
    """module: dotted name; each has `create(config, run_dir, index) -> StageProcess`"""
    loaded = importlib.import_module(module or f"light_tts.{stage.value}.process")
    create: Callable[[ServerConfig, Path, int], StageProcess] = loaded.create
    return create(config, run_dir, index)


def _serve(stage: Stage, options: argparse.Namespace, control: Control) -> int:
    try:
        config = ServerConfig.read(options.run_dir)
        set_up_logging(config.log_level, process=f"{stage.value}-{options.index}")
        process = _create(stage, options.module, config, options.run_dir, options.index)
    except (LightTTSError, OSError) as error:
        code = error.code if isinstance(error, LightTTSError) else "os_error"
        logger.error("cannot start: %s: %s", code, error)
        control.start_failed(code, str(error))
        return EXIT_START_FAILED
    except Exception as error:
        logger.exception("cannot start")
        control.start_failed(LightTTSError.code, f"{type(error).__name__}: {error}")
        return EXIT_START_FAILED
    control.ready(process.info())
    process.run(control)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Entry point of a child. Returns the exit status: 0 asked to stop, 3 could not start."""
    parser = argparse.ArgumentParser(prog="light_tts.child", allow_abbrev=False)
    parser.add_argument("stage", type=Stage, choices=[Stage.ENCODE, Stage.LLM, Stage.DECODE])
    parser.add_argument("--index", type=int, required=True)
    parser.add_argument("--run_dir", type=Path, required=True)
    parser.add_argument("--parent_pid", type=int, default=os.getppid())
    parser.add_argument(
        "--module", help="dotted name of a module with create(); default: light_tts.STAGE.process"
    )
    options = parser.parse_args(arguments)
    die_with_parent(options.parent_pid)
    calm_thread_waits()
    control = Control(options.run_dir, options.stage, options.index)
    signal.signal(signal.SIGTERM, lambda *_: control.stop())
    # Ctrl-C reaches the whole process group: whether it means to stop is for the supervisor to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return _serve(options.stage, options, control)
    finally:
        control.close()


if __name__ == "__main__":
    sys.exit(main())
