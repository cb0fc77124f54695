"""Log lines for people: when, how bad, which process, which request, what."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_request_id: ContextVar[str] = ContextVar("light_tts_request_id", default="")  # per task and thread

LINE = "%(asctime)s %(levelname)s [%(origin)s]%(request)s %(message)s"


class _Context(logging.Filter):
    """Adds `origin` (the process) and `request` (where there is one) to each record."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def filter(self, record: logging.LogRecord) -> bool:
        request_id = _request_id.get()
        record.origin = self._process
        record.request = f" {request_id}" if request_id else ""
        return True


def set_up_logging(level: str, process: str) -> None:
    """Send all logging of this process to standard error, replacing what was set up before.

    process: what the lines name it: "supervisor", "decode-1"
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(LINE))
    handler.addFilter(_Context(process))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)


@contextmanager
def request_scope(request_id: str) -> Iterator[None]:
    """Name this request in all lines logged within, also by functions called and tasks started there."""
    token = _request_id.set(request_id)
    try:
        yield
    finally:
        _request_id.reset(token)


def log_stage(logger: logging.Logger, request_id: str, stage: str, seconds: float) -> None:
    """One line per request and stage, which ends in `cost_time <ms>ms`: it is grepped for."""
    name = "" if _request_id.get() == request_id else f"request {request_id} "  # else the line has it already
    logger.info("%sstage %s cost_time %.1fms", name, stage, seconds * 1000)
