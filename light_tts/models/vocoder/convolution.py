"""Convolutions of the vocoder, on (B, C, 1, T).

Two-dimensional, because that is where torch knows channels-last: the layout in which narrow convolutions run
one and a half times as fast on a CPU.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from light_tts.models.vocoder.reach import Reach


class PaddedConv1d(nn.Conv1d):
    """A convolution over time with its own number of zeros on each side.

    x: (B, in_channels, 1, T). Returns (B, out_channels, 1, (T + left + right - extent) // stride + 1) with
    extent = dilation * (kernel_size - 1) + 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        left: int,
        right: int,
        dilation: int = 1,
        stride: int = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, dilation=dilation)
        self.left, self.right = left, right

    @classmethod
    def same(
        cls, in_channels: int, out_channels: int, kernel_size: int, causal: bool, dilation: int = 1
    ) -> PaddedConv1d:
        """As many columns out as in; `causal`: all zeros on the left, else half on each side."""
        total = (kernel_size - 1) * dilation
        left = total if causal else total // 2
        return cls(in_channels, out_channels, kernel_size, left=left, right=total - left, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] > 1 and self.left != self.right:
            return self._convolve(F.pad(x, (self.left, self.right)), 0)
        # The convolution pads both sides alike. Cutting its surplus off is no slower than padding beforehand, and
        # avoids lengths for which cuDNN has only a kernel a hundred times slower (bfloat16, dilation 5).
        padding = max(self.left, self.right)
        y = self._convolve(x, padding)
        return y[..., padding - self.left : y.shape[3] - (padding - self.right)]

    def _convolve(self, x: Tensor, padding: int) -> Tensor:
        return F.conv2d(
            x,
            self.weight.unsqueeze(2),
            self.bias,
            stride=(1, self.stride[0]),
            padding=(0, padding),
            dilation=(1, self.dilation[0]),
        )

    def as_product(self, x: Tensor) -> Tensor:
        """The same as a matrix product, without dilation or stride: (B, in_channels, T) to (B, out_channels, T)."""
        windows = F.pad(x, (self.left, self.right)).unfold(2, self.kernel_size[0], 1)
        columns = windows.transpose(1, 2).flatten(2)  # (B, T, in_channels * kernel_size)
        return F.linear(columns, self.weight.flatten(1), self.bias).transpose(1, 2)

    @property
    def reach(self) -> Reach:
        """Input columns around an output column's own place (its number times the stride)."""
        return Reach(self.left, (self.kernel_size[0] - 1) * self.dilation[0] - self.left)


class TransposedUpsample(nn.ConvTranspose1d):
    """CosyVoice2's upsampling: (B, C, 1, T) to (B, C', 1, T * rate)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, rate: int) -> None:
        self.cut = (kernel_size - rate) // 2
        super().__init__(in_channels, out_channels, kernel_size, stride=rate, padding=self.cut)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        weight = self.weight.unsqueeze(2)
        return F.conv_transpose2d(x, weight, self.bias, stride=(1, self.stride[0]), padding=(0, self.cut))

    @property
    def reach(self) -> Reach:
        """How far from an output column the input columns lie that it depends on, in output columns."""
        return Reach(self.kernel_size[0] - 1 - self.cut, self.cut)


class NearestUpsample(PaddedConv1d):
    """CosyVoice3's upsampling: every column `rate` times, then a causal convolution."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, rate: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, left=kernel_size - 1, right=0)
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.interpolate(x, scale_factor=(1.0, float(self.rate)), mode="nearest"))

    @property
    def reach(self) -> Reach:
        """As in `TransposedUpsample`; the repetition itself reaches back by `rate - 1`."""
        return Reach(self.left + self.rate - 1, 0)


def channels_last(x: Tensor) -> Tensor:
    """(B, C, T) as (B, C, 1, T), channels-last on a CPU."""
    x = x.unsqueeze(2)
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x
