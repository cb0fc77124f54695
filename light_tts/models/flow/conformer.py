"""Transformer layers with relative positions, as CosyVoice2's token encoder uses them."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from light_tts.models.layers.ragged import join_past


def relative_table(past: int, new: int, dim: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(past + 2 * new, dim) sinusoids of the distances past + new - 1 down to -new.

    Distance is query minus key; one more than the attention reads, so that `shift` is a plain view.
    """
    largest = past + new
    # Rounded up, so that a growing stream computes a new table only when its length has doubled.
    limit = max(64, 1 << (largest - 1).bit_length())
    return _sinusoids(limit, dim, device, dtype)[limit - largest + 1 : limit + new + 1]


@lru_cache(maxsize=32)
def _sinusoids(limit: int, dim: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(2 * limit + 1, dim): sine and cosine interleaved, distance limit down to -limit."""
    with torch.inference_mode(False):  # a cached inference tensor could not be used in training later
        distance = torch.arange(limit, -limit - 1, -1, dtype=torch.float32)
        frequency = torch.exp(torch.arange(0, dim, 2, dtype=torch.float32) * -(math.log(10_000.0) / dim))
        angle = distance[:, None] * frequency
        table = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
        return table.to(device=device, dtype=dtype)


def shift(scores: Tensor, num_keys: int) -> Tensor:
    """Turn columns of distances into columns of keys.

    scores: (..., N, num_keys + N) contiguous, column m is distance num_keys - 1 - m
    Returns (..., N, num_keys), row i column j being distance (num_keys - N + i) - j: a view, no copy.
    """
    num_new, width = scores.shape[-2:]
    # Dropping N - 1 values at the front and reading rows one shorter moves each row one column further left.
    rows = scores.flatten(-2)[..., num_new - 1 : num_new - 1 + num_new * (width - 1)]
    return rows.unflatten(-1, (num_new, width - 1))[..., :num_keys]


class RelPositionAttention(nn.Module):
    """Multi-head attention that adds a learned function of the distance to each score (Transformer-XL)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, dim // heads
        self.linear_q = nn.Linear(dim, dim)
        self.linear_k = nn.Linear(dim, dim)
        self.linear_v = nn.Linear(dim, dim)
        self.linear_out = nn.Linear(dim, dim)
        self.linear_pos = nn.Linear(dim, dim, bias=False)
        self.pos_bias_u = nn.Parameter(torch.zeros(heads, self.head_dim))
        self.pos_bias_v = nn.Parameter(torch.zeros(heads, self.head_dim))

    def forward(
        self, x: Tensor, table: Tensor, blocked: Tensor | None, past: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """x: (B, N, D); table: (K + N, D) from `relative_table`, K keys = past + new

        blocked: (B, 1, N, K) bool, True where a query must not look; no row may be all True
        past: (B, heads, K - N, 2 * head_dim) keys and values of earlier frames, right-aligned
        Returns (B, N, D) and the keys and values of all K frames, in the layout of `past`.
        """
        scale = 1.0 / math.sqrt(self.head_dim)
        query = self._heads(self.linear_q(x))
        new = torch.cat([self._heads(self.linear_k(x)), self._heads(self.linear_v(x))], dim=-1)
        key_value = join_past(past, new, dim=2)
        key, value = key_value.chunk(2, dim=-1)
        distance = self._heads(self.linear_pos(table)[None])  # (1, heads, K + N, head_dim)
        moved = (query + self.pos_bias_v[:, None]) * scale
        bias = shift(moved @ distance.transpose(-2, -1), key.shape[2])
        if blocked is not None:
            bias = bias.masked_fill(blocked, float("-inf"))
        query = query + self.pos_bias_u[:, None]
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scale)
        return self.linear_out(out.transpose(1, 2).flatten(2)), key_value

    def _heads(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, heads, T, head_dim)"""
        return x.unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)


class FeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.w_1 = nn.Linear(dim, hidden)
        self.w_2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.w_2(F.silu(self.w_1(x)))


class ConformerLayer(nn.Module):
    """Pre-norm attention and feed-forward, without a conformer's macaron half and convolution."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = RelPositionAttention(dim, heads)
        self.feed_forward = FeedForward(dim, hidden)
        self.norm_mha = nn.LayerNorm(dim, eps=1e-12)
        self.norm_ff = nn.LayerNorm(dim, eps=1e-12)

    def forward(
        self, x: Tensor, table: Tensor, blocked: Tensor | None, past: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Arguments and results as `RelPositionAttention`."""
        attended, key_value = self.self_attn(self.norm_mha(x), table, blocked, past)
        x = x + attended
        return x + self.feed_forward(self.norm_ff(x)), key_value
