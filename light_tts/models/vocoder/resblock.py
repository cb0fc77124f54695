"""Residual blocks with the Snake activation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from light_tts.models.vocoder.convolution import PaddedConv1d
from light_tts.models.vocoder.reach import Reach


class Snake(nn.Module):
    """x + sin(a x)^2 / a with one `a` per channel, computed in float32."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        alpha = self.alpha.view(1, -1, 1, 1)
        wide = x.to(alpha.dtype)
        # One new tensor, changed in place: on a CPU, fresh memory costs more than arithmetic.
        return (wide * alpha).sin_().square_().mul_(1 / (alpha + 1e-9)).add_(wide).to(x.dtype)


class ResBlock(nn.Module):
    """For each dilation: x += conv(snake(dilated conv(snake(x)))).  (B, C, 1, T) to the same shape."""

    def __init__(self, channels: int, kernel_size: int, dilations: Sequence[int], causal: bool) -> None:
        super().__init__()
        same = PaddedConv1d.same
        first = [same(channels, channels, kernel_size, causal, dilation) for dilation in dilations]
        second = [same(channels, channels, kernel_size, causal) for _ in dilations]
        self.convs1, self.convs2 = nn.ModuleList(first), nn.ModuleList(second)
        self.activations1 = nn.ModuleList(Snake(channels) for _ in dilations)
        self.activations2 = nn.ModuleList(Snake(channels) for _ in dilations)
        self.reach = sum((conv.reach for conv in (*first, *second)), Reach())

    def forward(self, x: Tensor) -> Tensor:
        for conv1, conv2, snake1, snake2 in zip(
            self.convs1, self.convs2, self.activations1, self.activations2, strict=True
        ):
            x = conv2(snake2(conv1(snake1(x)))).add_(x)
        return x
