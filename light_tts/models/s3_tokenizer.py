"""The speech tokenizer of CosyVoice2 as a PyTorch module, for training; serving uses the ONNX file."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LEVELS = 3  # values of one quantised dimension: -1, 0, 1
_TANH_SCALE = 0.9990000128746033  # keeps tanh away from the border of rounding to +-1; float32 of 0.999
_ROTARY_BASE = 10_000.0
_FSMN_KERNEL = 31


@dataclass(frozen=True, slots=True)
class S3TokenizerConfig:
    """Names are those of the released configuration; the defaults are the released size."""

    n_mels: int = 128
    n_audio_state: int = 1280
    n_audio_head: int = 20
    n_audio_layer: int = 6
    n_codebook_size: int = 6561

    @property
    def num_dims(self) -> int:
        """Quantised dimensions: n_codebook_size = 3 ** num_dims."""
        return round(math.log(self.n_codebook_size, _LEVELS))


class S3Tokenizer(nn.Module):
    """Log-mel at 100 Hz to speech tokens at 25 Hz."""

    def __init__(self, config: S3TokenizerConfig) -> None:
        super().__init__()
        self.encoder = AudioEncoder(config)
        self.quantizer = Quantizer(config)

    def forward(self, log_mel: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """log_mel: (B, n_mels, T), right-padded; lengths: (B,) int64 valid frames.

        Returns (B, T') int64 tokens, which mean nothing on padding, and their (B,) numbers, a quarter of T
        rounded up.
        """
        hidden, token_lengths = self.encoder(log_mel, lengths)
        return self.quantizer(hidden), token_lengths


class AudioEncoder(nn.Module):
    """Two strided convolutions, then full-context transformer blocks with an FSMN memory."""

    def __init__(self, config: S3TokenizerConfig) -> None:
        super().__init__()
        dim = config.n_audio_state
        self.conv1 = nn.Conv1d(config.n_mels, dim, 3, stride=2, padding=1)
        self.conv2 = nn.Conv1d(dim, dim, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList([Block(dim, config.n_audio_head) for _ in range(config.n_audio_layer)])
        self.head_dim = dim // config.n_audio_head

    def forward(self, log_mel: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n_mels, T) and (B,) to (B, T', dim) and (B,). Padded positions of the result mean nothing."""
        x, lengths = self._halved(self.conv1, log_mel, lengths)
        x, lengths = self._halved(self.conv2, x, lengths)
        x = x.transpose(1, 2)  # (B, T', dim)
        valid = _valid(lengths, x.shape[1])
        rotation = _rotation(x.shape[1], self.head_dim, x.device)
        for block in self.blocks:
            x = block(x, valid, rotation)
        return x, lengths

    @staticmethod
    def _halved(conv: nn.Conv1d, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        masked = x * _valid(lengths, x.shape[-1])[:, None].to(x.dtype)
        return F.gelu(conv(masked)), (lengths + 1) // 2


class Block(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attn = FsmnAttention(dim, heads)
        self.attn_ln = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.mlp_ln = nn.LayerNorm(dim, eps=1e-5)

    def forward(self, x: Tensor, valid: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.attn(self.attn_ln(x), valid, rotation)
        return x + self.mlp(self.mlp_ln(x))


class FsmnAttention(nn.Module):
    """Self-attention plus a depthwise convolution over the values."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        self.fsmn_block = nn.Conv1d(dim, dim, _FSMN_KERNEL, groups=dim, bias=False, padding=_FSMN_KERNEL // 2)

    def forward(self, x: Tensor, valid: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """x: (B, T, dim); valid: (B, T) bool, at least one per row."""
        query, key, value = (self._split(layer(x)) for layer in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(
            _rotate(query, rotation), _rotate(key, rotation), value, attn_mask=valid[:, None, None]
        )
        memory = self._memory(value.transpose(1, 2).flatten(2), valid)
        return self.out(mixed.transpose(1, 2).flatten(2)) + memory

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, T, head_dim)

    def _memory(self, value: Tensor, valid: Tensor) -> Tensor:
        keep = valid[..., None].to(value.dtype)
        value = value * keep
        return (self.fsmn_block(value.transpose(1, 2)).transpose(1, 2) + value) * keep


class Quantizer(nn.Module):
    """Finite scalar quantisation; the nesting gives the checkpoint's names."""

    def __init__(self, config: S3TokenizerConfig) -> None:
        super().__init__()
        self._codebook = Codebook(config)

    def before_rounding(self, hidden: Tensor) -> Tensor:
        """(..., num_dims) numbers within (-1, 1); tokens change where one crosses +-0.5."""
        return torch.tanh(self._codebook.project_down(hidden).float()) * _TANH_SCALE

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., dim) to (...) int64: the rounded numbers + 1 as digits of base 3, the first is the least."""
        digits = self.before_rounding(hidden).round().long() + 1
        powers = _LEVELS ** torch.arange(digits.shape[-1], device=digits.device)
        return (digits * powers).sum(dim=-1)


class Codebook(nn.Module):
    def __init__(self, config: S3TokenizerConfig) -> None:
        super().__init__()
        self.project_down = nn.Linear(config.n_audio_state, config.num_dims)


def _valid(lengths: Tensor, num_frames: int) -> Tensor:
    """(B, num_frames) bool: False on right padding."""
    return torch.arange(num_frames, device=lengths.device) < lengths[:, None]


def _rotation(num_frames: int, head_dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(T, head_dim / 2) float32 cosines and sines; feature i is rotated together with i + head_dim / 2."""
    exponents = torch.arange(0, head_dim, 2, device=device).float() / head_dim
    angles = torch.outer(torch.arange(num_frames, device=device).float(), _ROTARY_BASE**-exponents)
    return angles.cos(), angles.sin()


def _rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """x: (B, heads, T, head_dim)"""
    cos, sin = rotation
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)
