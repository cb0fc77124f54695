"""What our Gunicorn workers do otherwise than uvicorn's."""

from __future__ import annotations

from gunicorn.util import load_class
from uvicorn import Config

from light_tts.server.worker_class import AudioWorker


def test_gunicorn_finds_it_and_speech_is_not_deflated() -> None:
    assert load_class("light_tts.server.worker_class.AudioWorker") is AudioWorker
    assert Config(app="x:y", **AudioWorker.CONFIG_KWARGS).ws_per_message_deflate is False
