"""Owns life and death of the server's processes. Headless, for `wsgi_wrapper`:
`python -m light_tts.server.supervisor --run_dir DIR --parent_pid PID --no_http`.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import FrameType

from light_tts.config import ServerConfig
from light_tts.messages import Stage
from light_tts.observe.log import set_up_logging
from light_tts.observe.metrics import METRICS_FOLDER
from light_tts.observe.multiprocess import MULTIPROC_DIR
from light_tts.server.fleet import STOP_GRACE_S, Fleet, StartError
from light_tts.server.gauges import Gauges
from light_tts.server.gunicorn_app import APP, GunicornProcess
from light_tts.server.http_workers import HttpWorkers
from light_tts.server.run_dir import is_alive, own_run_dir, remove_run_dir
from light_tts.server.state import ServerState, write_state
from light_tts.threads import calm_thread_waits
from light_tts.transport import Outbox

logger = logging.getLogger(__name__)

STATE_S = 0.5
SAME_SIGNAL_S = 0.5  # one stop request may arrive twice: to the process and to its group
HTTP_BACKOFF_S = 1.0


class Stop(IntEnum):
    """What was asked for; more is more urgent."""

    NO = 0
    DRAIN = 1
    AT_ONCE = 2
    KILL = 3


@dataclass(frozen=True, slots=True)
class Parts:
    """What is started. module: serves all stages in place of ours, for tests; app: None: no HTTP"""

    module: str | None = None
    app: str | None = APP


class Supervisor:
    """One per server; `run` is its life. To be used from the main thread: children die with the thread that
    started them.
    """

    def __init__(self, config: ServerConfig, run_dir: Path, parts: Parts, parent: int | None = None) -> None:
        """parent: ends when this process ends"""
        environment = child_environment(config, run_dir)
        os.environ[MULTIPROC_DIR] = environment[MULTIPROC_DIR]  # for our own gauges
        self._config = config
        self._run_dir = run_dir
        self._parent = parent
        self._http = GunicornProcess(run_dir, environment, parts.app) if parts.app is not None else None
        self._http_restart_at: float | None = None
        self._outbox = Outbox()
        self._gauges = Gauges(config, run_dir / METRICS_FOLDER)
        self._workers = HttpWorkers(
            run_dir,
            self._outbox,
            config.encode_process_num,
            lost=lambda: self._gauges.count_restart(Stage.HTTP),
        )
        self._fleet = Fleet(
            config, run_dir, environment, parts.module, self._outbox, self._workers, self._gauges
        )
        self._stop = Stop.NO
        self._stop_since = 0.0
        self._started = time.time()
        self._draining = False
        self._written = 0.0

    def run(self) -> None:
        """Start everything, keep it alive until a signal says stop, end everything. Raises StartError."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        try:
            self._start()
            while self._stop is Stop.NO:
                self._turn()
            if self._stop is Stop.DRAIN:
                self._drain()
        finally:
            self._end()

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        asked = Stop.DRAIN if number == signal.SIGTERM else Stop.AT_ONCE
        if self._stop is Stop.NO:
            self._stop, self._stop_since = asked, time.monotonic()
        elif time.monotonic() - self._stop_since > SAME_SIGNAL_S or asked > self._stop:
            self._stop = Stop.KILL

    def _start(self) -> None:
        self._fleet.start()
        while not self._fleet.all_ready:
            if self._stop is not Stop.NO:
                return
            self._turn(starting=True)
        if self._http is None:
            self._write_state(time.monotonic())
            return
        self._http.start()
        while not self._workers.ready():
            if self._stop is not Stop.NO:
                return
            if self._http.exit_status() is not None:
                raise StartError("Gunicorn ended before an HTTP worker was ready, see its messages above")
            self._turn()
        logger.info("serving at http://%s:%d", self._config.host, self._config.port)

    def _turn(self, *, starting: bool = False) -> None:
        self._fleet.turn(starting=starting)
        now = time.monotonic()
        self._look_after_http(now)
        self._workers.look(draining=self._draining)
        if self._fleet.changed or now - self._written >= STATE_S:
            self._write_state(now)
        if self._parent is not None and self._stop is Stop.NO and not is_alive(self._parent):
            self._stop = Stop.AT_ONCE

    def _look_after_http(self, now: float) -> None:
        if self._http is None or self._stop is not Stop.NO:
            return
        if self._http_restart_at is not None:
            if now >= self._http_restart_at:
                self._http_restart_at = None
                self._http.start()
            return
        if not self._workers.were_ready or self._http.exit_status() is None:
            return
        logger.error("Gunicorn has ended with status %s, starting it again", self._http.exit_status())
        self._http.kill()  # workers that it left
        self._gauges.count_restart(Stage.HTTP)
        self._http_restart_at = now + HTTP_BACKOFF_S

    def _write_state(self, now: float) -> None:
        states = self._fleet.states()
        state = ServerState(os.getpid(), self._started, self._draining, time.time(), states)
        try:
            write_state(self._run_dir, state)
        except OSError as error:  # a full disk: HTTP workers refuse requests until there is room again
            logger.error("the state cannot be written: %s", error)
        self._written = now
        self._fleet.changed = False
        self._gauges.update(states, now)

    def _drain(self) -> None:
        logger.info("draining: what is accepted may take %g s to finish", self._config.drain_timeout_s)
        self._draining = True
        start = time.monotonic()
        until = start + self._config.drain_timeout_s
        self._write_state(start)
        self._turn_until(lambda: self._fleet.idle_since(start), until)
        if self._http is not None and self._stop is Stop.DRAIN:
            self._http.send(signal.SIGTERM)  # its workers finish what they are sending
            self._turn_until(lambda: not self._http_lives(), max(until, time.monotonic() + STOP_GRACE_S))

    def _turn_until(self, done: Callable[[], bool], until: float) -> None:
        while not done() and self._stop is Stop.DRAIN and time.monotonic() < until:
            self._turn()

    def _http_lives(self) -> bool:
        return self._http is not None and self._http.exit_status() is None

    def _end(self) -> None:
        """Leaves no process and no file."""
        grace_s = 0.0 if self._stop is Stop.KILL else STOP_GRACE_S
        if self._http_lives() and self._http is not None:
            self._http.send(signal.SIGQUIT)
            deadline = time.monotonic() + min(grace_s, 1.0)
            while self._http_lives() and time.monotonic() < deadline:
                time.sleep(0.02)
        if self._http is not None:
            self._http.kill()
        self._fleet.stop(grace_s)
        self._outbox.close(linger_s=0)
        remove_run_dir(self._run_dir)
        logger.info("stopped")


