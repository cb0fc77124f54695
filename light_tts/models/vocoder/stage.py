"""One upsampling stage of HiFT."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from light_tts.models.config import HiFTConfig
from light_tts.models.vocoder.convolution import NearestUpsample, PaddedConv1d, TransposedUpsample
from light_tts.models.vocoder.reach import Reach
from light_tts.models.vocoder.resblock import ResBlock


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """The modules of one stage, which the checkpoint keeps in four lists.

    columns_in: input columns per mel frame; up_rate: output columns per input column
    step: audio samples per output column
    is_last: this stage's output has one column more, as the source spectrum has
    """

    up: TransposedUpsample | NearestUpsample
    source_down: PaddedConv1d
    source_block: ResBlock
    blocks: tuple[ResBlock, ...]
    lrelu_slope: float
    columns_in: int
    up_rate: int
    step: int
    is_last: bool

    @classmethod
    def build(cls, cfg: HiFTConfig, index: int) -> Stage:
        causal, channels = cfg.version == 3, cfg.base_channels >> (index + 1)
        later = prod(cfg.upsample_rates[index + 1 :])
        upsample = NearestUpsample if causal else TransposedUpsample
        shapes = zip(cfg.resblock_kernel_sizes, cfg.resblock_dilation_sizes, strict=True)
        source_kernel = cfg.source_resblock_kernel_sizes[index]
        source_dilations = cfg.source_resblock_dilation_sizes[index]
        return cls(
            up=upsample(2 * channels, channels, cfg.upsample_kernel_sizes[index], cfg.upsample_rates[index]),
            source_down=_source_down(cfg.istft_n_fft + 2, channels, later, causal),
            source_block=ResBlock(channels, source_kernel, source_dilations, causal),
            blocks=tuple(ResBlock(channels, kernel, dilations, causal) for kernel, dilations in shapes),
            lrelu_slope=cfg.lrelu_slope,
            columns_in=prod(cfg.upsample_rates[:index]),
            up_rate=cfg.upsample_rates[index],
            step=cfg.istft_hop_len * later,
            is_last=index == len(cfg.upsample_rates) - 1,
        )

    def run(self, x: Tensor, spectrum: Tensor) -> Tensor:
        """Both inputs of the same T frames: (B, C, 1, T * columns_in) and (B, n_fft + 2, 1, T * all + 1)."""
        x = self.up(F.leaky_relu(x, self.lrelu_slope))
        if self.is_last:
            x = torch.cat([x[..., 1:2], x], dim=3)  # reflected: as many columns as the source spectrum
        x = self.source_block(self.source_down(spectrum)).add_(x)
        total = self.blocks[0](x)
        for block in self.blocks[1:]:
            total = total + block(x)
        return total / len(self.blocks)

    def reach(self, after: Reach, hop_len: int) -> tuple[Reach, Reach]:
        """Context that this stage needs of its two inputs, x and spectrum, if its output needs `after`.

        All in samples; hop_len: samples per column of the spectrum.
        """
        inner = after
        for block in self.blocks:
            inner = inner | (after + block.reach * self.step)
        spectrum = inner + self.source_block.reach * self.step + self.source_down.reach * hop_len
        shift = Reach(self.step, 0) if self.is_last else Reach()  # the reflected column moves the rest by one
        return inner + shift + self.up.reach * self.step, spectrum


def _source_down(in_channels: int, channels: int, rate: int, causal: bool) -> PaddedConv1d:
    """From the source spectrum's columns to a stage's, `rate` times fewer."""
    if rate == 1:
        return PaddedConv1d(in_channels, channels, 1, left=0, right=0)
    left, right = (rate - 1, 0) if causal else (rate // 2, rate // 2)
    return PaddedConv1d(in_channels, channels, 2 * rate, left=left, right=right, stride=rate)
