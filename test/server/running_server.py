"""A server of fake processes under a real supervisor, for tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from light_tts.config import ServerConfig
from light_tts.messages import Stage
from light_tts.server.run_dir import http_workers, make_run_dir, remove_run_dir, write_config
from light_tts.server.state import ChildState, ChildStatus, ServerState, read_state

ROOT = Path(__file__).parents[2]
WAIT_S = 30.0


def wait_for(what: str, condition: Callable[[], bool], timeout_s: float = WAIT_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def processes_of(folder: Path) -> list[psutil.Process]:
    """All living ones whose command line or environment names the folder."""
    found = []
    for process in psutil.process_iter():
        try:
            named = any(str(folder) in part for part in process.cmdline())
            if (named or str(folder) in process.environ().values()) and process.status() != "zombie":
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return [process for process in found if process.pid != os.getpid()]


@dataclass(slots=True)
class Server:
    run_dir: Path
    fake_dir: Path
    port: int
    process: subprocess.Popen[str]

    def order(self, stage: Stage, index: int, what: str) -> None:
        (self.fake_dir / f"{stage.value}-{index}").write_text(what, "ascii")

    def state(self) -> ServerState:
        state = read_state(self.run_dir)
        assert state is not None
        return state

    def child(self, stage: Stage, index: int = 0) -> ChildState:
        return next(c for c in self.state().children if (c.stage, c.index) == (stage, index))

    def wait_ready(self) -> None:
        """Until every process is there."""

        def ready() -> bool:
            assert self.process.poll() is None, self.process.communicate()[1]
            state = read_state(self.run_dir)
            return state is not None and bool(state.children) and state.all_ready

        wait_for("all children ready", ready)
        if self.port:
            number = ServerConfig.read(self.run_dir).httpserver_workers
            wait_for("HTTP workers ready", lambda: len(list(self.run_dir.glob("http-*.ready"))) == number)
            time.sleep(0.3)  # the supervisor looks ten times a second

    def wait_replaced(self, stage: Stage, index: int, restarts: int = 1) -> ChildState:
        def replaced() -> bool:
            child = self.child(stage, index)
            return child.restarts >= restarts and child.status is ChildStatus.READY

        wait_for(f"{stage} {index} replaced", replaced)
        return self.child(stage, index)

    def messages(self, name: str) -> list[str]:
        log = self.fake_dir / f"{name}.messages"
        return log.read_text("ascii").splitlines() if log.exists() else []

    def worker_messages(self) -> list[list[str]]:
        return [self.messages(f"http-{pid}") for pid in http_workers(self.run_dir)]

    def get(self, path: str = "/") -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=WAIT_S)

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = WAIT_S) -> tuple[int, str]:
        """Exit status and log."""
        self.process.send_signal(number)
        _, log = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, log

    def assert_nothing_is_left(self) -> None:
        wait_for("no process", lambda: not processes_of(self.run_dir), 10)
        wait_for("no run_dir", lambda: not self.run_dir.exists(), 10)


@contextmanager
def running_server(
    tmp_path: Path,
    *,
    http: bool = False,
    owner: int | None = None,
    orders: dict[str, str] | None = None,
    **options: object,
) -> Iterator[Server]:
    """options: of ServerConfig; orders: for fake stages, by name; owner: pid that it serves.

    It is not waited for. All is killed in the end.
    """
    port = free_port() if http else 0
    # pytest's folders are too long for sockets
    run_dir = make_run_dir(Path(tempfile.mkdtemp(prefix="light-tts-test-")))
    fake_dir = tmp_path / "fake"
    fake_dir.mkdir(parents=True)
    for name, what in (orders or {}).items():
        (fake_dir / name).write_text(what, "ascii")
    defaults: dict[str, object] = {"num_gpus": 0, "log_stats_interval": 0, "port": port or 8080}
    write_config(run_dir, ServerConfig(**{**defaults, **options}, run_dir=run_dir))  # type: ignore[arg-type]
    command = [sys.executable, "-m", "light_tts.server.supervisor", "--run_dir", str(run_dir)]
    command += ["--module", "test.server.fake_stage"]
    command += ["--parent_pid", str(owner)] if owner is not None else []
    command += ["--app", "test.server.fake_app:app"] if http else ["--no_http"]
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "FAKE_DIR": str(fake_dir)}, stderr=subprocess.PIPE, text=True
    )
    try:
        yield Server(run_dir, fake_dir, port, process)
    finally:
        if process.poll() is None:
            process.kill()
            sys.stderr.write(process.communicate()[1])  # shown with a test that fails
        for left in processes_of(run_dir):
            left.kill()
        remove_run_dir(run_dir)