def child_environment(config: ServerConfig, run_dir: Path) -> dict[str, str]:
    """What children inherit, besides all that we inherited: CUDA_VISIBLE_DEVICES is for the user to set."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(config.threads_per_process),
        "LIGHT_TTS_RUN_DIR": str(run_dir),
        MULTIPROC_DIR: str(run_dir / METRICS_FOLDER),
    }


def main(arguments: list[str] | None = None) -> int:
    """Supervise what RUN_DIR/config.json describes. Returns the exit status: 0 asked to stop, 1 could not start."""
    parser = argparse.ArgumentParser(prog="light_tts.server.supervisor", allow_abbrev=False)
    parser.add_argument("--run_dir", type=Path, required=True)
    parser.add_argument("--parent_pid", type=int, help="end when this process ends")
    parser.add_argument("--no_http", action="store_true", help="HTTP workers are somebody else's")
    parser.add_argument(
        "--module", help="dotted name of a module with create(), in place of every stage's own"
    )
    parser.add_argument("--app", default=APP, help="MODULE:NAME of the application that HTTP workers serve")
    options = parser.parse_args(arguments)
    calm_thread_waits()
    config = ServerConfig.read(options.run_dir)
    set_up_logging(config.log_level, process="supervisor")
    own_run_dir(options.run_dir)
    parts = Parts(options.module, None if options.no_http else options.app)
    try:
        Supervisor(config, options.run_dir, parts, options.parent_pid).run()
    except StartError as error:
        logger.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
