"""Sinusoidal embedding of the solver's time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SCALE = 1000.0  # t runs over [0, 1]; the frequencies were made for diffusion steps 0..1000
_MAX_PERIOD = 10_000.0


def time_sinusoids(t: Tensor, dim: int) -> Tensor:
    """(N,) times to (N, dim) float32: sines, then cosines."""
    half = dim // 2
    index = torch.arange(half, dtype=torch.float32, device=t.device)
    frequencies = torch.exp(index * (-math.log(_MAX_PERIOD) / (half - 1)))
    angles = t.float()[:, None] * _SCALE * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
