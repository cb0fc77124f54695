"""A real encode process, in a thread, below a real HTTP worker; nothing behind them."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import uvicorn

from light_tts.child import Control
from light_tts.config import ServerConfig
from light_tts.encode.process import create
from light_tts.server.api_http import create_app
from light_tts.server.state import ChildState, ChildStatus, ServerState, write_state

PATIENCE_S = 20.0


@dataclass
class _Control:
    """Stands in for the supervisor too: keeps its state fresh."""

    run_dir: Path
    config: ServerConfig
    stopping: bool = False
    written_s: float = 0.0

    def beat(self, queued: int, oldest_s: float, running: int) -> None:
        now = time.time()
        if now - self.written_s < 0.3:
            return
        self.written_s = now
        children = tuple(
            ChildState(spec.stage, spec.index, 1000, ChildStatus.READY, now, now)
            for spec in self.config.children()
        )
        write_state(self.run_dir, ServerState(os.getpid(), now, False, now, children))


@contextmanager
def encode_server(**options: object) -> Iterator[str]:
    """`http://127.0.0.1:PORT`. options: of ServerConfig"""
    run_dir = Path(tempfile.mkdtemp(prefix="ltts-"))  # short: sockets have short names
    config = ServerConfig(cpu_threads=1, **options)  # type: ignore[arg-type]
    process = create(config, run_dir, 0)
    control = _Control(run_dir, config)
    control.beat(0, 0.0, 0)
    thread = threading.Thread(target=process.run, args=(cast(Control, control),))
    thread.start()
    app = create_app(config, run_dir)
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", timeout_graceful_shutdown=2)
    )
    web = threading.Thread(target=server.run)
    web.start()
    try:
        end = time.monotonic() + PATIENCE_S
        while not server.started:
            assert time.monotonic() < end, "uvicorn did not start"
            time.sleep(0.005)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        web.join(PATIENCE_S)
        control.stopping = True
        thread.join(PATIENCE_S)
        shutil.rmtree(run_dir)
