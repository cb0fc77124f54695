"""Gunicorn's worker class for our HTTP workers."""

from __future__ import annotations

from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]


class AudioWorker(UvicornWorker):  # type: ignore[misc]  # it has no types
    """Leaves what it sends uncompressed: speech does not shrink, and deflating a second of it holds up all others for
    milliseconds.
    """

    CONFIG_KWARGS = {**UvicornWorker.CONFIG_KWARGS, "ws_per_message_deflate": False}  # noqa: RUF012  # as its base has it
