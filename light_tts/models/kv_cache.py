"""What attention over packed sequences needs: which token stands where, and the memory of earlier tokens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from light_tts.models.config import Qwen2Config


@dataclass(frozen=True, slots=True)
class SequenceSlice:
    """One sequence's share of a forward: its queries are its newest tokens."""

    query_start: int  # row of its first new token among the packed tokens
    query_len: int
    kv_start: int  # slot of its first token
    kv_len: int  # tokens it has after this forward


@dataclass(frozen=True, slots=True)
class ForwardBatch:
    """New tokens of several sequences, one after the other without padding.

    positions: (N,) int64 position of each token in its sequence
    slots: (N,) int64 slot of each token in the KV cache
    """

    positions: Tensor
    slots: Tensor
    sequences: tuple[SequenceSlice, ...]

    @classmethod
    def pack(cls, spans: Iterable[tuple[int, int, int]], device: torch.device | None = None) -> ForwardBatch:
        """spans: for each sequence (slot of its first token, tokens it has already, tokens that are new)."""
        sequences: list[SequenceSlice] = []
        positions: list[int] = []
        slots: list[int] = []
        for kv_start, past_len, query_len in spans:
            sequences.append(SequenceSlice(len(positions), query_len, kv_start, past_len + query_len))
            positions.extend(range(past_len, past_len + query_len))
            slots.extend(range(kv_start + past_len, kv_start + past_len + query_len))
        return cls(
            torch.tensor(positions, device=device), torch.tensor(slots, device=device), tuple(sequences)
        )

    @classmethod
    def whole(cls, lens: Iterable[int], device: torch.device | None = None) -> ForwardBatch:
        """Complete sequences without a cache (training): each token's slot is its row."""
        spans, start = [], 0
        for length in lens:
            spans.append((start, 0, length))
            start += length
        return cls.pack(spans, device)

    @property
    def max_kv_len(self) -> int:
        return max(sequence.kv_len for sequence in self.sequences)

    @property
    def last_rows(self) -> list[int]:
        """Row of each sequence's newest token."""
        return [sequence.query_start + sequence.query_len - 1 for sequence in self.sequences]


class KVCache:
    """Keys and values of every layer, one slot per token; `llm.kv_pool` decides who owns which slots.

    keys, values: per layer (num_slots, num_key_value_heads, head_dim)
    """

    def __init__(
        self, cfg: Qwen2Config, num_slots: int, device: torch.device | None, dtype: torch.dtype
    ) -> None:
        shape = (num_slots, cfg.num_key_value_heads, cfg.head_dim)
        layers = range(cfg.num_hidden_layers)
        self.keys = [torch.empty(shape, device=device, dtype=dtype) for _ in layers]
        self.values = [torch.empty(shape, device=device, dtype=dtype) for _ in layers]

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store (N, num_key_value_heads, head_dim) at `slots`; return all keys and values of the layer."""
        self.keys[layer].index_copy_(0, slots, keys)
        self.values[layer].index_copy_(0, slots, values)
        return self.keys[layer], self.values[layer]
