"""What our Gunicorn workers do otherwise than uvicorn's."""

from __future__ import annotations

import subprocess
import sys

from gunicorn.util import load_class
from uvicorn import Config

from light_tts.server.worker_class import AudioWorker


def test_gunicorn_finds_it_and_speech_is_not_deflated() -> None:
    assert load_class("light_tts.server.worker_class.AudioWorker") is AudioWorker
    assert Config(app="x:y", **AudioWorker.CONFIG_KWARGS).ws_per_message_deflate is False


def test_a_worker_ends_at_once_when_gunicorn_is_interrupted() -> None:
    code = (
        "import asyncio, os, signal\n"
        "from light_tts.server.worker_class import AudioWorker\n"
        "async def main():\n"
        "    AudioWorker._install_sigquit_handler(object.__new__(AudioWorker))\n"
        "    os.kill(os.getpid(), signal.SIGQUIT)\n"
        "    await asyncio.sleep(20)\n"
        "asyncio.run(main())\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=15, check=False).returncode == 0
