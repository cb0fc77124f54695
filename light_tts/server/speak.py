"""The way of every synthesis route: look whether there is room, read, check, answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from light_tts.errors import LightTTSError
from light_tts.server.audio_stream import AudioResponse
from light_tts.server.body import read_form
from light_tts.server.http_manager import HttpServerManager
from light_tts.server.limits import BODY_IDLE_S, check
from light_tts.server.schemas import SpeechForm, SpeechJob, SynthesisFields

S = TypeVar("S", bound=SynthesisFields)
B = TypeVar("B", bound=BaseModel)


async def speak(manager: HttpServerManager, request: Request, schema: type[SpeechForm]) -> Response:
    """Raises errors of `light_tts.errors` for what cannot be spoken."""
    started_s = time.perf_counter()
    job = await read_job(manager, request, schema, lambda form: form.job())
    return AudioResponse(manager, job, started_s)


async def read_job(
    manager: HttpServerManager, request: Request, schema: type[S], to_job: Callable[[S], SpeechJob]
) -> SpeechJob:
    """What the body asks for, checked. Raises errors of `light_tts.errors`, and counts the request as refused."""
    with counting_refusal(manager):
        job = to_job(await read_body(manager, request, schema))
        check(job.request, job.names, manager.config)
    return job


@contextmanager
def counting_refusal(manager: HttpServerManager) -> Iterator[None]:
    """What fails within was not accepted."""
    try:
        yield
    except LightTTSError as error:
        manager.count_refused(error)
        raise


async def read_body(manager: HttpServerManager, request: Request, schema: type[B]) -> B:
    """The body's fields, unless there is no room for a request. Raises errors of `light_tts.errors`."""
    config = manager.config
    manager.check_door()  # before the body: a full server does not want it
    with manager.arriving():
        return await read_form(
            request,
            schema,
            max_bytes=round(config.max_body_mb * 1e6),
            idle_s=BODY_IDLE_S,
            total_s=config.request_timeout_s,
        )
