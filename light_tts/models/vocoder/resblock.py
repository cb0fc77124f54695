"""Residual blocks with the Snake activation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from light_tts.models.vocoder.convolution import PaddedConv1d
from light_tts.models.vocoder.reach import Reach

NUMPY_THREADS = 2  # up to so many, numpy's sine in one thread is no slower than torch's in all


class Snake(nn.Module):
    """x + sin(a x)^2 / a with one `a` per channel, computed in float32."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))
        # Decided once: their last bits differ, and a thread may meet another number of threads at another time.
        self._numpy = torch.get_num_threads() <= NUMPY_THREADS

    def forward(self, x: Tensor) -> Tensor:
        alpha = self.alpha.view(1, -1, 1, 1)
        wide = x.to(alpha.dtype)
        # One new tensor, changed in place: on a CPU, fresh memory costs more than arithmetic.
        angles = wide * alpha
        if self._numpy and x.device.type == "cpu" and not torch.is_grad_enabled():
            squares = _sine_in_place(angles).square_()
            return torch.addcmul(wide, squares, 1 / (alpha + 1e-9), out=squares).to(x.dtype)
        return angles.sin_().square_().mul_(1 / (alpha + 1e-9)).add_(wide).to(x.dtype)


def _sine_in_place(x: Tensor) -> Tensor:
    """In less than half the time of torch's, which is longer than all the rest of Snake."""
    numbers = x.numpy()
    with np.errstate(invalid="ignore"):
        np.sin(numbers, out=numbers)
    return x


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
