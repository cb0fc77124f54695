"""Residual sum and RMSNorm in one pass over the rows."""

from __future__ import annotations

import torch
from torch import Tensor

from light_tts.kernels.lang import jit, overlap, power_of_two, tl


def add_rms_norm_reference(x: Tensor, delta: Tensor | None, weight: Tensor | None, eps: float) -> Tensor:
    """RMSNorm of x + delta, which replaces x.

    x, delta: (N, size); weight: (size,), None for ones
    Returns (N, size). The sum is rounded to x's type before it is normalised; all else is float32.
    """
    if delta is not None:
        x.add_(delta)
    numbers = x.float()
    normed = numbers * torch.rsqrt(numbers.square().mean(dim=-1, keepdim=True) + eps)
    return (normed if weight is None else normed * weight.float()).to(x.dtype)


@jit()
def _kernel(
    x, delta, weight, out, size, eps, ADD: tl.constexpr, SCALE: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * size
    column = tl.arange(0, BLOCK)
    inside = column < size
    row = tl.load(x + at + column, mask=inside, other=0.0)
    if ADD:
        row = row.to(tl.float32) + tl.load(delta + at + column, mask=inside, other=0.0).to(tl.float32)
        row = row.to(x.dtype.element_ty)
        tl.store(x + at + column, row, mask=inside)
    numbers = row.to(tl.float32)
    normed = numbers * tl.rsqrt(tl.sum(numbers * numbers, axis=0) / size + eps)
    if SCALE:
        normed *= tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at + column, normed.to(out.dtype.element_ty), mask=inside)


def add_rms_norm_triton(x: Tensor, delta: Tensor | None, weight: Tensor | None, eps: float) -> Tensor:
    """As the reference; rows must be contiguous."""
    out = torch.empty_like(x)
    if len(x):
        size = x.shape[-1]
        _kernel[(len(x),)](
            x,
            x if delta is None else delta,
            x if weight is None else weight,
            out,
            size,
            eps,
            ADD=delta is not None,
            SCALE=weight is not None,
            BLOCK=power_of_two(size),
            num_warps=4,
            **overlap(False),
        )
    return out
