"""Threads that do jobs, and a file descriptor that wakes the thread which waits for their results."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

J = TypeVar("J")
D = TypeVar("D")


class WorkerPool(Generic[J, D]):
    """make_run: called once in each thread, gives what does its jobs and never raises"""

    def __init__(self, count: int, make_run: Callable[[], Callable[[J], D]]) -> None:
        self._jobs: SimpleQueue[J | None] = SimpleQueue()
        self._results: SimpleQueue[D] = SimpleQueue()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._make_run = make_run
        self._threads = [
            threading.Thread(target=self._work, name=f"decode-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def wake_fd(self) -> int:
        """Readable when there are results."""
        return self._wake_fd

    def submit(self, job: J) -> None:
        self._jobs.put(job)

    def results(self) -> Iterator[D]:
        """All that is done since the last call."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake_fd)
        with contextlib.suppress(Empty):
            while True:
                yield self._results.get_nowait()

    def close(self, timeout_s: float) -> bool:
        """End the threads, each after its job; whether all of them did so in time."""
        for _ in self._threads:
            self._jobs.put(None)
        limit_s = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, limit_s - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            return False  # they still write to the descriptor
        os.close(self._wake_fd)
        return True

    def _work(self) -> None:
        run = self._make_run()
        while (job := self._jobs.get()) is not None:
            self._results.put(run(job))
            os.eventfd_write(self._wake_fd, 1)
