"""Which sequences take part in a step, and who owns which slots of the KV cache. No tensors here.

A sequence is queued while it wants a place, runs while it has one, and is paused while it waits for text. A running
sequence holds slots for all that it can feed before more text comes, so it never runs out half-way. The others keep
their slots until somebody else needs them: then their keys and values are copied out, and back later, so what they say
does not depend on it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, Protocol, TypeVar

from light_tts.llm.kv_pool import KVPool, Span
from light_tts.llm.sequence import FinishReason, SpeechSequence, Symbol

S = TypeVar("S")

MAX_CHUNK = 512  # tokens of one prompt per step; how a prompt is cut must not depend on who else is there


class SlotMemory(Protocol[S]):
    """The KV cache, as far as the scheduler moves things in it."""

    def save(self, start: int, length: int) -> S: ...

    def restore(self, start: int, saved: S) -> None: ...


class State(Enum):
    QUEUED = auto()
    RUNNING = auto()
    PAUSED = auto()


@dataclass(slots=True, eq=False)
class Entry(Generic[S]):
    """A sequence and where it stands.

    group: what it is a part of
    span: its slots; saved: what they held, while it has none
    kv_len: tokens it has in the cache, or saved
    num_fed: symbols of the current feed that are among them
    num_steps: since it got its place
    """

    sequence_id: int
    sequence: SpeechSequence
    group: str | None = None
    state: State = State.PAUSED
    span: Span | None = None
    saved: S | None = None
    kv_len: int = 0
    num_fed: int = 0
    num_steps: int = 0
    started: bool = False


@dataclass(frozen=True, slots=True)
class Work(Generic[S]):
    """What one sequence reads in this step. completes: a token follows, for the feed is read to its end"""

    entry: Entry[S]
    symbols: list[Symbol]
    kv_start: int
    completes: bool


class Scheduler(Generic[S]):
    """max_running: sequences with a place at most
    max_step_tokens: prompt tokens of a step at most; longer prompts are read in chunks
    admit_every: steps between admissions of new sequences; at once where none runs
    yield_after: steps after which a running sequence gives way to a queued one; None: never
    max_of_group: places that the sequences of one group may have, so that a long text keeps nobody waiting; None: all
    """

    def __init__(
        self,
        memory: SlotMemory[S],
        num_slots: int,
        max_running: int,
        *,
        max_step_tokens: int,
        admit_every: int = 1,
        yield_after: int | None = None,
        max_of_group: int | None = None,
    ) -> None:
        limits = {"max_running": max_running, "max_step_tokens": max_step_tokens, "admit_every": admit_every}
        for name, value in limits.items():
            if value < 1:
                raise ValueError(f"{name} is {value}, must be at least 1")
        self.pool = KVPool(num_slots)
        self._memory = memory
        self._max_running = max_running
        self._max_step_tokens = max_step_tokens
        self._chunk = min(MAX_CHUNK, max_step_tokens)
        self._admit_every = admit_every
        self._yield_after = yield_after
        self._max_of_group = max_running if max_of_group is None else max_of_group
        self._entries: dict[int, Entry[S]] = {}
        self._queue: deque[Entry[S]] = deque()
        self._running: dict[int, Entry[S]] = {}  # in the order in which they got their places
        self._steps_since_admission = admit_every

    @property
    def num_queued(self) -> int:
        return len(self._queue)

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def num_paused(self) -> int:
        return len(self._entries) - len(self._queue) - len(self._running)

    def add(self, sequence_id: int, sequence: SpeechSequence, group: str | None = None) -> None:
        """group: sequences that share places, see `max_of_group`; None: it is alone"""
        entry: Entry[S] = Entry(sequence_id, sequence, group)
        self._entries[sequence_id] = entry
        self._settle(entry)

    def find(self, sequence_id: int) -> Entry[S] | None:
        return self._entries.get(sequence_id)

    def remove(self, sequence_id: int) -> bool:
        """Forget a sequence and free its slots. False if it is not there."""
        entry = self._entries.pop(sequence_id, None)
        if entry is None:
            return False
        self._leave(entry)
        if entry.span is not None:
            self.pool.release(entry.span)
        return True

    def is_idle(self) -> bool:
        """True where a step would do nothing: there are no sequences, or all wait for text."""
        return all(
            entry.sequence.next_feed() is None and entry.sequence.finish_reason is None
            for entry in self._entries.values()
        )

    def pop_finished(self) -> list[tuple[int, FinishReason]]:
        """Forget the sequences that have ended, whether they had a place or not."""
        finished = []
        for entry in list(self._entries.values()):
            reason = entry.sequence.finish_reason
            if reason is not None and entry.sequence.next_feed() is None:
                self.remove(entry.sequence_id)
                finished.append((entry.sequence_id, reason))
        return finished

    def give_places(self) -> None:
        """Admit who can be admitted. Doing it twice before a step changes nothing."""
        for entry in self._entries.values():
            self._settle(entry)
        admits = not self._running or self._steps_since_admission >= self._admit_every
        waiting = [entry for entry in self._queue if admits or entry.started]
        while waiting:
            places = self._places()
            entry = min(waiting, key=lambda entry: places[entry.group])  # the first of those who have fewest
            if places[entry.group] >= self._max_of_group or not self._place(entry, may_displace=admits):
                return  # the first in line waits for room, and nobody overtakes it
            waiting.remove(entry)
            if not entry.started:
                entry.started = True
                self._steps_since_admission = 0

    def schedule(self) -> list[Work[S]]:
        """What is read in the next step: one token of all running speech, and as much of prompts as may delay it."""
        self.give_places()
        work: list[Work[S]] = []
        room = self._max_step_tokens
        for entry in self._running.values():
            feed, span = entry.sequence.next_feed(), entry.span
            if feed is None or span is None:
                raise RuntimeError(f"sequence {entry.sequence_id} has a place but no text or no slots")
            symbols = feed[entry.num_fed : entry.num_fed + self._chunk] if len(feed) > 1 else feed
            if len(feed) > 1:
                if len(symbols) > room:
                    continue
                room -= len(symbols)
            work.append(Work(entry, symbols, span.start, entry.num_fed + len(symbols) == len(feed)))
        if work:
            self._steps_since_admission += 1
        return work

    def advance(self, work: Work[S]) -> None:
        """The cache now holds what was scheduled. Where it completes a feed, the sequence has to accept a token."""
        entry = work.entry
        entry.kv_len += len(work.symbols)
        entry.num_fed = 0 if work.completes else entry.num_fed + len(work.symbols)
        entry.num_steps += 1
        if entry.sequence_id in self._entries:
            self._settle(entry)

    def _places(self) -> Counter[str | None]:
        """By group; none of those that are alone."""
        return Counter(entry.group for entry in self._running.values() if entry.group is not None)

    def _settle(self, entry: Entry[S]) -> None:
        """Bring an entry's state in line with its sequence, which may have got text, or used it up."""
        has_feed = entry.sequence.next_feed() is not None
        if entry.state is State.PAUSED and has_feed:
            self._enqueue(entry)
        elif entry.state is State.RUNNING and not has_feed:
            self._leave(entry)
        elif entry.state is State.RUNNING and not self._long_enough(entry):
            self._leave(entry)
            self._evict(entry)
            self._enqueue(entry, first=True)

    def _long_enough(self, entry: Entry[S]) -> bool:
        """Whether its slots are enough for the text that is there, made more where they are if need be."""
        need = entry.sequence.max_kv_len
        if entry.span is not None and entry.span.length < need:
            entry.span = self.pool.extend(entry.span, need) or entry.span
        return entry.span is not None and entry.span.length >= need

    def _place(self, entry: Entry[S], *, may_displace: bool) -> bool:
        """Give a queued entry a place and slots, if that can be had."""
        victim = None
        if len(self._running) >= self._max_running:
            victim = next(self._yielding(), None) if may_displace else None
            if victim is None:
                return False
        if not self._long_enough(entry):
            kept = [
                other.span
                for other in self._running.values()
                if other.span is not None and not (may_displace and self._yields(other))
            ]
            need = entry.sequence.max_kv_len
            if not self.pool.would_fit(need, kept):
                return False
            self._evict(entry)
            entry.span = self._make_room(entry, need)
            if entry.saved is not None:
                self._memory.restore(entry.span.start, entry.saved)
                entry.saved = None
        if victim is not None and len(self._running) >= self._max_running:
            self._leave(victim)
            self._enqueue(victim)
        self._queue.remove(entry)
        entry.state, entry.num_steps = State.RUNNING, 0
        self._running[entry.sequence_id] = entry
        return True

    def _make_room(self, entry: Entry[S], need: int) -> Span:
        """Take slots from others until so many are free together; `would_fit` has said that it can be done."""
        holders = self._holders(entry)
        while (span := self.pool.reserve(need)) is None:
            other = next(holders)
            if other.state is State.RUNNING:
                self._leave(other)
                self._enqueue(other)
            self._evict(other)
        return span

    def _holders(self, entry: Entry[S]) -> Iterator[Entry[S]]:
        """Who can be made to give up slots, those first who need them last."""
        paused = [other for other in self._entries.values() if other.state is State.PAUSED]
        for other in (*paused, *reversed(list(self._queue)), *self._yielding()):
            if other.span is not None and other is not entry:
                yield other

    def _yields(self, entry: Entry[S]) -> bool:
        return self._yield_after is not None and entry.num_steps >= self._yield_after

    def _yielding(self) -> Iterator[Entry[S]]:
        """Running entries that give way, the longest running first."""
        return (entry for entry in list(self._running.values()) if self._yields(entry))

    def _evict(self, entry: Entry[S]) -> None:
        """Free its slots; what they hold is kept elsewhere."""
        if entry.span is None:
            return
        if entry.kv_len:
            entry.saved = self._memory.save(entry.span.start, entry.kv_len)
        self.pool.release(entry.span)
        entry.span = None

    def _enqueue(self, entry: Entry[S], *, first: bool = False) -> None:
        entry.state = State.QUEUED
        if first:
            self._queue.appendleft(entry)
        else:
            self._queue.append(entry)

    def _leave(self, entry: Entry[S]) -> None:
        """Take an entry out of the queue, or its place from it."""
        if entry.state is State.QUEUED:
            self._queue.remove(entry)
        self._running.pop(entry.sequence_id, None)
        entry.state = State.PAUSED
