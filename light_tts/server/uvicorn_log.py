"""What uvicorn logs, without what must not be there: texts of users, and tracebacks of streams that broke off."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from light_tts.server.audio_stream import StreamAborted

_PATH = 2  # of the access logger's arguments: client, method, path with query, version, status


@contextmanager
def discreet_uvicorn() -> Iterator[None]:
    """Within the block, for the loggers of this process."""
    # Filters of its own: there may be several applications in a process, each takes away what it added.
    filters = {"uvicorn.error": partial(_is_worth_its_place), "uvicorn.access": partial(_without_query)}
    for name, function in filters.items():
        logging.getLogger(name).addFilter(function)
    try:
        yield
    finally:
        for name, function in filters.items():
            logging.getLogger(name).removeFilter(function)


def _is_worth_its_place(record: logging.LogRecord) -> bool:
    """Not so for a stream that broke off: it has had its line, without a traceback."""
    kind = record.exc_info[0] if isinstance(record.exc_info, tuple) else None
    return not (kind is not None and issubclass(kind, StreamAborted))


def _without_query(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple) and len(record.args) > _PATH:
        args = list(record.args)
        args[_PATH] = str(args[_PATH]).partition("?")[0]
        record.args = tuple(args)
    return True
