"""Probes and metrics."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Response
from starlette.responses import JSONResponse

from light_tts.observe import exposition
from light_tts.server.health import Verdict, alive, healthy, ready
from light_tts.server.http_manager import HttpServerManager


def ops_routes(manager: HttpServerManager) -> APIRouter:
    router = APIRouter(tags=["operations"])
    door = manager.door

    @router.head("/health", include_in_schema=False)
    @router.get("/health")
    @router.head("/healthz", include_in_schema=False)
    @router.get("/healthz")
    async def health() -> Response:
        """200 where each stage has a ready process, else 503."""
        verdict = healthy(door.state())
        return _answer(verdict, status="healthy" if verdict.ok else "unhealthy")

    @router.head("/liveness", include_in_schema=False)
    @router.get("/liveness")
    async def liveness() -> Response:
        """503 where only a restart helps."""
        return _probe(alive(door.state()))

    @router.head("/readiness", include_in_schema=False)
    @router.get("/readiness")
    async def readiness() -> Response:
        """503 where requests are refused."""
        return _probe(ready(door.state(), draining=door.draining))

    @router.get("/metrics")
    async def metrics() -> Response:
        """All processes' metrics, for Prometheus."""
        body, content_type = await asyncio.to_thread(exposition, manager.metrics)
        return Response(body, media_type=content_type)

    return router


def _probe(verdict: Verdict) -> Response:
    return _answer(verdict, status="ok" if verdict.ok else "unavailable")


def _answer(verdict: Verdict, status: str) -> Response:
    headers = {"Cache-Control": "no-store"}
    return JSONResponse(
        {"message": verdict.message, "status": status}, 200 if verdict.ok else 503, headers=headers
    )
