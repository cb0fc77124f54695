"""Encoded prompts in memory, shared by the requests that use the same recording."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Generic, Self, TypeVar

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class CacheStats:
    """hits: acquisitions that computed nothing, those that waited for a running computation included
    size: entries held; in_use: those of them that a handle refers to
    """

    hits: int
    misses: int
    size: int
    in_use: int


@dataclass(slots=True, eq=False)
class _Entry(Generic[V]):
    result: Future[V] = field(default_factory=Future)
    references: int = 0


class Handle(Generic[V]):
    """One user's hold on a cached value; a context manager. Releasing twice is harmless.

    hit: nothing was computed for this user
    """

    __slots__ = ("_release", "hit", "value")

    def __init__(self, value: V, hit: bool, release: Callable[[], None]) -> None:
        self.value = value
        self.hit = hit
        self._release: Callable[[], None] | None = release

    def release(self) -> None:
        release, self._release = self._release, None
        if release is not None:
            release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class PromptCache(Generic[V]):
    """At most `capacity` values by key, the least recently used go first; thread-safe.

    A value in use is never dropped: while more than `capacity` are in use, the cache is that much larger.
    Keys must be made of the content (`content_hash` and how it is encoded), not of a client's name for it.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 0:
            raise ValueError(f"capacity is {capacity}, must be at least 0")
        self._capacity = capacity
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, _Entry[V]] = OrderedDict()  # least recently used first
        self._hits = 0
        self._misses = 0
        self._evicted = 0

    def acquire(self, key: str, compute: Callable[[], V]) -> Handle[V]:
        """The value of `key`, from `compute` if it is not there. Concurrent callers compute it once.

        What `compute` raises reaches all who wait for it and is not kept. It must not acquire its own key.
        """
        with self._lock:
            entry = self._entries.get(key)
            owner = entry is None
            if entry is None:
                entry = self._entries[key] = _Entry()
                self._misses += 1
            else:
                self._entries.move_to_end(key)
                self._hits += 1
            entry.references += 1
            self._evict()
        if owner:
            self._fill(key, entry, compute)
        value = entry.result.result()
        return Handle(value, not owner, lambda: self._release(entry))

    def forget_all(self) -> None:
        """Start anew: what is held or being computed serves those who have it, and nobody after them."""
        with self._lock:
            self._entries.clear()

    @property
    def num_evicted(self) -> int:
        """Values dropped for want of room, so far."""
        with self._lock:
            return self._evicted

    def stats(self) -> CacheStats:
        with self._lock:
            in_use = sum(entry.references > 0 for entry in self._entries.values())
            return CacheStats(self._hits, self._misses, len(self._entries), in_use)

    def _fill(self, key: str, entry: _Entry[V], compute: Callable[[], V]) -> None:
        try:
            value = compute()
        except BaseException as error:  # also an interrupt must not leave others waiting for ever
            with self._lock:
                if self._entries.get(key) is entry:
                    del self._entries[key]
            entry.result.set_exception(error)
            raise
        entry.result.set_result(value)

    def _release(self, entry: _Entry[V]) -> None:
        with self._lock:
            entry.references -= 1
            self._evict()

    def _evict(self) -> None:
        """Drop unused entries, oldest first, until the capacity holds. Needs the lock."""
        surplus = len(self._entries) - self._capacity
        if surplus <= 0:
            return
        unused = [key for key, entry in self._entries.items() if entry.references == 0]
        for key in unused[:surplus]:
            del self._entries[key]
            self._evicted += 1
