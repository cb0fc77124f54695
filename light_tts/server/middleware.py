"""Around every request: its id, and the counts of its route."""

from __future__ import annotations

import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from light_tts.observe import Metrics
from light_tts.server.request_id import HEADER, assign_request_id


class RequestMiddleware:
    """Gives each request an id, tells it in the answer, and counts requests by route as upstream does."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        started_s = time.perf_counter()
        request_id = assign_request_id(scope)
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            if message["type"] in ("http.response.start", "websocket.accept"):
                MutableHeaders(scope=message)[HEADER] = request_id
            if message["type"] == "websocket.close" and message.get("code", 1000) == 1000:
                status = 200
            await send(message)

        completed = False
        try:
            await self._app(scope, receive, send_with_id)
            completed = True
        finally:
            self._count(_route(scope), completed and status < 400, time.perf_counter() - started_s)

    def _count(self, route: str, succeeded: bool, seconds: float) -> None:
        metrics = self._metrics
        metrics.route_requests.labels(route=route).inc()
        (metrics.route_success if succeeded else metrics.route_failure).labels(route=route).inc()
        metrics.route_duration.labels(route=route).observe(seconds)
        metrics.route_latency.labels(route=route).observe(seconds)


def _route(scope: Scope) -> str:
    """The path as it was declared: what clients invent must not become a label."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else "other"
