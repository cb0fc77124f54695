"""OpenAI's speech API, with what vLLM-Omni and SGLang-Omni add to it."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request, Response

from light_tts.server import sse
from light_tts.server.audio_stream import AudioResponse
from light_tts.server.batch import MAX_ITEMS, BatchResponse, SpeechBatch
from light_tts.server.http_manager import HttpServerManager
from light_tts.server.openapi import batch_body, batch_responses, openai_responses, request_body
from light_tts.server.schemas_openai import OpenAISpeech
from light_tts.server.served import ServedNames
from light_tts.server.speak import counting_refusal, read_body, read_job

_JSON = ("application/json",)


def openai_routes(manager: HttpServerManager) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["openai"])
    served = ServedNames(manager.config)

    @router.post(
        "/audio/speech",
        openapi_extra=request_body(OpenAISpeech, manager.config, _JSON),
        response_class=Response,
        responses=openai_responses(),
    )
    async def speech(request: Request) -> Response:
        """Speak `input`. The audio is sent while it is made, in any of the six formats or as server-sent events."""
        started_s = time.perf_counter()
        accepts = sse.MEDIA_TYPE in request.headers.get("accept", "")
        job = await read_job(
            manager, request, OpenAISpeech, lambda form: served.job(form, accepts_events=accepts)
        )
        return AudioResponse(manager, job, started_s)

    @router.post(
        "/audio/speech/batch",
        openapi_extra=batch_body(OpenAISpeech, manager.config, MAX_ITEMS),
        response_class=Response,
        responses=batch_responses(),
    )
    async def speech_batch(request: Request) -> Response:
        """Speak up to 32 texts, and answer when the last is there. One that fails does not fail the others."""
        with counting_refusal(manager):
            batch = await read_body(manager, request, SpeechBatch)
        return BatchResponse(manager, batch, served)

    @router.get("/models")
    async def models() -> dict[str, object]:
        """The model that is served, and the names that stand for it."""
        return {"object": "list", "data": [served.card(name) for name in served.models]}

    @router.get("/models/{model:path}", responses=openai_responses(audio=False))
    async def model(model: str) -> dict[str, object]:
        """One of them. 404 for a name that /v1/audio/speech would refuse."""
        return served.card(served.check_model(model))

    return router
