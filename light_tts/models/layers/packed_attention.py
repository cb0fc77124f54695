"""Causal attention of packed sequences over their cached keys and values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from light_tts.models.kv_cache import Rows, SequenceSlice


def packed_attention(query: Tensor, keys: Rows, values: Rows, sequences: Sequence[SequenceSlice]) -> Tensor:
    """Each sequence's new tokens attend to all of its tokens up to themselves.

    query: (N, heads, head_dim), sequences one after the other
    keys, values: (num_slots, kv_heads, head_dim), new tokens included; heads is a multiple of kv_heads
    Returns (N, heads, head_dim).

    One call per sequence: its slots are contiguous, so its keys are a view; one call for all sequences would
    have to gather and pad them first, which costs more than it saves.
    """
    outputs = []
    for sequence in sequences:
        new = query[sequence.query_start : sequence.query_start + sequence.query_len]
        past = slice(sequence.kv_start, sequence.kv_start + sequence.kv_len)
        attend = _decode if sequence.query_len == 1 else _prefill
        outputs.append(attend(new, keys[past], values[past]))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _decode(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """One query sees all keys, so heads that share a key head can be its queries: no key is repeated.

    On a CPU four small products beat the fused kernel, whose threads have to meet for each of them: on a busy machine
    that alone takes milliseconds.
    """
    _, heads, head_dim = query.shape
    kv_heads = keys.shape[1]
    if kv_heads == 1 and query.device.type == "cpu" and query.dtype == torch.float32:
        # The same with less overhead, of which the products of a narrow model mostly consist.
        scores = torch.mm(query[0], keys[:, 0].t()).mul_(head_dim**-0.5)
        return torch.mm(torch.softmax(scores, -1), values[:, 0])[None]
    grouped = query.reshape(kv_heads, heads // kv_heads, head_dim)
    if query.device.type == "cpu":
        scores = torch.bmm(grouped * head_dim**-0.5, keys.permute(1, 2, 0))
        out = torch.bmm(scores.float().softmax(dim=-1).to(values.dtype), values.transpose(0, 1))
    else:
        out = F.scaled_dot_product_attention(
            grouped[None], keys.transpose(0, 1)[None], values.transpose(0, 1)[None]
        )
    return out.reshape(1, heads, head_dim)


def _prefill(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    query_len, kv_len = query.shape[0], keys.shape[0]
    mask = None
    if query_len < kv_len:
        mask = torch.ones(query_len, kv_len, dtype=torch.bool, device=query.device).tril(kv_len - query_len)
    out = F.scaled_dot_product_attention(
        query.transpose(0, 1)[None],
        keys.transpose(0, 1)[None],
        values.transpose(0, 1)[None],
        attn_mask=mask,
        is_causal=mask is None,
        enable_gqa=keys.shape[1] != query.shape[1],
    )
    return out[0].transpose(0, 1)
