"""A real server on one of the tiny models, for tests that are about the whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

START_S = 120.0


@dataclass(frozen=True, slots=True)
class LiveServer:
    url: str
    pid: int
    log: Path
    run_dir: Path

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=10, trust_env=False)


@contextmanager
def live_server(model_dir: Path, port: int, *flags: str) -> Iterator[LiveServer]:
    """Started as the guide starts it, and stopped by SIGTERM. Raises AssertionError if it leaves anything behind."""
    with tempfile.TemporaryDirectory(prefix="ops-") as folder:
        run_dir, log = Path(folder) / "run", Path(folder) / "log"
        command = [sys.executable, "-m", "light_tts.server.api_server", "--model_dir", str(model_dir)]
        command += ["--port", str(port), "--run_dir", str(run_dir), *flags]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        server = LiveServer(f"http://127.0.0.1:{port}", process.pid, log, run_dir)
        try:
            wait_until_ready(server, process)
            yield server
            children = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, log.read_text("utf-8")
            gone, alive = psutil.wait_procs(children, timeout=5)
            assert not alive, f"left behind: {alive}; ended: {gone}"
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def wait_until_ready(server: LiveServer, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, f"ended with {process.returncode}:\n{server.log.read_text('utf-8')}"
        try:
            if server.get("/readiness").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"not ready within {START_S} s:\n{server.log.read_text('utf-8')}")
