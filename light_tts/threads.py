"""How many CPU threads there are, and how they wait for one another."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from light_tts.errors import InvalidInput

MAX_THREADS = 1024
# Loop turns for which a thread of libgomp spins before it sleeps. Its default of seconds makes a busy machine crawl:
# the spinning thread keeps the core from the one that it waits for.
_SPIN_COUNT = "1000"


def calm_thread_waits() -> None:
    """Let waiting threads sleep, unless the user's environment says otherwise. Call before torch is imported."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPIN_COUNT)


def use_threads(number: int) -> None:
    """Let torch's CPU operators use this many threads. Raises InvalidInput."""
    import torch

    if not 1 <= number <= MAX_THREADS:
        raise InvalidInput(f"threads is {number}, allowed is [1, {MAX_THREADS}]")
    torch.set_num_threads(number)


class _Crossing:
    """Who is inside `single_threaded`: torch has one number of threads for the process, beside one for each thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._outside_threads = 1

    def enter(self) -> None:
        import torch

        with self._lock:
            # Asked in any case: a thread that is new to torch takes the process's number when it first needs one.
            number = torch.get_num_threads()
            if self._inside == 0:
                self._outside_threads = number
            self._inside += 1
            torch.set_num_threads(1)

    def leave(self) -> None:
        import torch

        with self._lock:
            self._inside -= 1
            # Also while others are inside: the number of this thread is its own, and the process's, which new threads
            # take, must not stay at 1.
            torch.set_num_threads(self._outside_threads)


_crossing = _Crossing()  # torch's number of threads is global, and so is the memory of what it was


@contextmanager
def single_threaded() -> Iterator[None]:
    """Run torch's CPU operators in this thread alone: for many small ones, meeting costs more than it saves. Several
    threads may be inside at once.
    """
    _crossing.enter()
    try:
        yield
    finally:
        _crossing.leave()
