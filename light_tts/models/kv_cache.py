"""What attention over packed sequences needs: which token stands where, and the memory of earlier tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

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


class Rows(Protocol):
    """Keys or values of one layer: (num_slots, num_key_value_heads, head_dim). A tensor is one as well."""

    def __getitem__(self, slots: slice, /) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Int8Rows:
    """Rows in 8 bits, each head of each slot with a scale of its own: its largest number becomes 127.

    data: (num_slots, heads, head_dim) int8; scales: (num_slots, heads, 1) float32
    """

    data: Tensor
    scales: Tensor
    dtype: torch.dtype  # of what is read

    def write(self, slots: Tensor, rows: Tensor) -> None:
        rows = rows.float()
        # A NaN or infinity makes its scale one too, so that what is read is not finite either.
        scales = rows.abs().amax(dim=-1, keepdim=True) / 127
        numbers = (rows / scales.clamp_min(torch.finfo(torch.float32).tiny)).round()
        self.data.index_copy_(0, slots, numbers.nan_to_num().to(torch.int8))
        self.scales.index_copy_(0, slots, scales)

    def __getitem__(self, slots: slice, /) -> Tensor:
        return (self.data[slots] * self.scales[slots]).to(self.dtype)


@dataclass(frozen=True, slots=True)
class SavedKV:
    """A copy of some slots in the computer's own memory, as KVCache holds them."""

    rows: tuple[Tensor, ...]


class KVCache:
    """Keys and values of every layer, one slot per token; `llm.kv_pool` decides who owns which slots.

    int8: a quarter to a half of the memory, and within 1/254 of the largest number of a head and token
    """

    def __init__(
        self,
        cfg: Qwen2Config,
        num_slots: int,
        device: torch.device | None,
        dtype: torch.dtype,
        *,
        int8: bool = False,
    ) -> None:
        shape = (num_slots, cfg.num_key_value_heads, cfg.head_dim)
        layers = range(cfg.num_hidden_layers)

        def rows() -> Tensor | Int8Rows:
            # empty: pages that nobody has written to take no memory yet
            if not int8:
                return torch.empty(shape, device=device, dtype=dtype)
            scales = torch.empty((*shape[:2], 1), device=device)
            return Int8Rows(torch.empty(shape, device=device, dtype=torch.int8), scales, dtype)

        self.keys = [rows() for _ in layers]
        self.values = [rows() for _ in layers]

    @property
    def num_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self._tensors())

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> tuple[Rows, Rows]:
        """Store (N, num_key_value_heads, head_dim) at `slots`; return all keys and values of the layer."""
        for held, new in ((self.keys[layer], keys), (self.values[layer], values)):
            if isinstance(held, Int8Rows):
                held.write(slots, new)
            else:
                held.index_copy_(0, slots, new)
        return self.keys[layer], self.values[layer]

    @torch.inference_mode()
    def save(self, start: int, length: int) -> SavedKV:
        """Copy slots start .. start + length - 1."""
        return SavedKV(
            tuple(tensor[start : start + length].to("cpu", copy=True) for tensor in self._tensors())
        )

    @torch.inference_mode()
    def restore(self, start: int, saved: SavedKV) -> None:
        """Put a copy back, at these or other slots: the same to the last bit."""
        for tensor, rows in zip(self._tensors(), saved.rows, strict=True):
            tensor[start : start + len(rows)].copy_(rows)

    def _tensors(self) -> Iterator[Tensor]:
        for rows in (*self.keys, *self.values):
            if isinstance(rows, Int8Rows):
                yield rows.data
                yield rows.scales
            else:
                yield rows


def kv_bytes_per_token(cfg: Qwen2Config, dtype: torch.dtype, *, int8: bool = False) -> int:
    """What a slot takes in all layers together."""
    head = cfg.head_dim + 4 if int8 else cfg.head_dim * dtype.itemsize  # +4: the scale
    return 2 * cfg.num_hidden_layers * cfg.num_key_value_heads * head
