"""Keys and values as they are kept, in the model's type or in 8 bits, and how they are rounded to 8 bits."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from light_tts.kernels.lang import jit, tl


class KVRows(NamedTuple):
    """Keys or values of one layer.

    data: (num_slots, kv_heads, head_dim), in the model's type or int8
    scales: None, or (num_slots, kv_heads, 1) float32: what the int8 numbers are multiples of
    """

    data: Tensor
    scales: Tensor | None = None

    def write(self, slots: Tensor, rows: Tensor) -> None:
        """rows: (N, kv_heads, head_dim), to `slots` (N,) int64. Where a slot is given twice, one of the two stays."""
        if self.scales is None:
            self.data[slots] = rows
            return
        numbers, scales = quantise_reference(rows)
        self.data[slots] = numbers
        self.scales[slots] = scales

    def read(self, slots: Tensor) -> Tensor:
        """(..., kv_heads, head_dim) float32 of `slots` (...)."""
        data = self.data[slots].float()
        return data if self.scales is None else data * self.scales[slots]

    @property
    def device_scales(self) -> Tensor:
        """What kernels are given: `data` where there are no scales, which they do not read then."""
        return self.data if self.scales is None else self.scales


def quantise_reference(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(..., head_dim) to int8 and (..., 1) float32 scales, by which the largest number becomes 127."""
    rows = rows.float()
    scales = rows.abs().amax(dim=-1, keepdim=True) / 127
    numbers = (rows / scales.clamp_min(torch.finfo(torch.float32).tiny)).round()
    return numbers.nan_to_num().to(torch.int8), scales


@jit()
def round_to_int8(rows, scales):
    """`rows` / `scales`, which broadcast, to the nearest integer, to the even one of two."""
    numbers = rows / tl.maximum(scales, 1.1754943508222875e-38)
    # Added to so large a number, float32 has no fraction left; what remains is rounded as IEEE says.
    return ((numbers + 12582912.0) - 12582912.0).to(tl.int8)
