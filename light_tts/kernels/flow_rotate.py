"""CosyVoice3's rotary positions: the first head of queries and keys alone, in place."""

from __future__ import annotations

import torch
from torch import Tensor

from light_tts.kernels.lang import jit, tl


def rotate_first_head_reference(qkv: Tensor, cos: Tensor, sin: Tensor) -> None:
    """qkv: (N, 3 * inner), changed in place; cos, sin: (N, head_dim / 2), for neighbouring pairs of features."""
    size = 2 * cos.shape[1]
    for start in (0, qkv.shape[1] // 3):
        head = qkv[:, start : start + size]
        even, odd = head.float().unflatten(-1, (-1, 2)).unbind(-1)
        rotated = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1)
        head.copy_(rotated.flatten(-2))


@jit("rows")
def _rotate(qkv, cos, sin, rows, width, inner, HALF: tl.constexpr, ROWS: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    pair = tl.arange(0, HALF)
    inside = (row < rows)[:, None] & (pair >= 0)[None, :]
    angle = row[:, None] * HALF + pair[None, :]
    c = tl.load(cos + angle, mask=inside, other=0.0).to(tl.float32)
    s = tl.load(sin + angle, mask=inside, other=0.0).to(tl.float32)
    at = qkv + row.to(tl.int64)[:, None] * width + tl.program_id(1) * inner + 2 * pair[None, :]
    even = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    odd = tl.load(at + 1, mask=inside, other=0.0).to(tl.float32)
    tl.store(at, (even * c - odd * s).to(qkv.dtype.element_ty), mask=inside)
    tl.store(at + 1, (odd * c + even * s).to(qkv.dtype.element_ty), mask=inside)


def rotate_first_head_triton(qkv: Tensor, cos: Tensor, sin: Tensor) -> None:
    """As the reference; all are contiguous, head_dim is a power of two."""
    rows, width = qkv.shape
    per = 32
    _rotate[(-(-rows // per), 2)](
        qkv, cos, sin, rows, width, width // 3, HALF=cos.shape[1], ROWS=per, num_warps=4
    )
