"""Memory of all streams of a process: allocated once, lent out in runs of mel frames."""

from __future__ import annotations

import threading
from bisect import insort
from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from light_tts.models.flow.fast.estimator import TailShape

BLOCK = 100  # frames: what is lent out is a multiple of it


@dataclass(frozen=True, slots=True)
class PoolShape:
    """halves: rows that the estimator has of a stream, 2 with guidance; ratio: frames per token

    layers, inner: of the estimator; token_layers, mel_layers, width: of the encoder
    """

    steps: int
    layers: int
    inner: int
    halves: int
    ratio: int
    tails: tuple[TailShape, ...]
    token_layers: int
    mel_layers: int
    width: int
    encoder_tails: tuple[TailShape, ...]
    dtype: torch.dtype

    @property
    def bytes_per_frame(self) -> int:
        estimator = self.steps * self.layers * self.halves * 2 * self.inner
        encoder = self.width * (self.mel_layers + self.token_layers // self.ratio + 1)
        return (estimator + encoder) * self.dtype.itemsize


@dataclass(slots=True, eq=False)
class Lease:
    """A stream's part: `capacity` frames from `start` on, and the tails of `slot`. Goes back when nobody holds it."""

    pool: StreamPool
    start: int
    capacity: int
    slot: int

    @property
    def num_bytes(self) -> int:
        return self.capacity * self.pool.shape.bytes_per_frame

    def key_row(self, half: int) -> int:
        """The first row of the estimator's keys and values."""
        return self.start * self.pool.shape.halves + half * self.capacity

    def entry(self, parity: int, half: int) -> int:
        """Of the tails: a call reads those of one parity and writes those of the other, so that it can be repeated."""
        return (2 * self.slot + parity) * self.pool.shape.halves + half

    def __del__(self) -> None:
        # Not more than that: a lease may be collected anywhere, also while its own thread changes the lists.
        self.pool._returned.append((self.start, self.capacity, self.slot))


class StreamPool:
    """keys_values: (steps, layers, rows, 2, inner); tails: per convolution (steps or 1, entries, length, C)

    Frames 0 to BLOCK - 1 and slot 0 belong to nobody: rows that only pad a batch write there.
    """

    def __init__(self, shape: PoolShape, num_frames: int, num_slots: int, device: torch.device) -> None:
        num_slots = min(num_slots, num_frames // BLOCK)  # a lease takes a block at least
        self.shape, self.num_slots = shape, num_slots
        self.num_frames = (num_frames // BLOCK + 1) * BLOCK

        def zeros(*size: int) -> Tensor:
            return torch.zeros(size, dtype=shape.dtype, device=device)

        def tails(wanted: tuple[TailShape, ...]) -> tuple[Tensor, ...]:
            entries = (num_slots + 1) * 2 * shape.halves
            return tuple(
                zeros(shape.steps if t.each_step else 1, entries, t.length, t.channels) for t in wanted
            )

        rows = self.num_frames * shape.halves
        self.keys_values = zeros(shape.steps, shape.layers, rows, 2, shape.inner)
        self.tails = tails(shape.tails)
        self.token_kv = zeros(shape.token_layers, self.num_frames // shape.ratio, shape.width)
        self.mel_kv = zeros(shape.mel_layers, self.num_frames, shape.width)
        self.encoder_tails = tails(shape.encoder_tails)
        self._free: list[tuple[int, int]] = [(BLOCK, self.num_frames - BLOCK)]  # start, frames
        self._slots = list(range(num_slots, 0, -1))
        self._returned: deque[tuple[int, int, int]] = deque()  # start, frames, slot
        self._lock = threading.Lock()

    @property
    def free_frames(self) -> int:
        with self._lock:
            self._take_back()
            return sum(length for _, length in self._free)

    def lend(self, num_frames: int) -> Lease | None:
        """At least so many frames; None where there is no such run, or no slot."""
        wanted = max(1, -(-num_frames // BLOCK)) * BLOCK
        with self._lock:
            self._take_back()
            for index, (start, length) in enumerate(self._free):
                if length >= wanted and self._slots:
                    rest = (start + wanted, length - wanted)
                    self._free[index : index + 1] = [rest] if rest[1] else []
                    return Lease(self, start, wanted, self._slots.pop())
        return None

    def copy(self, source: Lease, target: Lease, num_frames: int) -> None:
        """What a stream of `num_frames` frames holds, to another lease."""
        for half in range(self.shape.halves):
            to, of = target.key_row(half), source.key_row(half)
            self.keys_values[:, :, to : to + num_frames] = self.keys_values[:, :, of : of + num_frames]
        size, tokens, ratio = num_frames, num_frames // self.shape.ratio, self.shape.ratio
        self.mel_kv[:, target.start :][:, :size] = self.mel_kv[:, source.start :][:, :size]
        self.token_kv[:, target.start // ratio :][:, :tokens] = self.token_kv[:, source.start // ratio :][
            :, :tokens
        ]
        both = 2 * self.shape.halves
        to, of = target.entry(0, 0), source.entry(0, 0)
        for tail in (*self.tails, *self.encoder_tails):
            tail[:, to : to + both] = tail[:, of : of + both]

    def clear_tails(self, lease: Lease) -> None:
        """As at the start of a stream."""
        first = lease.entry(0, 0)
        for tail in (*self.tails, *self.encoder_tails):
            tail[:, first : first + 2 * self.shape.halves] = 0

    def _take_back(self) -> None:
        """Under the lock."""
        while self._returned:
            start, capacity, slot = self._returned.popleft()
            self._slots.append(slot)
            insort(self._free, (start, capacity))
        merged: list[tuple[int, int]] = []
        for start, length in self._free:
            if merged and sum(merged[-1]) == start:
                merged[-1] = (merged[-1][0], merged[-1][1] + length)
            else:
                merged.append((start, length))
        self._free = merged
