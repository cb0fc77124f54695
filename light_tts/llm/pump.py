"""One engine for several callers in one process: each step's events go to the inbox of their sequence."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from light_tts.llm.engine import Engine, Event, FailedEvent, FinishedEvent
from light_tts.llm.request import SequenceRequest
from light_tts.threads import single_threaded
from light_tts.timing import StageTimes


class EnginePump:
    """Whoever needs tokens turns the crank; what falls out for others waits for them. Thread-safe."""

    def __init__(self, engine: Engine, times: StageTimes | None = None) -> None:
        self._engine = engine
        self._threads: Callable[[], AbstractContextManager[None]] = (
            single_threaded if engine.device.type == "cpu" else nullcontext
        )
        self._times = times or StageTimes()
        self._lock = threading.Lock()
        self._inbox: dict[int, list[Event]] = {}

    @property
    def num_free_slots(self) -> int:
        return self._engine.num_free_slots

    def add(self, request: SequenceRequest) -> int:
        """Queue a sequence; raises as `Engine.add`. Its events are kept until `take` or `close`."""
        with self._lock:
            sequence_id = self._engine.add(request)
            self._inbox[sequence_id] = []
            return sequence_id

    def append_text(self, sequence_id: int, ids: tuple[int, ...]) -> None:
        with self._lock:
            self._engine.append_text(sequence_id, ids)

    def end_text(self, sequence_id: int) -> None:
        with self._lock:
            self._engine.end_text(sequence_id)

    def close(self, sequence_id: int) -> None:
        """Forget a sequence, finished or not; frees its slots."""
        with self._lock:
            self._engine.abort(sequence_id)
            self._inbox.pop(sequence_id, None)

    def step(self, sequence_id: int | None = None) -> bool:
        """Generate one token for every sequence that can go on; False if none could.

        sequence_id: only while this one can; a caller that has more text for it must not wait for the others
        """
        with self._lock, self._times.measure("llm"), self._threads():
            if self._engine.is_idle() or not (sequence_id is None or self._engine.can_go_on(sequence_id)):
                return False
            for event in self._engine.step():
                inbox = self._inbox.get(event.sequence_id)
                if inbox is not None:
                    inbox.append(event)
            return True

    def take(self, sequence_id: int) -> list[Event]:
        """The events of a sequence since the last call."""
        with self._lock:
            events, self._inbox[sequence_id] = self._inbox[sequence_id], []
            return events

    def run(self, sequence_ids: list[int]) -> dict[int, list[Event]]:
        """All events of complete sequences; each list ends with FinishedEvent or FailedEvent."""
        collected: dict[int, list[Event]] = {sequence_id: [] for sequence_id in sequence_ids}
        open_ids = set(sequence_ids)
        while open_ids:
            self.step()
            for sequence_id in list(open_ids):
                collected[sequence_id] += self.take(sequence_id)
                events = collected[sequence_id]
                if events and isinstance(events[-1], FinishedEvent | FailedEvent):
                    open_ids.discard(sequence_id)
        return collected
