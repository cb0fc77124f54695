"""The routes of CosyVoice's own FastAPI server. Its client sends forms and files with GET."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from light_tts.server.http_manager import HttpServerManager
from light_tts.server.openapi import request_body, responses
from light_tts.server.schemas import CrossLingualForm, Instruct2Form, InstructForm, SftForm, SpeechForm
from light_tts.server.speak import speak

_SCHEMAS: tuple[tuple[str, type[SpeechForm]], ...] = (
    ("/inference_sft", SftForm),
    ("/inference_cross_lingual", CrossLingualForm),
    ("/inference_instruct", InstructForm),
    ("/inference_instruct2", Instruct2Form),
)


def cosyvoice_routes(manager: HttpServerManager) -> APIRouter:
    """Without /inference_zero_shot, which is one of Light-TTS's own."""
    router = APIRouter(tags=["cosyvoice"])
    for path, schema in _SCHEMAS:
        _add(router, manager, path, schema)
    return router


def _add(router: APIRouter, manager: HttpServerManager, path: str, schema: type[SpeechForm]) -> None:
    async def answer(request: Request) -> Response:
        return await speak(manager, request, schema)

    summary = (schema.__doc__ or "").strip()
    router.post(
        path,
        name=path,
        summary=summary,
        openapi_extra=request_body(schema, manager.config),
        response_class=Response,
        responses=responses(),
    )(answer)
    router.get(path, include_in_schema=False)(answer)
    for method in ("GET", "POST"):
        router.api_route(f"{path}/", methods=[method], include_in_schema=False)(answer)
