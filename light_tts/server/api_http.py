"""The ASGI application of an HTTP worker: `light_tts.server.api_http:app`."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from light_tts.config import ServerConfig
from light_tts.errors import InvalidInput
from light_tts.observe import metrics as make_metrics
from light_tts.observe import set_up_logging
from light_tts.server.error_response import install_error_handlers
from light_tts.server.http_manager import HttpServerManager
from light_tts.server.limits import READER_IDLE_S
from light_tts.server.middleware import RequestMiddleware
from light_tts.server.request_id import HEADER
from light_tts.server.routes_cosyvoice import cosyvoice_routes
from light_tts.server.routes_native import native_routes
from light_tts.server.routes_openai import openai_routes
from light_tts.server.routes_ops import ops_routes
from light_tts.server.routes_voices import voice_routes
from light_tts.server.uvicorn_log import discreet_uvicorn

RUN_DIR_VARIABLE = "LIGHT_TTS_RUN_DIR"
_EXPOSED = [HEADER, "X-Sample-Rate", "X-Channels", "X-Bit-Depth", "Retry-After"]


def create_app(config: ServerConfig, run_dir: Path, *, reader_idle_s: float = READER_IDLE_S) -> FastAPI:
    """The application over the processes that share `run_dir`. Nothing is opened before it starts.

    reader_idle_s: how long a client may leave a second of audio untaken
    """
    metrics = make_metrics()
    manager = HttpServerManager(config, run_dir, metrics, reader_idle_s=reader_idle_s)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with discreet_uvicorn():
            await manager.start()
            try:
                yield
            finally:
                await manager.close()

    app = FastAPI(
        title="Light-TTS",
        version=version("light-tts"),
        lifespan=lifespan,
        redirect_slashes=False,
    )
    install_error_handlers(app)
    app.add_middleware(
        CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"], expose_headers=_EXPOSED
    )
    app.add_middleware(RequestMiddleware, metrics=metrics)
    for router in (
        native_routes(manager),
        cosyvoice_routes(manager),
        openai_routes(manager),
        ops_routes(manager),
        voice_routes(manager),
    ):
        app.include_router(router)
    return app


class WorkerApp:
    """`create_app` with what the supervisor wrote, made when the worker process starts: Gunicorn may import this
    before it forks.
    """

    def __init__(self) -> None:
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._app is None:
            _end_when_interrupted()
            self._app = _worker_app()
        await self._app(scope, receive, send)


def _end_when_interrupted() -> None:
    """Gunicorn says "at once" with SIGQUIT, when it got SIGINT. The handlers of uvicorn's worker classes, which are set
    by now, do not end a worker: it would be killed after 30 s.
    """
    if threading.current_thread() is threading.main_thread():
        asyncio.get_running_loop().add_signal_handler(signal.SIGQUIT, os._exit, 0)


def _worker_app() -> ASGIApp:
    named = os.environ.get(RUN_DIR_VARIABLE)
    if not named:
        raise InvalidInput(
            f"{RUN_DIR_VARIABLE} is not set: start the server with `python -m light_tts.server.api_server`"
        )
    run_dir = Path(named)
    config = ServerConfig.read(run_dir)
    set_up_logging(config.log_level, f"http-{os.getpid()}")
    return create_app(config, run_dir)


app = WorkerApp()
