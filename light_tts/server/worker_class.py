"""Gunicorn's worker class for our HTTP workers."""

from __future__ import annotations

import asyncio
import os
import signal

from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]


class AudioWorker(UvicornWorker):  # type: ignore[misc]  # it has no types
    """Leaves what it sends uncompressed: speech does not shrink, and deflating a second of it holds up all others for
    milliseconds.
    """

    CONFIG_KWARGS = {**UvicornWorker.CONFIG_KWARGS, "ws_per_message_deflate": False}  # noqa: RUF012  # as its base has it

    def _install_sigquit_handler(self) -> None:
        """Gunicorn says "at once" with SIGQUIT, when it got SIGINT. The base class's handler does not end a worker: it
        would be killed after 30 s.
        """
        asyncio.get_running_loop().add_signal_handler(signal.SIGQUIT, os._exit, 0)
