"""Attention of one new token per sequence over its cached keys and values, which gain that token.

Each program takes the query heads that share a key head, and a share of the sequence's length (split-K). The program
of the first share also rotates and stores the new key and value. Shares meet in a workspace; the last to come adds
them up in their order, so that the result does not depend on which that is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from light_tts.kernels.kv_rows import KVRows, round_to_int8
from light_tts.kernels.lang import jit, overlap, power_of_two, tl, wait_for_earlier
from light_tts.kernels.rotary import rotate_reference
from light_tts.kernels.workspace import Workspace

MIN_GROUP = 16  # rows of the smallest matrix product on tensor cores
_LOG2_E = 1.4426950408889634


def flash_decode_reference(
    qkv: Tensor,
    heads: int,
    keys: KVRows,
    values: KVRows,
    row_start: Tensor,
    row_pos: Tensor,
    cos: Tensor,
    sin: Tensor,
    max_len: int,
) -> Tensor:
    """Rotary positions, store of the new keys and values, attention.

    qkv: (B, (heads + 2 * kv_heads) * head_dim), biases added, one new token of each sequence
    row_start, row_pos: (B,) int32: the sequence's first slot, and how many tokens it has there already
    cos, sin: as of `rotary_tables`; max_len: no sequence has more tokens, the new one included
    Returns (B, heads * head_dim).
    """
    num_slots, kv_heads, head_dim = keys.data.shape
    rows = qkv.view(len(qkv), heads + 2 * kv_heads, head_dim)
    position = row_pos.long()
    rotated = rotate_reference(rows[:, : heads + kv_heads], cos[position], sin[position]).to(qkv.dtype)
    slot = row_start.long() + position
    keys.write(slot, rotated[:, heads:])
    values.write(slot, rows[:, heads + kv_heads :])
    index = torch.arange(max_len, device=qkv.device)
    slots = (row_start.long()[:, None] + index).clamp_max(num_slots - 1)
    seen = (index <= position[:, None])[:, None, None]  # (B, 1, 1, max_len)
    query = rotated[:, :heads].float().view(len(qkv), kv_heads, heads // kv_heads, head_dim)
    scores = torch.einsum("bkgd,blkd->bkgl", query, keys.read(slots)) * head_dim**-0.5
    weights = scores.masked_fill(~seen, -torch.inf).softmax(dim=-1)
    # Slots that nobody has written to may hold NaN, which a weight of zero would not remove.
    held = torch.where(seen[:, 0, 0, :, None, None], values.read(slots), 0.0)
    return torch.einsum("bkgl,blkd->bkgd", weights, held).to(qkv.dtype).reshape(len(qkv), -1)


@jit()
def _rotate(base, d, position, cos, sin, inside, DIM: tl.constexpr):
    """Loads numbers at `base` + d and rotates them; d: 0 .. DIM - 1 in the last dimension of what is loaded."""
    numbers = tl.load(base + d, mask=inside, other=0.0)
    other = tl.load(base + (d + DIM // 2) % DIM, mask=inside, other=0.0)
    c = tl.load(cos + position * (DIM // 2) + d % (DIM // 2))
    s = tl.load(sin + position * (DIM // 2) + d % (DIM // 2))
    s = tl.where(d < DIM // 2, -s, s)
    return (numbers.to(tl.float32) * c + other.to(tl.float32) * s).to(numbers.dtype)


@jit()
def _store_new(row, data, scales, at, d, DIM: tl.constexpr, INT8: tl.constexpr):
    """Stores one new key or value (DIM,); returns it as it will be read, float32."""
    wide = row.to(tl.float32)
    if INT8:
        scale = tl.max(tl.abs(wide), axis=0) / 127
        small = round_to_int8(wide, scale)
        tl.store(data + at * DIM + d, small)
        tl.store(scales + at, scale)
        wide = small.to(tl.float32) * scale
    else:
        tl.store(data + at * DIM + d, row)
    return wide


@jit()
def _add_up(
    acc_parts, max_parts, sum_parts, used, GROUP: tl.constexpr, DIM: tl.constexpr
):  # fmt: skip
    """The attention output (GROUP, DIM) of all shares, in their order. Read past the L1 cache: others wrote it."""
    g = tl.arange(0, GROUP)
    d = tl.arange(0, DIM)
    acc = tl.zeros((GROUP, DIM), tl.float32)
    top = tl.full((GROUP,), float("-inf"), tl.float32)
    total = tl.zeros((GROUP,), tl.float32)
    for part in range(0, used):
        part_top = tl.load(max_parts + part * GROUP + g, cache_modifier=".cg")
        part_sum = tl.load(sum_parts + part * GROUP + g, cache_modifier=".cg")
        part_acc = tl.load(
            acc_parts + (part * GROUP + g[:, None]) * DIM + d[None, :], cache_modifier=".cg"
        )  # fmt: skip
        new_top = tl.maximum(top, part_top)
        old = tl.exp2(top - new_top)
        new = tl.exp2(part_top - new_top)
        acc = acc * old[:, None] + part_acc * new[:, None]
        total = total * old + part_sum * new
        top = new_top
    return acc / total[:, None]


@jit()
def _kernel(
    qkv, keys, values, key_scales, value_scales, row_start, row_pos, cos, sin, out, parts, arrivals,
    scale, HEADS: tl.constexpr, KV_HEADS: tl.constexpr, DIM: tl.constexpr, GROUP: tl.constexpr,
    SPLIT: tl.constexpr, BLOCK: tl.constexpr, INT8: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    wait_for_earlier(PDL)
    row = tl.program_id(0)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    start = tl.load(row_start + row).to(tl.int64)
    position = tl.load(row_pos + row)
    # The earlier tokens 0 .. position - 1 are shared out in whole blocks.
    share = tl.cdiv(tl.cdiv(position, BLOCK), SPLIT) * BLOCK
    used = tl.maximum(tl.cdiv(position, tl.maximum(share, 1)), 1)
    if split < used:
        group: tl.constexpr = HEADS // KV_HEADS
        g = tl.arange(0, GROUP)
        d = tl.arange(0, DIM)
        row_base = qkv + row.to(tl.int64) * (HEADS + 2 * KV_HEADS) * DIM
        heads_at = row_base + (kv_head * group + g[:, None]) * DIM
        query = _rotate(heads_at, d[None, :], position, cos, sin, (g < group)[:, None], DIM)
        top = tl.full((GROUP,), float("-inf"), tl.float32)
        total = tl.zeros((GROUP,), tl.float32)
        acc = tl.zeros((GROUP, DIM), tl.float32)
        first = split * share
        stop = tl.minimum(first + share, position)
        for at in range(first, stop, BLOCK):
            n = at + tl.arange(0, BLOCK)
            inside = n < stop
            slot = (start + n) * KV_HEADS + kv_head
            key = tl.load(keys + slot[None, :] * DIM + d[:, None], mask=inside[None, :], other=0.0)
            value = tl.load(values + slot[:, None] * DIM + d[None, :], mask=inside[:, None], other=0.0)
            scores = tl.dot(query, key.to(query.dtype), input_precision="ieee") * scale
            if INT8:
                scores *= tl.load(key_scales + slot, mask=inside, other=0.0)[None, :]
            scores = tl.where(inside[None, :], scores, float("-inf"))
            new_top = tl.maximum(top, tl.max(scores, axis=1))
            weights = tl.exp2(scores - new_top[:, None])
            old = tl.exp2(top - new_top)
            total = total * old + tl.sum(weights, axis=1)
            if INT8:
                weights *= tl.load(value_scales + slot, mask=inside, other=0.0)[None, :]
            acc = acc * old[:, None]
            acc = tl.dot(weights.to(query.dtype), value.to(query.dtype), acc, input_precision="ieee")
            top = new_top
        if split == 0:
            key_base = row_base + (HEADS + kv_head) * DIM
            new_slot = (start + position) * KV_HEADS + kv_head
            new_key = _rotate(key_base, d, position, cos, sin, d < DIM, DIM)
            new_value = tl.load(key_base + KV_HEADS * DIM + d)
            key_read = _store_new(new_key, keys, key_scales, new_slot, d, DIM, INT8)
            value_read = _store_new(new_value, values, value_scales, new_slot, d, DIM, INT8)
            score = tl.sum(query.to(tl.float32) * key_read[None, :], axis=1) * scale
            new_top = tl.maximum(top, score)
            weight = tl.exp2(score - new_top)
            old = tl.exp2(top - new_top)
            total = total * old + weight
            acc = acc * old[:, None] + weight[:, None] * value_read[None, :]
            top = new_top
        out_at = out + row.to(tl.int64) * HEADS * DIM + (kv_head * group + g[:, None]) * DIM + d[None, :]
        if used == 1:
            tl.store(out_at, (acc / total[:, None]).to(out.dtype.element_ty), mask=(g < group)[:, None])
        else:
            tile = row * KV_HEADS + kv_head
            num_parts = tl.num_programs(0) * KV_HEADS * SPLIT
            acc_parts = parts + tile.to(tl.int64) * SPLIT * GROUP * DIM
            max_parts = parts + num_parts.to(tl.int64) * GROUP * DIM + tile * SPLIT * GROUP
            sum_parts = max_parts + num_parts * GROUP
            tl.store(acc_parts + (split * GROUP + g[:, None]) * DIM + d[None, :], acc)
            tl.store(max_parts + split * GROUP + g, top)
            tl.store(sum_parts + split * GROUP + g, total)
            tl.debug_barrier()  # all threads have stored before one of them says so
            arrived = tl.atomic_add(arrivals + tile, 1, sem="acq_rel", scope="gpu")
            if arrived == used - 1:
                result = _add_up(acc_parts, max_parts, sum_parts, used, GROUP, DIM)
                tl.store(out_at, result.to(out.dtype.element_ty), mask=(g < group)[:, None])
                tl.store(arrivals + tile, 0)


def splits_for(num_rows: int, kv_heads: int, max_len: int, block: int) -> int:
    """How many programs share a sequence: about two for each of a large GPU's processors, each with work to do."""
    wanted = max(1, 256 // (num_rows * kv_heads))
    return min(power_of_two(wanted + 1) // 2, 32, power_of_two(-(-max_len // block)))


def flash_decode_triton(
    qkv: Tensor,
    heads: int,
    keys: KVRows,
    values: KVRows,
    row_start: Tensor,
    row_pos: Tensor,
    cos: Tensor,
    sin: Tensor,
    max_len: int,
    workspace: Workspace,
    block: int = 64,
    pdl: int = 0,
) -> Tensor:
    """As the reference; head_dim must be a power of two, 16 at least. block: tokens that are read at a time"""
    _, kv_heads, head_dim = keys.data.shape
    num_rows = len(qkv)
    out = torch.empty((num_rows, heads * head_dim), dtype=qkv.dtype, device=qkv.device)
    group = max(MIN_GROUP, power_of_two(heads // kv_heads))
    split = splits_for(num_rows, kv_heads, max_len, block)
    tiles = num_rows * kv_heads
    workspace.check(tiles * split * group * (head_dim + 2), tiles)
    _kernel[(num_rows, kv_heads, split)](
        qkv,
        keys.data,
        values.data,
        keys.device_scales,
        values.device_scales,
        row_start,
        row_pos,
        cos,
        sin,
        out,
        workspace.numbers,
        workspace.arrivals,
        head_dim**-0.5 * _LOG2_E,
        HEADS=heads,
        KV_HEADS=kv_heads,
        DIM=head_dim,
        GROUP=group,
        SPLIT=split,
        BLOCK=block,
        INT8=keys.scales is not None,
        PDL=pdl,
        num_warps=4,
        num_stages=3,
        **overlap(pdl),
    )
    return out
