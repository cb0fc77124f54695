"""Multi-head self-attention of the flow estimators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PastKeysValues(Protocol):
    """Where an attention layer gets its past from."""

    def attended(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """(B, heads, T, head_dim) new keys and values, with those of the past before them in time."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """Rotary position embedding for neighbouring pairs of features: (B, T, dim / 2) cosines and sines."""

    cos: Tensor
    sin: Tensor

    @classmethod
    def at(cls, positions: Tensor, inverse_frequencies: Tensor, dtype: torch.dtype) -> Rotation:
        """positions: (B, T) frame indices; inverse_frequencies: (dim / 2,). Angles are float32."""
        angles = positions.float()[..., None] * inverse_frequencies.float()
        return cls(angles.cos().to(dtype), angles.sin().to(dtype))

    def __call__(self, x: Tensor) -> Tensor:
        """Rotate (B, T, dim)."""
        even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
        rotated = torch.stack([even * self.cos - odd * self.sin, odd * self.cos + even * self.sin], dim=-1)
        return rotated.flatten(-2)


class SelfAttention(nn.Module):
    """Attention over (B, T, dim). `heads * head_dim` may differ from `dim`."""

    def __init__(self, dim: int, heads: int, head_dim: int, qkv_bias: bool) -> None:
        super().__init__()
        inner = heads * head_dim
        self.heads = heads
        self.to_q = nn.Linear(dim, inner, bias=qkv_bias)
        self.to_k = nn.Linear(dim, inner, bias=qkv_bias)
        self.to_v = nn.Linear(dim, inner, bias=qkv_bias)
        self.to_out = nn.ModuleList([nn.Linear(inner, dim)])

    def forward(
        self, x: Tensor, mask: Tensor | None, past: PastKeysValues, rotation: Rotation | None = None
    ) -> Tensor:
        """mask: (B, 1, T, past + T) bool, True = may attend. `rotation` turns the first head only."""
        query, key = self.to_q(x), self.to_k(x)
        if rotation is not None:
            query, key = self._rotate_first_head(query, rotation), self._rotate_first_head(key, rotation)
        key, value = past.attended(self._split_heads(key), self._split_heads(self.to_v(x)))
        mixed = F.scaled_dot_product_attention(self._split_heads(query), key, value, attn_mask=mask)
        return self.to_out[0](mixed.transpose(1, 2).flatten(2))

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _rotate_first_head(self, x: Tensor, rotation: Rotation) -> Tensor:
        head_dim = x.shape[-1] // self.heads
        return torch.cat([rotation(x[..., :head_dim]), x[..., head_dim:]], dim=-1)
