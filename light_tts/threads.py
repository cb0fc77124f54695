"""How many CPU threads there are, and how they wait for one another."""

from __future__ import annotations

import os
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


@contextmanager
def single_threaded() -> Iterator[None]:
    """Run torch's CPU operators in this thread alone: for many small ones, meeting costs more than it saves."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
