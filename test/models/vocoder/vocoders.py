"""Vocoders for tests: the recorded tiny ones, and random ones of other shapes."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from light_tts.models.config import HiFTConfig
from light_tts.models.loader import load_vocoder
from light_tts.models.model_yaml import read_model_config
from light_tts.models.vocoder.hift import HiFT
from test.conftest import GOLDEN

SAME_WAVE = 2e-5  # the same float32 arithmetic in windows of other lengths; waves here reach 0.4

# Rates in another order than the released ones; two stages with an even rate at the end; a rate of 1 and an
# odd number of samples per frame.
SHAPES: dict[str, dict[str, tuple[int, ...] | int]] = {
    "5-8-3": {"upsample_rates": (5, 8, 3), "upsample_kernel_sizes": (11, 16, 7)},
    "3-4": {"upsample_rates": (3, 4), "upsample_kernel_sizes": (7, 8), "istft_n_fft": 8, "istft_hop_len": 2},
    "3-1-5": {
        "upsample_rates": (3, 1, 5),
        "upsample_kernel_sizes": (5, 1, 9),
        "istft_n_fft": 6,
        "istft_hop_len": 1,
    },
}


@lru_cache
def golden_vocoder(version: int) -> HiFT:
    folder = GOLDEN / f"cosyvoice{version}"
    return load_vocoder(folder, read_model_config(folder).hift, torch.device("cpu"), torch.float32)


@lru_cache
def golden_mel(version: int) -> Tensor:
    """(1, 80, T) recorded mel of an utterance."""
    return load_file(recording(version, "flow"))["mel.stream0.final1"]


def recording(version: int, part: str) -> Path:
    return GOLDEN / "fixtures" / f"cv{version}_{part}.safetensors"


@lru_cache
def random_vocoder(version: int, shape: str) -> HiFT:
    """A small vocoder with random weights whose f0 wanders between voiced and unvoiced."""
    numbers = SHAPES[shape]
    rates = numbers["upsample_rates"]
    assert isinstance(rates, tuple)
    cfg = HiFTConfig(
        version=version,
        in_channels=10,
        base_channels=16,
        nb_harmonics=8,
        sampling_rate=24_000,
        nsf_alpha=0.1,
        nsf_sigma=0.003,
        nsf_voiced_threshold=10,
        resblock_kernel_sizes=(3, 5),
        resblock_dilation_sizes=((1, 3), (1, 2)),
        source_resblock_kernel_sizes=(3, 5, 7)[: len(rates)],
        source_resblock_dilation_sizes=((1, 3), (1, 2), (2,))[: len(rates)],
        lrelu_slope=0.1,
        audio_limit=0.99,
        f0_cond_channels=8,
        **{"istft_n_fft": 16, "istft_hop_len": 4, **numbers},  # type: ignore[arg-type]
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = HiFT(cfg)
        for module in model.modules():
            if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
                nn.init.normal_(module.weight, std=(module.weight.shape[1] * module.weight.shape[2]) ** -0.5)
        nn.init.normal_(model.f0_predictor.classifier.weight, std=60.0)
        nn.init.normal_(model.conv_post.weight, std=0.02)  # louder ones double every rounding error
    return model.to_precision(torch.float32).eval().requires_grad_(False)


def random_mel(model: HiFT, frames: int, seed: int = 0, rows: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, model.cfg.in_channels, frames, generator=generator)


def vocoder_params() -> list[object]:
    """Every vocoder under test as (version, shape); shape None is the recorded one."""
    shapes: list[str | None] = [None, *SHAPES]
    return [pytest.param((v, s), id=f"v{v}-{s or 'golden'}") for v in (2, 3) for s in shapes]


def make(version: int, shape: str | None, frames: int) -> tuple[HiFT, Tensor]:
    """A vocoder and a mel of `frames` for it."""
    if shape is None:
        return golden_vocoder(version), golden_mel(version).repeat(1, 1, 4)[:, :, :frames]
    model = random_vocoder(version, shape)
    return model, random_mel(model, frames)
