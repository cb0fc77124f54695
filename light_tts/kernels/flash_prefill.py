"""Causal attention of prompts, or of pieces of them, over their cached keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from light_tts.kernels.kv_rows import KVRows
from light_tts.kernels.lang import jit, power_of_two, tl

BLOCK_Q = 64
_BLOCK_KV = 64
_LOG2_E = 1.4426950408889634

Span = tuple[int, int, int]
"""A sequence's first slot, how many tokens it has there already, and how many are new."""


@dataclass(frozen=True, slots=True)
class PackedPrompts:
    """New tokens of several sequences, one after the other without padding.

    spans: the sequences, for the host
    positions, slots: (N,) int32, of each token
    sequences: (S, 4) int32: first row, number of rows, first slot, tokens there before
    blocks: (number of query blocks, 2) int32: sequence, first of its rows
    """

    spans: tuple[Span, ...]
    positions: Tensor
    slots: Tensor
    sequences: Tensor
    blocks: Tensor

    @classmethod
    def layout(cls, spans: Sequence[Span]) -> list[np.ndarray]:
        """The four arrays of int32, for whoever brings them to the device."""
        lens = [new for _, _, new in spans]
        starts = np.cumsum([0, *lens[:-1]])
        positions = [np.arange(past, past + new) for _, past, new in spans]
        slots = [start + held for (start, _, _), held in zip(spans, positions, strict=True)]
        sequences = [(row, new, start, past) for row, (start, past, new) in zip(starts, spans, strict=True)]
        blocks = [(index, first) for index, new in enumerate(lens) for first in range(0, new, BLOCK_Q)]
        parts = (np.concatenate(positions), np.concatenate(slots), np.array(sequences), np.array(blocks))
        return [part.astype(np.int32) for part in parts]

    @classmethod
    def pack(cls, spans: Sequence[Span], device: torch.device) -> PackedPrompts:
        return cls(tuple(spans), *(torch.from_numpy(part).to(device) for part in cls.layout(spans)))


def flash_prefill_reference(query: Tensor, keys: KVRows, values: KVRows, prompts: PackedPrompts) -> Tensor:
    """Each new token sees all tokens of its sequence up to itself, whose keys and values are in the cache.

    query: (N, heads, head_dim). Returns (N, heads * head_dim).
    """
    _, heads, head_dim = query.shape
    kv_heads = keys.data.shape[1]
    outs, row = [], 0
    for start, past, new in prompts.spans:
        slots = torch.arange(start, start + past + new, device=query.device)
        q = query[row : row + new].float().view(new, kv_heads, heads // kv_heads, head_dim)
        scores = torch.einsum("qkgd,lkd->kgql", q, keys.read(slots)) * head_dim**-0.5
        seen = torch.ones(new, past + new, dtype=torch.bool, device=query.device).tril(past)
        weights = scores.masked_fill(~seen, -torch.inf).softmax(dim=-1)
        out = torch.einsum("kgql,lkd->qkgd", weights, values.read(slots))
        outs.append(out.to(query.dtype).reshape(new, -1))
        row += new
    return torch.cat(outs)


@jit()
def _kernel(
    query, keys, values, key_scales, value_scales, sequences, blocks, out, scale,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, DIM: tl.constexpr, INT8: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0)
    head = tl.program_id(1)
    kv_head = head // (HEADS // KV_HEADS)
    sequence = sequences + tl.load(blocks + 2 * block) * 4
    first = tl.load(blocks + 2 * block + 1)
    query_start = tl.load(sequence)
    query_len = tl.load(sequence + 1)
    kv_start = tl.load(sequence + 2).to(tl.int64)
    past = tl.load(sequence + 3)
    m = first + tl.arange(0, BLOCK_M)
    d = tl.arange(0, DIM)
    at = ((query_start + m).to(tl.int64)[:, None] * HEADS + head) * DIM + d[None, :]
    q = tl.load(query + at, mask=(m < query_len)[:, None], other=0.0)
    top = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    acc = tl.zeros((BLOCK_M, DIM), tl.float32)
    stop = tl.minimum(past + first + BLOCK_M, past + query_len)
    for begin in range(0, stop, BLOCK_N):
        n = begin + tl.arange(0, BLOCK_N)
        inside = n < stop
        slot = (kv_start + n) * KV_HEADS + kv_head
        key = tl.load(keys + slot[None, :] * DIM + d[:, None], mask=inside[None, :], other=0.0)
        value = tl.load(values + slot[:, None] * DIM + d[None, :], mask=inside[:, None], other=0.0)
        scores = tl.dot(q, key.to(q.dtype), input_precision="ieee") * scale
        if INT8:
            scores *= tl.load(key_scales + slot, mask=inside, other=0.0)[None, :]
        scores = tl.where(n[None, :] <= (past + m)[:, None], scores, float("-inf"))
        new_top = tl.maximum(
            top, tl.max(scores, axis=1)
        )  # finite: the first block holds token 0, which all see
        weights = tl.exp2(scores - new_top[:, None])
        old = tl.exp2(top - new_top)
        total = total * old + tl.sum(weights, axis=1)
        if INT8:
            weights *= tl.load(value_scales + slot, mask=inside, other=0.0)[None, :]
        acc = acc * old[:, None]
        acc = tl.dot(weights.to(q.dtype), value.to(q.dtype), acc, input_precision="ieee")
        top = new_top
    tl.store(out + at, (acc / total[:, None]).to(out.dtype.element_ty), mask=(m < query_len)[:, None])


def flash_prefill_triton(query: Tensor, keys: KVRows, values: KVRows, prompts: PackedPrompts) -> Tensor:
    """As the reference; head_dim must be a power of two, 16 at least."""
    num_rows, heads, head_dim = query.shape
    out = torch.empty((num_rows, heads * head_dim), dtype=query.dtype, device=query.device)
    _kernel[(len(prompts.blocks), heads)](
        query,
        keys.data,
        values.data,
        keys.device_scales,
        values.device_scales,
        prompts.sequences,
        prompts.blocks,
        out,
        head_dim**-0.5 * _LOG2_E,
        HEADS=heads,
        KV_HEADS=keys.data.shape[1],
        DIM=power_of_two(head_dim),
        INT8=keys.scales is not None,
        BLOCK_M=BLOCK_Q,
        BLOCK_N=_BLOCK_KV,
        num_warps=4,
        num_stages=3,
    )
    return out
