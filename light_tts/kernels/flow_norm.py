"""LayerNorm of the flow estimators, with what comes before and after it in the same pass over the rows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from light_tts.kernels.lang import jit, power_of_two, tl


def add_layer_norm_reference(
    x: Tensor, delta: Tensor | None, gate: Tensor | None, scale: Tensor, shift: Tensor, eps: float
) -> Tensor:
    """LayerNorm of x + gate * delta, which replaces x.

    x: (N, size) float32 or half; delta: (N, size) half; gate, scale, shift: (size,); no gate is a gate of ones
    Returns normed * scale + shift, (N, size), in the type of `scale`. Arithmetic is float32.
    """
    if delta is not None:
        moved = delta.float() if gate is None else delta.float() * gate.float()
        x.copy_(x.float() + moved)
    return F.layer_norm(x.float(), x.shape[-1:], scale.float(), shift.float(), eps).to(scale.dtype)


def norm_mish_reference(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    eps: float,
    vector: Tensor | None,
    residual: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """mish(LayerNorm(x)) + vector + residual.

    x: (N, size); scale, shift, vector: (size,); residual: (N, size)
    Returns (N, size) in `dtype`. Arithmetic is float32.
    """
    out = F.mish(F.layer_norm(x.float(), x.shape[-1:], scale.float(), shift.float(), eps))
    if vector is not None:
        out = out + vector.float()
    if residual is not None:
        out = out + residual.float()
    return out.to(dtype)


@jit("rows")
def _add_layer_norm(
    x, delta, gate, scale, shift, out, rows, eps,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, ADD: tl.constexpr, GATE: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (column < SIZE)[None, :]
    at = row.to(tl.int64)[:, None] * SIZE + column[None, :]
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        moved = tl.load(delta + at, mask=inside, other=0.0).to(tl.float32)
        if GATE:
            moved *= tl.load(gate + column, mask=column < SIZE, other=0.0).to(tl.float32)[None, :]
        value = (value + moved).to(x.dtype.element_ty)
        tl.store(x + at, value, mask=inside)
        value = value.to(tl.float32)
    mean = tl.sum(value, axis=1) / SIZE
    centred = tl.where(inside, value - mean[:, None], 0.0)
    normed = centred * tl.rsqrt(tl.sum(centred * centred, axis=1) / SIZE + eps)[:, None]
    weight = tl.load(scale + column, mask=column < SIZE, other=0.0).to(tl.float32)
    bias = tl.load(shift + column, mask=column < SIZE, other=0.0).to(tl.float32)
    normed = normed * weight[None, :] + bias[None, :]
    tl.store(out + at, normed.to(out.dtype.element_ty), mask=inside)


@jit("rows")
def _norm_mish(
    x, scale, shift, vector, residual, out, rows, eps,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, VECTOR: tl.constexpr, RESIDUAL: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (column < SIZE)[None, :]
    at = row.to(tl.int64)[:, None] * SIZE + column[None, :]
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(value, axis=1) / SIZE
    centred = tl.where(inside, value - mean[:, None], 0.0)
    normed = centred * tl.rsqrt(tl.sum(centred * centred, axis=1) / SIZE + eps)[:, None]
    weight = tl.load(scale + column, mask=column < SIZE, other=0.0).to(tl.float32)
    bias = tl.load(shift + column, mask=column < SIZE, other=0.0).to(tl.float32)
    y = normed * weight[None, :] + bias[None, :]
    # mish(y) = y tanh(log(1 + e^y)) = y n / (n + 2) with n = e^y (e^y + 2); for large y it is y.
    e = tl.exp(tl.minimum(y, 20.0))
    n = e * (e + 2.0)
    y = y * (n / (n + 2.0))
    if VECTOR:
        y += tl.load(vector + column, mask=column < SIZE, other=0.0).to(tl.float32)[None, :]
    if RESIDUAL:
        y += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, y.to(out.dtype.element_ty), mask=inside)


def _rows_per_program(size: int) -> int:
    """2048 numbers for four warps."""
    return max(1, 2048 // power_of_two(size))


def add_layer_norm_triton(
    x: Tensor, delta: Tensor | None, gate: Tensor | None, scale: Tensor, shift: Tensor, eps: float
) -> Tensor:
    """As the reference; all are contiguous."""
    rows, size = x.shape
    out = torch.empty(rows, size, dtype=scale.dtype, device=x.device)
    per = _rows_per_program(size)
    _add_layer_norm[(-(-rows // per),)](
        x, x if delta is None else delta, scale if gate is None else gate, scale, shift, out, rows, eps,
        SIZE=size, BLOCK=power_of_two(size), ROWS=per, ADD=delta is not None, GATE=gate is not None, num_warps=4,
    )  # fmt: skip
    return out


def norm_mish_triton(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    eps: float,
    vector: Tensor | None,
    residual: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """As the reference; all are contiguous."""
    rows, size = x.shape
    out = torch.empty(rows, size, dtype=dtype, device=x.device)
    per = _rows_per_program(size)
    _norm_mish[(-(-rows // per),)](
        x, scale, shift, scale if vector is None else vector, x if residual is None else residual, out, rows, eps,
        SIZE=size, BLOCK=power_of_two(size), ROWS=per,
        VECTOR=vector is not None, RESIDUAL=residual is not None, num_warps=4,
    )  # fmt: skip
    return out
