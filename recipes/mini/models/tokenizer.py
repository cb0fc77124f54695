"""The speech tokenizer of the bundled voice: log-mel to codes at 25 Hz.

Two convolutions of stride 2, a few blocks of local attention, convolution and feed-forward, and a finite scalar
quantiser: six numbers, each rounded to -1, 0 or 1, are the digits of a code. What a code hears does not depend on
where in a recording it is: attention reaches `WINDOW` codes to either side and positions are relative.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NUM_MELS = 128
DIGITS, LEVELS = 6, 3
NUM_CODES = LEVELS**DIGITS  # 729
WINDOW = 50  # codes, 2 s
LOUDEST = 1.5  # about where speech at full scale has it
# Added to a score that must not count. Not infinity, since all of a padded row's may be outside.
OUTSIDE = -1e4
SATURATION = 0.999  # of tanh: rounding then never gives another digit than -1, 0, 1

_ROTARY_BASE = 10_000.0


@dataclass(frozen=True, slots=True)
class TokenizerShape:
    """width must be a multiple of heads, and width / heads of 2."""

    width: int
    blocks: int
    heads: int
    inner: int


class TokenEncoder(nn.Module):
    """log-mel to codes; `hidden` is what training differentiates."""

    def __init__(self, shape: TokenizerShape, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        self.conv1 = nn.Conv1d(NUM_MELS, shape.width, 3, stride=2, padding=1)
        self.conv2 = nn.Conv1d(shape.width, shape.width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(Block(shape, dropout) for _ in range(shape.blocks))
        self.norm = nn.LayerNorm(shape.width)
        self.project = nn.Linear(shape.width, DIGITS)

    def hidden(self, log_mel: Tensor, num_frames: Tensor) -> tuple[Tensor, Tensor]:
        """log_mel: (B, 128, T) at 100 Hz, num_frames: (B,).

        Returns (B, T', 6) float32 within -1..1, T' = ceil(ceil(T / 2) / 2), and (B, T') float32, 1 where it counts.
        """
        mask = (torch.arange(log_mel.shape[2], device=log_mel.device) < num_frames[:, None]).float()
        x = F.gelu(self.conv1(levelled(log_mel, mask) * mask[:, None]))
        mask = mask[:, ::2]
        x = F.gelu(self.conv2(x * mask[:, None])).transpose(1, 2)
        mask = mask[:, ::2]
        bias = attention_bias(mask)
        for block in self.blocks:
            x = block(x, mask, bias)
        return torch.tanh(self.project(self.norm(x)).float()) * SATURATION, mask

    def forward(self, log_mel: Tensor, num_frames: Tensor) -> Tensor:
        """(B, T') int32 codes."""
        return codes_of(self.hidden(log_mel, num_frames)[0])


class Block(nn.Module):
    """Attention, depthwise convolution and feed-forward, each after a norm and added to its input."""

    def __init__(self, shape: TokenizerShape, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = shape.heads
        self.attention_norm = nn.LayerNorm(shape.width)
        self.query_key_value = nn.Linear(shape.width, 3 * shape.width)
        self.attention_out = nn.Linear(shape.width, shape.width)
        self.conv_norm = nn.LayerNorm(shape.width)
        self.conv = nn.Conv1d(shape.width, shape.width, 7, padding=3, groups=shape.width)
        self.conv_out = nn.Linear(shape.width, shape.width)
        self.inner_norm = nn.LayerNorm(shape.width)
        self.inner = nn.Linear(shape.width, shape.inner)
        self.inner_out = nn.Linear(shape.inner, shape.width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, bias: Tensor) -> Tensor:
        """x: (B, T, width), mask: (B, T), bias: (B, 1, T, T) added to the scores"""
        x = x + self.dropout(self._attend(self.attention_norm(x), bias))
        local = self.conv((self.conv_norm(x) * mask[..., None]).transpose(1, 2)).transpose(1, 2)
        x = x + self.dropout(self.conv_out(F.silu(local)))
        x = x + self.dropout(self.inner_out(F.gelu(self.inner(self.inner_norm(x)))))
        return x

    def _attend(self, x: Tensor, bias: Tensor) -> Tensor:
        batch, length, width = x.shape
        heads = self.query_key_value(x).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        cos, sin = rotary(length, width // self.heads, x.device)
        attended = F.scaled_dot_product_attention(
            rotated(query, cos, sin), rotated(key, cos, sin), value, attn_mask=bias.to(value.dtype)
        )
        out: Tensor = self.attention_out(attended.transpose(1, 2).reshape(batch, length, width))
        return out


def levelled(log_mel: Tensor, mask: Tensor) -> Tensor:
    """Put each row's loudest place at LOUDEST: codes then do not depend on how loud a recording is.

    log_mel: (B, 128, T), mask: (B, T)
    """
    loudest = (log_mel + OUTSIDE * (1.0 - mask[:, None])).amax(dim=(1, 2), keepdim=True)
    return log_mel + (LOUDEST - loudest)


def attention_bias(mask: Tensor) -> Tensor:
    """mask: (B, T). Returns (B, 1, T, T): 0 for what counts and is near, OUTSIDE for the rest."""
    position = torch.arange(mask.shape[1], device=mask.device)
    far = ((position[:, None] - position).abs() > WINDOW).float()
    return (OUTSIDE * torch.maximum(1.0 - mask[:, None, :], far))[:, None]


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: pairs (i, i + d/2) of (B, H, T, d) turn by their position's angle."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def rotary(length: int, head_dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin, (length, head_dim / 2) float32 each."""
    rates = rotary_rates(head_dim).to(device)
    angles = torch.arange(length, device=device, dtype=torch.float32)[:, None] * rates
    return angles.cos(), angles.sin()


def rotary_rates(head_dim: int) -> Tensor:
    """(head_dim / 2,) float32 radians per code."""
    return torch.exp(torch.arange(0, head_dim, 2).float() * (-math.log(_ROTARY_BASE) / head_dim))


def codes_of(hidden: Tensor) -> Tensor:
    """(..., 6) numbers to (...) int32 codes; the first digit counts least."""
    digits = hidden.round().int() + 1
    return (digits * digit_values(hidden.device)).sum(dim=-1, dtype=torch.int32)


def digit_values(device: torch.device) -> Tensor:
    return LEVELS ** torch.arange(DIGITS, device=device, dtype=torch.int32)


def quantised(hidden: Tensor) -> Tensor:
    """The digits -1, 0, 1 with the gradient of `hidden`."""
    return hidden + (hidden.round() - hidden).detach()


def digits_of(codes: Tensor) -> Tensor:
    """(...) codes to (..., 6) float32 digits -1, 0, 1."""
    return ((codes[..., None] // digit_values(codes.device)) % LEVELS - 1).float()
