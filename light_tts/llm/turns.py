"""Which segments of a long text are under way: its listener hears one at a time, and others want to be heard too."""

from __future__ import annotations

from collections import deque

import msgspec

from light_tts.messages import LlmTask

MAX_UNDER_WAY = 4
"""Streamed segments of one request that the language model and the decode processes work on at once."""


class Turns:
    """Tasks that wait until earlier ones of their request are done, there and in the decode processes."""

    def __init__(self, limit: int = MAX_UNDER_WAY) -> None:
        self._limit = limit
        self._under_way: dict[str, set[int]] = {}
        self._waiting: dict[str, deque[LlmTask]] = {}

    @property
    def num_waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    def begin(self, task: LlmTask) -> bool:
        """Whether its turn has come; if not, `done` returns it some time."""
        under_way = self._under_way.setdefault(task.request_id, set())
        if len(under_way) < self._limit:
            under_way.add(task.segment)
            return True
        waiting = self._waiting.setdefault(task.request_id, deque())
        if waiting and waiting[0].voice == task.voice:  # held once: it may have half a megabyte
            task = msgspec.structs.replace(task, voice=waiting[0].voice)
        waiting.append(task)
        return False

    def done(self, request_id: str, segment: int) -> LlmTask | None:
        """A segment is under way no more. Returns the one whose turn it is then."""
        under_way = self._under_way.get(request_id)
        if under_way is None or segment not in under_way:
            return None
        under_way.remove(segment)
        waiting = self._waiting.get(request_id)
        if not waiting:
            if not under_way:
                del self._under_way[request_id]
            return None
        task = waiting.popleft()
        if not waiting:
            del self._waiting[request_id]
        under_way.add(task.segment)
        return task

    def end(self, request_id: str) -> None:
        """Nobody waits for the request any more."""
        self._under_way.pop(request_id, None)
        self._waiting.pop(request_id, None)
