"""The way of every synthesis route: look whether there is room, read, check, answer."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import Response

from light_tts.errors import LightTTSError
from light_tts.server.audio_stream import AudioResponse
from light_tts.server.body import read_form
from light_tts.server.http_manager import HttpServerManager
from light_tts.server.limits import BODY_IDLE_S, check
from light_tts.server.schemas import SpeechForm


async def speak(manager: HttpServerManager, request: Request, schema: type[SpeechForm]) -> Response:
    """Raises errors of `light_tts.errors` for what cannot be spoken."""
    started_s = time.perf_counter()
    config = manager.config
    try:
        manager.check_door()  # before the body: a full server does not want it
        with manager.arriving():
            form = await read_form(
                request,
                schema,
                max_bytes=round(config.max_body_mb * 1e6),
                idle_s=BODY_IDLE_S,
                total_s=config.request_timeout_s,
            )
        job = form.job()
        check(job.request, job.names, config)
    except LightTTSError as error:
        manager.count_refused(error)
        raise
    return AudioResponse(manager, job, started_s)
