"""The flow and the vocoder at full size, or tiny, with random weights that behave like trained ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from light_tts.bench import random_model
from light_tts.models.config import ConformerConfig, DiTConfig, FlowConfig, HiFTConfig, UNetConfig
from light_tts.models.flow.flow_state import FlowPrompt
from light_tts.models.flow.token_to_mel import Flow
from light_tts.models.vocoder.hift import HiFT

V2 = FlowConfig(
    2,
    6561,
    512,
    80,
    192,
    3,
    2,
    ConformerConfig(512, 512, 8, 2048, 6),
    None,
    UNetConfig(320, 80, 256, 64, 4, 12, 8),
)
V3 = FlowConfig(3, 6561, 80, 80, 192, 3, 2, None, 1024, DiTConfig(1024, 22, 16, 64, 2))
TINY_V2 = replace(
    V2, input_size=64, encoder=ConformerConfig(64, 64, 2, 96, 1, num_up_blocks=1),
    estimator=UNetConfig(320, 80, 32, 16, 1, 1, 2), num_steps=2,
)  # fmt: skip
TINY_V3 = replace(V3, pre_lookahead_channels=96, estimator=DiTConfig(64, 2, 2, 32, 2), num_steps=2)


def hift_config(version: int, *, tiny: bool) -> HiFTConfig:
    return HiFTConfig(
        version=version,
        in_channels=80,
        base_channels=32 if tiny else 512,
        nb_harmonics=8,
        sampling_rate=24_000,
        nsf_alpha=0.1,
        nsf_sigma=0.003,
        nsf_voiced_threshold=10.0,
        upsample_rates=(8, 5, 3),
        upsample_kernel_sizes=(16, 11, 7),
        istft_n_fft=16,
        istft_hop_len=4,
        resblock_kernel_sizes=(3, 7, 11),
        resblock_dilation_sizes=((1, 3, 5),) * 3,
        source_resblock_kernel_sizes=(7, 7, 11),
        source_resblock_dilation_sizes=((1, 3, 5),) * 3,
        lrelu_slope=0.1,
        audio_limit=0.99,
        f0_cond_channels=32 if tiny else 512,
    )


def flow_config(version: int, *, tiny: bool) -> FlowConfig:
    return {(2, False): V2, (3, False): V3, (2, True): TINY_V2, (3, True): TINY_V3}[version, tiny]


def random_flow(version: int, device: torch.device, *, tiny: bool) -> Flow:
    """As the bench draws it."""
    torch.manual_seed(0)
    return random_model.random_flow(flow_config(version, tiny=tiny), device)


def random_vocoder(version: int, device: torch.device, *, tiny: bool) -> HiFT:
    """As the bench draws it, in full precision."""
    torch.manual_seed(1)
    return random_model.random_vocoder(hift_config(version, tiny=tiny), device).to_precision(torch.float32)


@dataclass(frozen=True, slots=True)
class Voices:
    """Prompts and speech tokens, drawn anew for each seed."""

    vocab: int

    def tokens(self, count: int, seed: int) -> Tensor:
        return torch.randint(0, self.vocab, (count,), generator=torch.Generator().manual_seed(seed))

    def prompt(self, count: int, seed: int) -> FlowPrompt:
        generator = torch.Generator().manual_seed(1000 + seed)
        mel = torch.randn(2 * count, 80, generator=generator)
        return FlowPrompt(self.tokens(count, 2000 + seed), mel, torch.randn(192, generator=generator))
