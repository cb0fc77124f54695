"""Gunicorn as a child of the supervisor: `python -m light_tts.server.gunicorn_app --run_dir DIR`."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gunicorn.app.base import BaseApplication

from light_tts.child import die_with_parent
from light_tts.config import ServerConfig
from light_tts.observe.log import set_up_logging
from light_tts.server.run_dir import remove_run_dir

if TYPE_CHECKING:
    from gunicorn.arbiter import Arbiter
    from gunicorn.workers.base import Worker

APP = "light_tts.server.api_http:app"
# Of the package uvicorn-worker, the successor of the deployment guide's uvicorn.workers.
WORKER_CLASS = "light_tts.server.worker_class.AudioWorker"
BACKLOG = 2048


class Application(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """Workers import the application themselves, after the fork: what it opens belongs to one process."""

    def __init__(self, config: ServerConfig, app: str) -> None:
        self._config = config
        self._app = app
        super().__init__(prog="light-tts")

    def load_config(self) -> None:
        for name, value in settings(self._config).items():
            self.cfg.set(name, value)

    def load(self) -> object:
        module, _, name = self._app.partition(":")
        return vars(importlib.import_module(module))[name]


def settings(config: ServerConfig) -> dict[str, object]:
    """Gunicorn's settings by name."""
    host = f"[{config.host}]" if ":" in config.host else config.host
    level = config.log_level

    def after_fork(_: Arbiter, worker: Worker) -> None:
        # The kernel's signal: a worker of uvicorn does not notice that Gunicorn was killed.
        die_with_parent(worker.ppid)
        set_up_logging(level, process=f"http-{os.getpid()}")

    return {
        "bind": f"{host}:{config.port}",
        "workers": config.httpserver_workers,
        "worker_class": WORKER_CLASS,
        "timeout": config.worker_timeout_s,
        "graceful_timeout": max(1, round(config.drain_timeout_s)),
        "keepalive": config.keep_alive_s,
        "backlog": BACKLOG,
        "loglevel": "debug" if level == "DEBUG" else "warning",  # the supervisor tells of starts and ends
        "accesslog": None,
        "proc_name": "light-tts",
        "control_socket_disable": True,
        "post_fork": after_fork,
    }


class GunicornProcess:
    """What the supervisor holds of it."""

    def __init__(self, run_dir: Path, environment: dict[str, str], app: str = APP) -> None:
        self._command = [sys.executable, "-m", "light_tts.server.gunicorn_app", "--run_dir", str(run_dir)]
        self._command += ["--parent_pid", str(os.getpid()), "--app", app]
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdin=subprocess.DEVNULL, start_new_session=True
        )

    def exit_status(self) -> int | None:
        """None while it lives."""
        return self._process.poll() if self._process is not None else 0

    def send(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """With its workers: they are of its session."""
        if self._process is not None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                return
            self._process.wait()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="light_tts.server.gunicorn_app", allow_abbrev=False)
    parser.add_argument("--run_dir", type=Path, required=True)
    parser.add_argument("--parent_pid", type=int, required=True)
    parser.add_argument("--app", default=APP)
    options = parser.parse_args(arguments)
    # When even the supervisor was killed, somebody has to take its folder away.
    die_with_parent(options.parent_pid, before=lambda: remove_run_dir(options.run_dir))
    config = ServerConfig.read(options.run_dir)
    set_up_logging(config.log_level, process="gunicorn")
    Application(config, options.app).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
