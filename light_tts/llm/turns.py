"""Which segments of a long text are under way: its listener hears one at a time, and others want to be heard too."""

from __future__ import annotations

from collections import deque

import msgspec

from light_tts.messages import LlmTask

MAX_UNDER_WAY = 4
"""Streamed segments of one request that the language model and the decode processes work on at once."""


class Turns:
    """Tasks that wait until earlier ones of their request are done, there and in the decode processes, and for as long
    as their listener is behind with what he has.
    """

    def __init__(self, limit: int = MAX_UNDER_WAY) -> None:
        self._limit = limit
        self._under_way: dict[str, set[int]] = {}
        self._waiting: dict[str, deque[LlmTask]] = {}
        self._behind: set[str] = set()

    @property
    def num_waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    def requests_of(self, reply_to: str) -> set[str]:
        """Requests of an HTTP worker that have tasks waiting here."""
        return {name for name, tasks in self._waiting.items() if tasks[0].reply_to == reply_to}

    def begin(self, task: LlmTask) -> bool:
        """Whether its turn has come; if not, `done` or `catch_up` returns it some time."""
        under_way = self._under_way.setdefault(task.request_id, set())
        if len(under_way) < self._limit and task.request_id not in self._behind:
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
        task = self._next(request_id)
        if not under_way and request_id not in self._waiting:
            del self._under_way[request_id]
        return task

    def fall_behind(self, request_id: str) -> None:
        """No segment of the request gets its turn until it catches up, or ends."""
        self._behind.add(request_id)

    def catch_up(self, request_id: str, deadline_s: float) -> list[LlmTask]:
        """Returns those whose turn it is then. deadline_s: of all that waited"""
        self._behind.discard(request_id)
        waiting = self._waiting.get(request_id)
        if waiting is None:
            return []
        self._waiting[request_id] = deque(
            msgspec.structs.replace(task, deadline_s=deadline_s) for task in waiting
        )
        tasks = []
        while (task := self._next(request_id)) is not None:
            tasks.append(task)
        return tasks

    def end(self, request_id: str) -> None:
        """Nobody waits for the request any more."""
        self._under_way.pop(request_id, None)
        self._waiting.pop(request_id, None)
        self._behind.discard(request_id)

    def _next(self, request_id: str) -> LlmTask | None:
        waiting, under_way = self._waiting.get(request_id), self._under_way[request_id]
        if not waiting or request_id in self._behind or len(under_way) >= self._limit:
            return None
        task = waiting.popleft()
        if not waiting:
            del self._waiting[request_id]
        under_way.add(task.segment)
        return task
