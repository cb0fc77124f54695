"""How one call of an estimator lies over its batch: its rows, their pasts, and who sees whom."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from light_tts.kernels.flow_windows import Tails
from light_tts.models.flow.fast.ops import Ops, Segments


@dataclass(frozen=True, slots=True)
class Past:
    """Memory of streams, and which parts of it belong to the rows.

    keys_values: (steps, layers, rows, 2, inner); places: (R * T,) int64, the row of it that a new frame's go to
    tails: per convolution (steps, entries, taps - 1, C)
    read, write: (R,) int32, entries of `tails`
    """

    keys_values: Tensor
    places: Tensor
    tails: tuple[Tensor, ...]
    read: Tensor
    write: Tensor


@dataclass(frozen=True, slots=True)
class Binding:
    """num_rows: R; num_frames: T, padded; new_lens: (R,) int32; positions: (R * T,) int64 absolute frame numbers

    past: None where nothing came before and nothing is kept: keys are then the new frames' own
    """

    num_rows: int
    num_frames: int
    new_lens: Tensor
    positions: Tensor
    segments: Segments
    past: Past | None

    def tails(self, convolution: int, step: int) -> Tails | None:
        if self.past is None:
            return None
        memory = self.past.tails[convolution][step]
        return Tails(memory, self.past.read, self.past.write, self.new_lens)

    def keys_values(self, ops: Ops, qkv: Tensor, layer: int, step: int) -> Tensor:
        """(rows, 2, inner) that the segments count in; qkv: (R * T, 3 * inner), whose keys and values are kept."""
        inner = qkv.shape[1] // 3
        if self.past is None:
            return qkv[:, inner:].unflatten(1, (2, inner))
        memory = self.past.keys_values[step, layer]
        ops.store_rows(memory.flatten(1), self.past.places, qkv[:, inner:])
        return memory
