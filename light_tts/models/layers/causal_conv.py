"""Causal convolutions over channels-last sequences."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LeftContext(Protocol):
    """Where a causal convolution gets the frames before the new ones from."""

    def left_context(self, x: Tensor, length: int) -> Tensor:
        """(B, T, C) to (B, length + T, C)."""


def with_left_context(x: Tensor, tail: Tensor | None, length: int) -> Tensor:
    """Put `tail` (B, length, C) in front of `x` (B, T, C). None: zeros, as at the start of a sequence."""
    return F.pad(x, (0, 0, length, 0)) if tail is None else torch.cat([tail, x], dim=1)


def conv_over_time(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve (B, k - 1 + T, C) to (B, T, O) with `weight` (O, C, k) of a Conv1d.

    The windows of k neighbouring frames are laid side by side: one matrix product then does the work, and the
    sequence keeps its layout.
    """
    out_channels, _, kernel_size = weight.shape
    num_frames = x.shape[1] - kernel_size + 1
    windows = torch.cat([x[:, k : k + num_frames] for k in range(kernel_size)], dim=-1)
    return F.linear(windows, weight.transpose(1, 2).reshape(out_channels, -1), bias)


def causal_conv(conv: nn.Conv1d, x: Tensor, context: LeftContext) -> Tensor:
    """Apply `conv` to (B, T, C) so that each frame sees itself and the frames before it."""
    return conv_over_time(context.left_context(x, conv.kernel_size[0] - 1), conv.weight, conv.bias)


def pointwise_conv(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """Apply a Conv1d with a single tap to (B, T, C)."""
    return F.linear(x, conv.weight[:, :, 0], conv.bias)
