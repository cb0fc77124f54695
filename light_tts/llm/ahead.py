"""A sequence whose tokens the device draws ahead of the host."""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, field

import numpy as np

from light_tts.kernels.seat_table import MAX_WINDOW, SEAT_WIDTH, Column
from light_tts.llm.request import SamplingParams
from light_tts.llm.sequence import Constraint, SpeechSequence, Symbol, SymbolKind, UniSequence

_ON_DEVICE = [Symbol(SymbolKind.SPEECH)]  # one token, which the host need not know to have it read
_LARGEST = 2**31 - 1


class AheadSequence(SpeechSequence):
    """Feeds the prompt, then whatever the device drew last, until as many are drawn as it may have.

    num_drawn: draws that were launched, of which the host knows `len(history)`
    """

    def __init__(self, inner: UniSequence, sampling: SamplingParams) -> None:
        self.inner = inner
        self.emitted, self.history = inner.emitted, inner.history
        self.finish_reason = inner.finish_reason
        self.num_drawn = 0
        self.sampling = sampling
        self._seed = secrets.randbits(63) if sampling.seed is None else sampling.seed

    @staticmethod
    def can_sample(sampling: SamplingParams) -> bool:
        """Whether the device's window is long enough."""
        return sampling.win_size <= MAX_WINDOW

    def next_feed(self) -> list[Symbol] | None:
        if self.finish_reason is not None:
            return None
        if self.num_drawn == 0:
            return self.inner.next_feed()
        return _ON_DEVICE if self.num_drawn < self.inner.max_len else None

    def constraint(self) -> Constraint:
        return self.inner.constraint()

    def accept(self, token: int) -> int | None:
        emitted = self.inner.accept(token)
        self.finish_reason = self.inner.finish_reason
        return emitted

    @property
    def max_kv_len(self) -> int:
        return self.inner.max_kv_len

    def longest(self, more_text: int = 0) -> int:
        return self.inner.longest(more_text)

    def seat(self, kv_start: int, position: int) -> np.ndarray:
        """(SEAT_WIDTH,) int32: what the device has to know. All draws must have been accepted.

        position: tokens in the cache
        """
        inner, sampling, history = self.inner, self.sampling, self.history
        banned = inner.banned_early
        row = np.zeros(SEAT_WIDTH, np.int32)
        columns = {
            Column.LAST_TOKEN: history[-1] if history else 0,
            Column.POSITION: position,
            Column.KV_START: kv_start,
            Column.DRAWN: len(history),
            Column.MIN_LEN: min(inner.min_len, _LARGEST),
            Column.MAX_LEN: min(inner.max_len, _LARGEST),
            Column.BAN_START: banned.start,
            Column.BAN_STOP: banned.stop,
            Column.STOP_START: inner.first_stop_id,
            Column.TOP_K: min(sampling.top_k, _LARGEST),
            Column.WIN_SIZE: sampling.win_size,
            Column.REPEATS: min(math.ceil(sampling.win_size * sampling.tau_r), _LARGEST),
        }
        for column, value in columns.items():
            row[column] = value
        row[Column.SEED_LOW : Column.SEED_HIGH + 1] = np.array([self._seed], np.uint64).view(np.int32)
        floats = np.array([sampling.temperature, sampling.top_p], np.float32)
        row[Column.TEMPERATURE : Column.TOP_P + 1] = floats.view(np.int32)
        for draw in range(max(0, len(history) - MAX_WINDOW), len(history)):
            row[Column.WINDOW + draw % MAX_WINDOW] = history[draw]
        return row


@dataclass(slots=True)
class Seats:
    """Which running sequence has which seat.

    taken: by sequence id; starts: the first slot that the device knows of it
    """

    free: list[int]
    taken: dict[int, int] = field(default_factory=dict)
    starts: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, number: int) -> Seats:
        return cls(list(range(number - 1, -1, -1)))

    def take(self, sequence_id: int, kv_start: int) -> int:
        seat = self.taken.get(sequence_id)
        if seat is None:  # else it is seated anew, for a step that failed after it was
            seat = self.taken[sequence_id] = self.free.pop()
        self.starts[sequence_id] = kv_start
        return seat

    def release(self, sequence_id: int) -> None:
        self.free.append(self.taken.pop(sequence_id))
        del self.starts[sequence_id]
