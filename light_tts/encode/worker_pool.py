"""Threads that take jobs in turn, and what a heartbeat tells of them."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

logger = logging.getLogger(__name__)

_JOIN_S = 2.0


@dataclass(frozen=True, slots=True)
class PoolLoad:
    """queued: jobs that no thread has taken; oldest_s: how long the first of them has waited; running: jobs taken
    stuck_s: for how long no thread has been able to take one, since each works on another
    """

    queued: int
    oldest_s: float
    running: int
    stuck_s: float


class WorkerPool:
    """Runs jobs first in, first out, on `num_threads` threads. Jobs handle their own errors."""

    def __init__(self, num_threads: int, name: str) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()
        self._started: dict[int, float] = {}  # by thread: when its job began
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, args=(number,), name=f"{name}-{number}", daemon=True)
            for number in range(num_threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Callable[[], None]) -> None:
        """Queue a job; dropped if the pool is closed."""
        with self._changed:
            if not self._closed:
                self._waiting.append((time.monotonic(), job))
                self._changed.notify()

    def load(self) -> PoolLoad:
        now = time.monotonic()
        with self._changed:
            oldest = now - self._waiting[0][0] if self._waiting else 0.0
            ages = [now - start for start in self._started.values()]
            stuck = min(ages) if len(ages) == len(self._threads) else 0.0
            return PoolLoad(len(self._waiting), oldest, len(ages), stuck)

    def close(self) -> None:
        """Drop what waits, and give what runs a moment to end."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
        deadline = time.monotonic() + _JOIN_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self, number: int) -> None:
        while (job := self._next(number)) is not None:
            try:
                job()
            except Exception:
                logger.exception("a job failed")
            finally:
                with self._changed:
                    del self._started[number]

    def _next(self, number: int) -> Callable[[], None] | None:
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            self._started[number] = time.monotonic()
            return self._waiting.popleft()[1]
