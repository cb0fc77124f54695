"""Memory that a process keeps although nobody uses it: bounded, and given back."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable

# oneDNN keeps compiled code by shape of audio, half a megabyte each, by itself for the last 1024 shapes. This many hold
# all of two synthesis calls: 200 varied requests take 0.3 GB less, in the same time.
COMPILED_SHAPES = 192
TRIM_EVERY_S = 1.0


def bound_compiled_shapes() -> None:
    """Let oneDNN keep less, unless the user's environment says otherwise. Call before the first convolution."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(COMPILED_SHAPES))


def _glibc_trim() -> Callable[[int], int] | None:
    """malloc_trim where the C library has it."""
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return None
    return trim


class HeapTrimmer:
    """Gives freed memory back to the system. Tensors of ever other sizes leave holes in the heap, 0.25 GB of them
    after a hundred requests; to find them takes some milliseconds.
    """

    def __init__(self, trim: Callable[[int], int] | None = None) -> None:
        self._trim = trim or _glibc_trim()
        self._next_s = 0.0
        self._worked = False

    def worked(self) -> None:
        """Something was computed since the last turn."""
        self._worked = True

    def turn(self) -> None:
        """Call it as often as you like, also when there is nothing to do: at most every TRIM_EVERY_S it does something,
        and always once after the last work.
        """
        now = time.monotonic()
        if self._trim is not None and self._worked and now >= self._next_s:
            self._next_s, self._worked = now + TRIM_EVERY_S, False
            self._trim(0)
