"""Light-TTS's own routes, as upstream's clients call them."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from starlette.websockets import WebSocket

from light_tts.server.http_manager import HttpServerManager
from light_tts.server.limits import MODELS
from light_tts.server.openapi import request_body, responses
from light_tts.server.schemas import ZeroShotForm
from light_tts.server.speak import speak
from light_tts.server.websocket import BistreamConnection


def native_routes(manager: HttpServerManager) -> APIRouter:
    router = APIRouter(tags=["light-tts"])

    # Both forms of the path: a redirect would make clients upload their recording twice.
    @router.get("/inference_zero_shot", include_in_schema=False)
    @router.get("/inference_zero_shot/", include_in_schema=False)
    @router.post("/inference_zero_shot/", include_in_schema=False)
    @router.post(
        "/inference_zero_shot",
        openapi_extra=request_body(ZeroShotForm, manager.config),
        response_class=Response,
        responses=responses(),
    )
    async def zero_shot(request: Request) -> Response:
        """Speak `tts_text` in the voice of `prompt_wav`, or in a named one. Answers s16le, 24 kHz, mono."""
        return await speak(manager, request, ZeroShotForm)

    @router.websocket("/inference_zero_shot_bistream")
    async def bistream(websocket: WebSocket) -> None:
        await BistreamConnection(manager, websocket).run()

    @router.get("/query_tts_model")
    @router.post("/query_tts_model", include_in_schema=False)
    async def query_tts_model() -> dict[str, list[str]]:
        """The names that `tts_model_name` may have."""
        return {"tts_models": list(MODELS)}

    return router
