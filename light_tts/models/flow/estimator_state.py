"""What a flow estimator remembers of a stream: its convolutions' left context and its attention's past."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from light_tts.models.layers.causal_conv import with_left_context
from light_tts.models.layers.ragged import Frames, join_past, next_past, next_tail


@dataclass(frozen=True, slots=True)
class EstimatorState:
    """A value: calls return a new one and never write into the old, so several streams may continue from it.

    With streaming masks a call must end on a chunk border for its state to be continued exactly, since the
    frames of a started chunk would still see what comes later.

    tails: one (B, kernel_size - 1, C) per causal convolution, in the order of the forward pass
    past: (B, attentions, 2, heads, max_past, head_dim) keys and values, rows right-aligned, left-padded
    """

    tails: tuple[Tensor, ...]
    past: Tensor

    @property
    def num_rows(self) -> int:
        return self.past.shape[0]

    @property
    def max_past(self) -> int:
        return self.past.shape[-2]

    def row(self, index: int) -> EstimatorState:
        """One row, as views and with its padding."""
        rows = slice(index, index + 1)
        return EstimatorState(tuple(tail[rows] for tail in self.tails), self.past[rows])

    def take(self, rows: list[int], past_len: int) -> EstimatorState:
        """A copy of some rows, of which the last `past_len` frames are kept."""
        index = torch.tensor(rows, device=self.past.device)
        past = self.past.narrow(-2, self.max_past - past_len, past_len)
        return EstimatorState(
            tuple(tail.index_select(0, index) for tail in self.tails), past.index_select(0, index)
        )

    def split(self, past_lens: Tensor) -> list[EstimatorState]:
        """One state per row, without padding and with memory of its own.

        past_lens: (B,) on the CPU, frames that each row has processed
        """
        return [self.take([row], past_len) for row, past_len in enumerate(past_lens.tolist())]

    @classmethod
    def stack(cls, states: Sequence[EstimatorState | None]) -> EstimatorState | None:
        """Put the rows of several states into one batch. None stands for one stream that only begins.

        Returns None when all of them only begin.
        """
        known = [state for state in states if state is not None]
        if not known:
            return None
        max_past = max(state.max_past for state in known)
        fresh = known[0].row(0)
        fresh = cls(tuple(torch.zeros_like(tail) for tail in fresh.tails), fresh.past[..., :0, :])
        rows = [fresh if state is None else state for state in states]
        tails = tuple(torch.cat(parts) for parts in zip(*(state.tails for state in rows), strict=True))
        return cls(tails, torch.cat([F.pad(row.past, (0, 0, max_past - row.max_past, 0)) for row in rows]))


class Velocity(Protocol):
    """An estimator with all its inputs fixed but x and t."""

    def __call__(
        self, x: Tensor, time: Tensor, state: EstimatorState | None, keep_state: bool
    ) -> tuple[Tensor, EstimatorState | None]:
        """x: (B, T, mel) channels last; time: from `embed_times`, one entry per row or one for all.

        Returns the velocity (B, T, mel), meaningless on padding, and the state after these frames if wanted.
        """


class Carry:
    """Hands each layer of one call its part of the old state, in forward order, and collects the new one."""

    def __init__(
        self, frames: Frames, state: EstimatorState | None, keep: bool, known_tails: tuple[Tensor, ...] = ()
    ) -> None:
        """known_tails: the first of the new state's tails, where the caller has computed them already."""
        self._frames = frames
        self._state = state
        self._keep = keep
        self._tails = list(known_tails)
        self._num_tails = len(known_tails)
        self._num_attentions = 0
        self._new_past: list[Tensor] = []

    def left_context(self, x: Tensor, length: int) -> Tensor:
        """(B, T, C) to (B, length + T, C): the input of a causal convolution."""
        tail = self._state.tails[self._num_tails] if self._state else None
        self._num_tails += 1
        joined = with_left_context(x, tail, length)
        if self._keep:
            self._tails.append(next_tail(joined, self._frames, 1, length))
        return joined

    def attended(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the new frames (B, heads, T, head_dim), with those of the past before them."""
        layer = self._num_attentions
        self._num_attentions += 1
        if self._keep:
            self._new_past.append(torch.stack([key, value], dim=1))
        if self._state is None:
            return key, value
        past = self._state.past[:, layer]
        return torch.cat([past[:, 0], key], dim=2), torch.cat([past[:, 1], value], dim=2)

    def next_state(self) -> EstimatorState | None:
        """The state after this call; None unless it was asked for."""
        if not self._keep:
            return None
        new = torch.stack(self._new_past, dim=1)
        joined = join_past(self._state.past if self._state else None, new, dim=-2)
        return EstimatorState(tuple(self._tails), next_past(joined, self._frames, dim=-2))
