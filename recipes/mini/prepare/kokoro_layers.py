"""Layers of the teacher that a style vector steers: adaptive norms, residual blocks, the snake activation."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STYLE_HALF = 128
_SLOPE = 0.2


class AdaptiveNorm(nn.Module):
    """Instance norm whose scale and offset a style decides. Batch 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(STYLE_HALF, 2 * channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """x: (1, channels, frames); style: (1, STYLE_HALF)"""
        scale, offset = self.fc(style)[0].chunk(2)
        return F.instance_norm(x, weight=1 + scale, bias=offset, eps=1e-5)


class StyledBlock(nn.Module):
    """Two convolutions after adaptive norms and a shortcut; on request twice as many frames."""

    def __init__(self, channels: int, out_channels: int, doubles: bool = False) -> None:
        super().__init__()
        self.norm1 = AdaptiveNorm(channels)
        self.norm2 = AdaptiveNorm(out_channels)
        self.conv1 = nn.Conv1d(channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv1d(out_channels, out_channels, 3, padding=1)
        self.conv1x1 = nn.Conv1d(channels, out_channels, 1, bias=False) if channels != out_channels else None
        self.pool = (
            nn.ConvTranspose1d(channels, channels, 3, 2, padding=1, output_padding=1, groups=channels)
            if doubles
            else None
        )

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(1, channels, frames) to (1, out_channels, frames or 2 * frames)"""
        shortcut, y = x, F.leaky_relu(self.norm1(x, style), _SLOPE)
        if self.pool is not None:
            shortcut, y = shortcut.repeat_interleave(2, dim=2), self.pool(y)
        if self.conv1x1 is not None:
            shortcut = self.conv1x1(shortcut)
        y = self.conv2(F.leaky_relu(self.norm2(self.conv1(y), style), _SLOPE))
        return (y + shortcut) / math.sqrt(2)


class SnakeBlock(nn.Module):
    """Three pairs of convolutions, the first of each dilated, with periodic activations."""

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        spans = [(dilation, dilation * (kernel_size - 1) // 2) for dilation in (1, 3, 5)]
        self.convs1 = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel_size, padding=padding, dilation=dilation)
            for dilation, padding in spans
        )
        self.convs2 = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel_size, padding=kernel_size // 2) for _ in spans
        )
        self.adain1 = nn.ModuleList(AdaptiveNorm(channels) for _ in spans)
        self.adain2 = nn.ModuleList(AdaptiveNorm(channels) for _ in spans)
        self.alpha1 = nn.ParameterList(torch.ones(1, channels, 1) for _ in spans)
        self.alpha2 = nn.ParameterList(torch.ones(1, channels, 1) for _ in spans)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """x: (1, channels, frames)"""
        for k in range(len(self.convs1)):
            y = snake(self.adain1[k](x, style), self.alpha1[k])
            y = snake(self.adain2[k](self.convs1[k](y), style), self.alpha2[k])
            x = x + self.convs2[k](y)
        return x


def snake(x: Tensor, alpha: Tensor) -> Tensor:
    """x + sin(alpha x)^2 / alpha"""
    wave = torch.sin(x * alpha)
    return torch.addcdiv(x, wave.square_(), alpha)


class StyledNorm(nn.Module):
    """Layer norm over the channels whose scale and offset a style decides."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(STYLE_HALF, 2 * channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """x: (1, tokens, channels)"""
        scale, offset = self.fc(style)[0].chunk(2)
        return F.layer_norm(x, x.shape[-1:], 1 + scale, offset, 1e-5)


class ChannelNorm(nn.Module):
    """Layer norm over the channels of (1, channels, frames)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.transpose(1, 2), self.gamma.shape, self.gamma, self.beta, 1e-5).transpose(1, 2)
