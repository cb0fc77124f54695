"""What our Gunicorn workers do otherwise than uvicorn's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from gunicorn.util import load_class
from uvicorn import Config

from light_tts.messages import Synthesize
from light_tts.server.api_http import RUN_DIR_VARIABLE
from light_tts.server.run_dir import write_config
from light_tts.server.worker_class import AudioWorker
from test.server.fake_pipeline import FakePipeline, Step, chunk, fake_pipeline, planned
from test.server.running_server import free_port, wait_for


def test_gunicorn_finds_it_and_speech_is_not_deflated() -> None:
    assert load_class("light_tts.server.worker_class.AudioWorker") is AudioWorker
    assert Config(app="x:y", **AudioWorker.CONFIG_KWARGS).ws_per_message_deflate is False


@contextmanager
def _gunicorn(pipeline: FakePipeline, worker_class: str, port: int) -> Iterator[subprocess.Popen[str]]:
    """A plain one, whose worker is there."""
    write_config(pipeline.run_dir, pipeline.config)
    command = [sys.executable, "-m", "gunicorn", "-w", "1", "-k", worker_class, "-b", f"127.0.0.1:{port}"]
    command += ["--no-control-socket", "light_tts.server.api_http:app"]
    environment = {**os.environ, RUN_DIR_VARIABLE: str(pipeline.run_dir)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        wait_for("worker", lambda: bool(list(pipeline.run_dir.glob("http-*.ready"))))
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=20)


@pytest.mark.parametrize(
    "worker_class",
    [
        "uvicorn.workers.UvicornWorker",  # the deployment guide's
        "uvicorn_worker.UvicornWorker",
        "light_tts.server.worker_class.AudioWorker",
    ],
)
def test_a_worker_ends_at_once_when_gunicorn_is_interrupted(worker_class: str) -> None:
    with fake_pipeline() as pipeline, _gunicorn(pipeline, worker_class, 0) as process:
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        assert time.monotonic() - start < 5


def test_the_kernel_keeps_little_of_what_a_client_has_not_taken() -> None:
    """Else a client that takes all the time would seem to take nothing, while the kernel has enough for it."""

    def script(request: Synthesize) -> list[Step]:
        big: list[Step] = [(0.0, chunk(request, 0, index, num_samples=500_000)) for index in range(10)]
        return [(0.0, planned(request, 1)), *big]

    port, name = free_port(), "light_tts.server.worker_class.AudioWorker"
    with (
        fake_pipeline(script) as pipeline,
        _gunicorn(pipeline, name, port),
        socket.socket() as client,
    ):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port))
        client.sendall(b"GET /inference_zero_shot?tts_text=a&stream=true HTTP/1.1\r\nHost: x\r\n\r\n")

        def waiting() -> float:
            lines = httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
            return float(
                next(line for line in lines if line.startswith("light_tts_audio_waiting_bytes ")).split()[1]
            )

        wait_for("audio", lambda: waiting() >= 9_000_000)
        time.sleep(0.5)
        assert waiting() >= 9_000_000
