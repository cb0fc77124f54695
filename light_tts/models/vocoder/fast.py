"""HiFT for GPUs: channels-last, activations and sums inside the convolutions, recorded as graphs.

Rows of a batch may differ in length: every convolution reads zeros beyond a row's own end, as if it were alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from light_tts.kernels import hift_conv
from light_tts.kernels.hift_conv import Ending, Taps
from light_tts.models.vocoder.convolution import NearestUpsample, PaddedConv1d, TransposedUpsample
from light_tts.models.vocoder.hift import HiFT, polar
from light_tts.models.vocoder.resblock import ResBlock
from light_tts.models.vocoder.spectral import ragged_istft, ragged_stft
from light_tts.models.vocoder.stage import Stage

FINAL_SLOPE = 0.01  # before the last convolution


@dataclass(frozen=True, slots=True)
class Convolutions:
    """Which implementation runs: Triton's or the reference."""

    triton: bool

    def conv(self, x: Tensor, taps: Taps, left: int, ending: Ending) -> tuple[Tensor, Tensor]:
        """As many frames as x has; `left` zeros before the first."""
        run = hift_conv.conv_triton if self.triton else hift_conv.conv_reference
        return run(x, taps, x.shape[1], -left, ending)

    def snake(self, x: Tensor, alpha: Tensor) -> Tensor:
        return (hift_conv.snake_triton if self.triton else hift_conv.snake_reference)(x, alpha)


@dataclass(frozen=True, slots=True)
class _Conv:
    taps: Taps
    left: int

    @classmethod
    def of(cls, conv: PaddedConv1d, dtype: torch.dtype) -> _Conv:
        return cls(Taps.of(conv.weight, conv.bias, dtype, conv.dilation[0]), conv.left)


@dataclass(frozen=True, slots=True)
class _Block:
    """Pairs of convolutions, each with the Snake before it."""

    first: tuple[_Conv, ...]
    second: tuple[_Conv, ...]
    alphas1: tuple[Tensor, ...]
    alphas2: tuple[Tensor, ...]

    @classmethod
    def of(cls, block: ResBlock, dtype: torch.dtype) -> _Block:
        def convs(modules: nn.ModuleList) -> tuple[_Conv, ...]:
            return tuple(_Conv.of(conv, dtype) for conv in modules)  # type: ignore[arg-type]

        def alphas(modules: nn.ModuleList) -> tuple[Tensor, ...]:
            return tuple(snake.alpha.detach().float() for snake in modules)  # type: ignore[operator]

        return cls(
            convs(block.convs1), convs(block.convs2), alphas(block.activations1), alphas(block.activations2)
        )

    def run(self, ops: Convolutions, x: Tensor, last: Ending) -> Tensor:
        """last: what is done with the result of all pairs; its residual and lens are set here and by the caller."""
        active = ops.snake(x, self.alphas1[0])
        for index, (first, second) in enumerate(zip(self.first, self.second, strict=True)):
            inner = Ending(lens=last.lens, alpha=self.alphas2[index], only_snake=True)
            _, active = ops.conv(active, first.taps, first.left, inner)
            if index + 1 < len(self.first):
                ending = Ending(residual=x, lens=last.lens, alpha=self.alphas1[index + 1])
            else:
                ending = Ending(x, last.extra, last.factor, last.slope, last.lens)
            x, active = ops.conv(active, second.taps, second.left, ending)
        return x


@dataclass(frozen=True, slots=True)
class _Down:
    """A strided convolution as a matrix product over windows. weight: (kernel * in, out)"""

    weight: Tensor
    bias: Tensor
    kernel: int
    stride: int
    left: int

    @classmethod
    def of(cls, conv: PaddedConv1d, dtype: torch.dtype) -> _Down:
        weight = conv.weight.detach().permute(2, 1, 0).flatten(0, 1).to(dtype)
        assert conv.bias is not None
        return cls(weight, conv.bias.detach().to(dtype), conv.kernel_size[0], conv.stride[0], conv.left)

    def run(self, x: Tensor, frames: int) -> Tensor:
        """(B, F, C) to (B, frames, out)"""
        right = (frames - 1) * self.stride + self.kernel - self.left - x.shape[1]
        channels = x.shape[2]
        flat = F.pad(x, (0, 0, self.left, max(0, right))).flatten(1)
        windows = flat.unfold(1, self.kernel * channels, self.stride * channels)[:, :frames]
        return torch.addmm(self.bias, windows.reshape(-1, self.kernel * channels), self.weight).view(
            len(x), frames, -1
        )


