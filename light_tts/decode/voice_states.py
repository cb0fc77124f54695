"""Voices by content: their prompts, and what the flow has computed ahead of them for all their streams; no torch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from light_tts.decode.budget import StateBudget

P = TypeVar("P")  # the prompt
S = TypeVar("S")  # what is computed of it


@dataclass(slots=True, eq=False)
class VoiceEntry(Generic[P, S]):
    """users: segments that hold it; wanted_since_s: since when a stream waits for `state`; computing: in flight"""

    key: str
    prompt: P
    state: S | None = None
    users: int = 0
    wanted_since_s: float | None = None
    computing: bool = False


class VoiceStates(Generic[P, S]):
    """At most `capacity` voices, the least recently used go first; one in use never goes. Not thread-safe: the
    process's main thread owns it. Each voice's state is computed once, however many streams open meanwhile.
    """

    def __init__(self, capacity: int, budget: StateBudget) -> None:
        self._capacity = capacity
        self._budget = budget
        self._entries: OrderedDict[str, VoiceEntry[P, S]] = OrderedDict()  # least recently used first

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def num_used(self) -> int:
        return sum(entry.users > 0 for entry in self._entries.values())

    def get(self, key: str) -> VoiceEntry[P, S]:
        return self._entries[key]

    def acquire(self, key: str, make_prompt: Callable[[], P]) -> VoiceEntry[P, S]:
        """Hold a voice; `make_prompt` is called where it is not known, and what it raises leaves nothing behind."""
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = VoiceEntry(key, make_prompt())
        self._entries.move_to_end(key)
        entry.users += 1
        self._keep_to_capacity()
        return entry

    def release(self, key: str) -> None:
        entry = self._entries[key]
        entry.users -= 1
        if not entry.users:
            entry.wanted_since_s = None
        self._keep_to_capacity()

    def want(self, entry: VoiceEntry[P, S], now_s: float) -> None:
        """A stream needs the state."""
        if entry.state is None and entry.wanted_since_s is None:
            entry.wanted_since_s = now_s

    def wanted(self) -> Iterator[tuple[VoiceEntry[P, S], float]]:
        """Voices to compute, and since when each is wanted."""
        for entry in self._entries.values():
            if entry.wanted_since_s is not None and not entry.computing:
                yield entry, entry.wanted_since_s

    def computed(self, entry: VoiceEntry[P, S], state: S, num_bytes: int) -> None:
        """The end of a computation, for all streams that wait for it."""
        entry.state, entry.computing, entry.wanted_since_s = state, False, None
        if self._entries.get(entry.key) is entry:
            self._budget.hold_voice(entry.key, num_bytes)
            self._keep_to_capacity()

    def failed(self, entry: VoiceEntry[P, S]) -> None:
        """The computation failed: the next stream that wants it tries again."""
        entry.computing, entry.wanted_since_s = False, None

    def evict_one(self) -> bool:
        """Drop the least recently used voice that nobody holds; whether there was one."""
        for key, entry in self._entries.items():
            if not entry.users and not entry.computing:
                del self._entries[key]
                self._budget.release_voice(key)
                return True
        return False

    def _keep_to_capacity(self) -> None:
        while len(self._entries) > self._capacity and self.evict_one():
            pass
