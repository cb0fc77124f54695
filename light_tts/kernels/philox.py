"""Random numbers by counting: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).

The number for a seed, a draw and an id depends on nothing else, so not on what else is generated at the time. This is
the definition, in plain integer arithmetic; kernels use Triton's own Philox, which is the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_LOW = 0xFFFFFFFF


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Four words of 32 random bits for a counter of four words and a key of two. All int64, 0 .. 2**32 - 1."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = _multiply(c0, _MULTIPLIERS[0])
        high1, low1 = _multiply(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _KEY_STEPS[0]) & _LOW, (k1 + _KEY_STEPS[1]) & _LOW
    return c0, c1, c2, c3


def _multiply(word: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """High and low half of a product of two 32-bit words, by halves of 16 bits: int64 has 63."""
    by_low, by_high = word * (factor & 0xFFFF), word * (factor >> 16)
    middle = (by_low >> 16) + (by_high & 0xFFFF)
    low = ((middle & 0xFFFF) << 16) | (by_low & 0xFFFF)
    return (by_high >> 16) + (middle >> 16), low


def waiting_times(ids: Tensor, draw: Tensor, attempt: int, seed_low: Tensor, seed_high: Tensor) -> Tensor:
    """Exponentially distributed numbers with mean 1: of ids that each have a probability p, the one with the smallest
    waiting time / p is drawn with just that probability.

    ids: (...) int64; draw: how many were drawn before; attempt: 0, or 1 for the second draw of a step
    seed_low, seed_high: 0 .. 2**32 - 1; all tensors int64 and of shapes that broadcast
    """
    zeros = torch.zeros_like(ids + draw)
    word = philox((ids + zeros, draw + zeros, zeros + attempt, zeros), (seed_low + zeros, seed_high + zeros))[
        0
    ]
    # 23 bits and a half: exact in float32, and never 0 or 1
    return -(((word >> 9).float() + 0.5) * 2.0**-23).log()
