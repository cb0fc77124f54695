"""A whole server as users start it, and proof that nothing of it stays behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from light_tts.messages import Stage
from light_tts.server.run_dir import http_workers
from light_tts.server.state import ChildState, ChildStatus, ServerState, read_state

ROOT = Path(__file__).parents[2]
START_S = 120.0
STOP_S = 60.0
CALL_S = 10.0
GAUGES = ("light_tts_queue_size", "light_tts_running", "lightllm_queue_size", "lightllm_batch_current_size")


def wait_for(what: str, condition: Callable[[], bool], timeout_s: float) -> float:
    """How long it took. Raises AssertionError after timeout_s."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < timeout_s, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.05)
    return time.monotonic() - start


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def processes_of(run_dir: Path) -> list[psutil.Process]:
    """All living ones whose command line or environment names the folder."""
    found = []
    for process in psutil.process_iter():
        try:
            named = any(str(run_dir) in part for part in process.cmdline())
            if (named or str(run_dir) in process.environ().values()) and process.status() != "zombie":
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return [process for process in found if process.pid != os.getpid()]


def shared_memory() -> set[str]:
    return set(os.listdir("/dev/shm"))


@dataclass(slots=True)
class Server:
    """pids: of all processes that were ever seen"""

    port: int
    run_dir: Path
    log_file: Path
    process: subprocess.Popen[bytes]
    pids: set[int] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self.log_file.read_text("utf-8", "replace")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=CALL_S, trust_env=False)

    def readiness(self) -> int:
        """Its status; 0 where nobody answers."""
        try:
            return self.get("/readiness").status_code
        except httpx.TransportError:
            return 0

    def wait_ready(self, timeout_s: float = START_S) -> float:
        """Until every process is there, and a worker says so."""

        def ready() -> bool:
            assert self.alive, f"ended with {self.process.returncode}:\n{self.log}"
            state = read_state(self.run_dir)
            return state is not None and state.all_ready and self.readiness() == 200

        took_s = wait_for(f"ready; log:\n{self.log[-3000:]}", ready, timeout_s)
        self.pids |= {process.pid for process in processes_of(self.run_dir)}
        return took_s

    def state(self) -> ServerState:
        state = read_state(self.run_dir)
        assert state is not None
        return state

    def child(self, stage: Stage, index: int = 0) -> ChildState:
        return next(c for c in self.state().children if (c.stage, c.index) == (stage, index))

    def workers(self) -> list[int]:
        return list(http_workers(self.run_dir))

    def gunicorn(self) -> int:
        """Pid of the master."""
        return psutil.Process(self.workers()[0]).ppid()

    def wait_replaced(self, stage: Stage, index: int, old: int, timeout_s: float) -> float:
        def replaced() -> bool:
            child = self.child(stage, index)
            return child.pid != old and child.status is ChildStatus.READY

        return wait_for(f"{stage.value}-{index} replaced; log:\n{self.log[-3000:]}", replaced, timeout_s)

    def gauges(self) -> dict[str, float]:
        """Everything that counts work which is there now, by name and labels."""
        found = {}
        for line in self.get("/metrics").text.splitlines():
            name, _, value = line.rpartition(" ")
            if name.startswith(GAUGES) or name == 'light_tts_kv_tokens{state="used"}':
                found[name] = float(value)
        return found

    def metric(self, name: str) -> float:
        """A sample by its name and labels; 0 where there is none."""
        for line in self.get("/metrics").text.splitlines():
            sample, _, value = line.rpartition(" ")
            if sample == name:
                return float(value)
        return 0.0

    def wait_idle(self, timeout_s: float = 20.0) -> None:
        """Until no process has work left: no slot is lost."""

        def idle() -> bool:
            gauges = self.gauges()
            assert len(gauges) >= 9, f"gauges are missing: {gauges}"
            return not any(gauges.values())

        try:
            wait_for("gauges at zero", idle, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.gauges()}") from error

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = STOP_S) -> int:
        """The exit status, once nothing is left."""
        self.pids |= {process.pid for process in processes_of(self.run_dir)}
        self.process.send_signal(number)
        status = self.process.wait(timeout_s)
        self.assert_nothing_is_left()
        return status

    def assert_nothing_is_left(self, timeout_s: float = 10.0) -> None:
        """No process, no folder with sockets, no port, no shared memory."""
        try:
            wait_for("no process", lambda: not processes_of(self.run_dir), timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}: {processes_of(self.run_dir)}") from error
        wait_for("no run_dir", lambda: not self.run_dir.exists(), timeout_s)
        wait_for("the port is free", lambda: port_is_free(self.port), timeout_s)
        ours = {name for name in shared_memory() if self.pids & set(map(int, re.findall(r"\d+", name)))}
        assert not ours, f"shared memory is left: {ours}"


@contextmanager
def running_server(*flags: str, ready: bool = True, threads: int = 1) -> Iterator[Server]:
    """Stopped by SIGTERM where the test has not ended it; raises AssertionError if it leaves anything behind."""
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        run_dir, log = Path(folder) / "run", Path(folder) / "log"
        port = free_port()
        command = [sys.executable, "-m", "light_tts.server.api_server", "--port", str(port)]
        command += ["--run_dir", str(run_dir), *flags]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, env=environment
            )
        server = Server(port, run_dir, log, process)
        try:
            if ready:
                server.wait_ready()
            yield server
            if server.alive:
                assert server.stop() == 0, server.log[-5000:]
        except BaseException:
            sys.stderr.write(server.log[-8000:])  # shown with a test that fails
            raise
        finally:
            if server.alive:
                process.kill()
                process.wait()
            for left in processes_of(run_dir):
                left.kill()
