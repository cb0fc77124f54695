"""Rotary positions, and the store of new keys and values: the step between a prompt's projection and its attention."""

from __future__ import annotations

import torch
from torch import Tensor

from light_tts.kernels.kv_rows import KVRows, round_to_int8
from light_tts.kernels.lang import jit, power_of_two, tl


def rotary_tables(
    num_positions: int, head_dim: int, theta: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosine and sine by position, each (num_positions, head_dim / 2) float32."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    angles = torch.outer(torch.arange(num_positions).float(), 1.0 / theta**exponents)
    return angles.cos().to(device), angles.sin().to(device)


def rotate_reference(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (i, i + head_dim / 2). x: (N, heads, head_dim); cos, sin: (N, head_dim / 2). float32."""
    first, second = x.float().chunk(2, dim=-1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def rotary_store_reference(
    qkv: Tensor,
    heads: int,
    keys: KVRows,
    values: KVRows,
    positions: Tensor,
    slots: Tensor,
    cos: Tensor,
    sin: Tensor,
) -> Tensor:
    """Rotated queries; rotated keys, and values, go into the cache.

    qkv: (N, (heads + 2 * kv_heads) * head_dim), biases added
    positions, slots: (N,) int32; cos, sin: as of `rotary_tables`
    Returns (N, heads, head_dim).
    """
    _, kv_heads, head_dim = keys.data.shape
    rows = qkv.view(len(qkv), heads + 2 * kv_heads, head_dim)
    index = positions.long()
    rotated = rotate_reference(rows[:, : heads + kv_heads], cos[index], sin[index]).to(qkv.dtype)
    keys.write(slots.long(), rotated[:, heads:])
    values.write(slots.long(), rows[:, heads + kv_heads :])
    return rotated[:, :heads].contiguous()


@jit()
def _kernel(
    qkv, query, keys, values, key_scales, value_scales, positions, slots, cos, sin,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, DIM: tl.constexpr, ROWS: tl.constexpr, INT8: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    position = tl.load(positions + token)
    slot = tl.load(slots + token).to(tl.int64)
    head = tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, DIM)[None, :]
    total: tl.constexpr = HEADS + 2 * KV_HEADS
    base = qkv + token * total * DIM
    inside = head < total
    numbers = tl.load(base + head * DIM + column, mask=inside, other=0.0)
    other = tl.load(base + head * DIM + (column + DIM // 2) % DIM, mask=inside, other=0.0)
    c = tl.load(cos + position * (DIM // 2) + column % (DIM // 2))
    s = tl.load(sin + position * (DIM // 2) + column % (DIM // 2))
    s = tl.where(column < DIM // 2, -s, s)
    rotated = (numbers.to(tl.float32) * c + other.to(tl.float32) * s).to(numbers.dtype)
    numbers = tl.where(head < HEADS + KV_HEADS, rotated, numbers)
    tl.store(query + token * HEADS * DIM + head * DIM + column, numbers, mask=head < HEADS)
    is_key = (head >= HEADS) & (head < HEADS + KV_HEADS)
    is_value = (head >= HEADS + KV_HEADS) & inside
    key_at = slot * KV_HEADS + head - HEADS
    value_at = key_at - KV_HEADS
    if INT8:
        wide = numbers.to(tl.float32)
        scales = (tl.max(tl.abs(wide), axis=1) / 127)[:, None]
        small = round_to_int8(wide, scales)
        tl.store(keys + key_at * DIM + column, small, mask=is_key)
        tl.store(values + value_at * DIM + column, small, mask=is_value)
        tl.store(key_scales + key_at, scales, mask=is_key)
        tl.store(value_scales + value_at, scales, mask=is_value)
    else:
        tl.store(keys + key_at * DIM + column, numbers, mask=is_key)
        tl.store(values + value_at * DIM + column, numbers, mask=is_value)


def rotary_store_triton(
    qkv: Tensor,
    heads: int,
    keys: KVRows,
    values: KVRows,
    positions: Tensor,
    slots: Tensor,
    cos: Tensor,
    sin: Tensor,
) -> Tensor:
    """As the reference; head_dim must be a power of two."""
    _, kv_heads, head_dim = keys.data.shape
    query = torch.empty((len(qkv), heads, head_dim), dtype=qkv.dtype, device=qkv.device)
    if len(qkv):
        _kernel[(len(qkv),)](
            qkv,
            query,
            keys.data,
            values.data,
            keys.device_scales,
            values.device_scales,
            positions,
            slots,
            cos,
            sin,
            HEADS=heads,
            KV_HEADS=kv_heads,
            DIM=head_dim,
            ROWS=power_of_two(heads + 2 * kv_heads),
            INT8=keys.scales is not None,
            num_warps=2,
        )
    return query