@dataclass(frozen=True, slots=True)
class _Stage:
    stage: Stage
    up: _Conv | None  # None: the transposed convolution of the stage
    up_weight: Tensor
    up_bias: Tensor
    down: _Down
    source: _Block
    blocks: tuple[_Block, ...]

    @classmethod
    def of(cls, stage: Stage, dtype: torch.dtype) -> _Stage:
        up = stage.up
        assert up.bias is not None
        return cls(
            stage,
            _Conv.of(up, dtype) if isinstance(up, NearestUpsample) else None,
            up.weight.detach().to(dtype).unsqueeze(2),
            up.bias.detach().to(dtype),
            _Down.of(stage.source_down, dtype),
            _Block.of(stage.source_block, dtype),
            tuple(_Block.of(block, dtype) for block in stage.blocks),
        )

    def upsampled(self, ops: Convolutions, x: Tensor) -> Tensor:
        up = self.stage.up
        if self.up is not None:
            assert isinstance(up, NearestUpsample)
            return ops.conv(x.repeat_interleave(up.rate, dim=1), self.up.taps, self.up.left, Ending())[0]
        assert isinstance(up, TransposedUpsample)
        channels_first = x.transpose(1, 2).unsqueeze(2)  # channels-last in memory
        y = F.conv_transpose2d(
            channels_first, self.up_weight, self.up_bias, stride=(1, up.stride[0]), padding=(0, up.cut)
        )
        return y.squeeze(2).transpose(1, 2).contiguous()

    def run(self, ops: Convolutions, x: Tensor, spectrum: Tensor, lens: Tensor, slope: float) -> Tensor:
        """x: (B, T', C) behind its activation; lens: (B,) int32, of the result. slope: of the activation after it."""
        up = self.upsampled(ops, x)
        if self.stage.is_last:
            up = torch.cat([up[:, 1:2], up], dim=1)
        x = self.source.run(ops, self._source(spectrum, up.shape[1], lens), Ending(extra=up, lens=lens))
        total: Tensor | None = None
        for block in self.blocks[:-1]:
            total = block.run(ops, x, Ending(extra=total, lens=lens))
        return self.blocks[-1].run(
            ops, x, Ending(extra=total, factor=1 / len(self.blocks), slope=slope, lens=lens)
        )

    def _source(self, spectrum: Tensor, frames: int, lens: Tensor) -> Tensor:
        return _cut(self.down.run(spectrum, frames), lens)


def _cut(x: Tensor, lens: Tensor) -> Tensor:
    """(B, T, C), zero beyond `lens`."""
    inside = torch.arange(x.shape[1], device=x.device) < lens[:, None]
    return torch.where(inside[:, :, None], x, 0.0)  # not a product: what lies beyond may be NaN


class FastDecoder:
    """Features and source to waveforms; `HiFT.decode` is its oracle."""

    def __init__(self, model: HiFT, dtype: torch.dtype, triton: bool) -> None:
        self._cfg, self._dtype, self._ops = model.cfg, dtype, Convolutions(triton)
        self._pre = _Conv.of(model.conv_pre, dtype)
        self._stages = tuple(_Stage.of(stage, dtype) for stage in model.stages)
        self._post = _Conv.of(model.conv_post, dtype)
        self._slopes = (*(stage.lrelu_slope for stage in model.stages[1:]), FINAL_SLOPE)

    def features(self, mel: Tensor) -> Tensor:
        """(B, T, mel) to (B, T, base channels), of rows that are zero beyond their ends."""
        return self._ops.conv(mel.to(self._dtype).contiguous(), self._pre.taps, self._pre.left, Ending())[0]

    def decode(self, features: Tensor, source: Tensor, lens: Tensor) -> Tensor:
        """features: (B, T, base); source: (B, T * samples_per_frame) float32; lens: (B,) int32, frames of each row

        Returns (B, T * samples_per_frame) float32, undefined beyond a row's end.
        """
        cfg = self._cfg
        columns = prod(cfg.upsample_rates)
        spectrum = ragged_stft(source, lens * cfg.samples_per_frame, cfg.istft_n_fft, cfg.istft_hop_len)
        spectrum = _cut(spectrum, lens * columns + 1).to(self._dtype)
        x = F.leaky_relu(_cut(features, lens).to(self._dtype), self._stages[0].stage.lrelu_slope)
        for stage, slope in zip(self._stages, self._slopes, strict=True):
            rate = stage.stage.columns_in * stage.stage.up_rate
            x = stage.run(self._ops, x, spectrum, lens * rate + int(stage.stage.is_last), slope)
        after, _ = self._ops.conv(x, self._post.taps, self._post.left, Ending(dtype=torch.float32))
        spoken = polar(after.transpose(1, 2)).transpose(1, 2)
        wav = ragged_istft(spoken, lens * columns + 1, cfg.istft_n_fft, cfg.istft_hop_len)
        return wav.clamp(-cfg.audio_limit, cfg.audio_limit)
