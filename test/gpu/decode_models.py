"""The flow and the vocoder at full size, or tiny, with random weights that behave like trained ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from light_tts.models.config import ConformerConfig, DiTConfig, FlowConfig, HiFTConfig, UNetConfig
from light_tts.models.flow.flow_state import FlowPrompt
from light_tts.models.flow.token_to_mel import Flow
from light_tts.models.layers.ragged import Frames
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


@torch.inference_mode()
def random_flow(version: int, device: torch.device, *, tiny: bool) -> Flow:
    """Weights as torch draws them, and a velocity of size 1."""
    torch.manual_seed(0)
    with device:
        flow = Flow(flow_config(version, tiny=tiny)).eval().requires_grad_(False)
        for name, parameter in flow.named_parameters():
            if "pos_bias" in name:
                nn.init.normal_(parameter, std=0.1)
        lens = torch.full((1,), 100)
        x, mu, cond = (torch.randn(1, 80, 100) for _ in range(3))
        spks, t = torch.randn(1, 80), torch.full((1,), 0.5)
        estimator = flow.decoder.estimator
        out, _ = estimator(x, mu, t, spks, cond, Frames.whole(lens.cpu(), 100))
        last: nn.Module = estimator.final_proj if version == 2 else estimator.proj_out  # type: ignore[assignment]
        last.weight.div_(out.std())  # type: ignore[operator]
        last.bias.zero_()  # type: ignore[operator]
    return flow


@torch.inference_mode()
def random_vocoder(version: int, device: torch.device, *, tiny: bool) -> HiFT:
    """A pitch between 50 and 400 Hz, and a waveform of some tenths."""
    torch.manual_seed(1)
    with device:
        model = HiFT(hift_config(version, tiny=tiny)).eval().requires_grad_(False)
        for module in model.modules():
            if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
                fan = (
                    module.weight[0].numel() if isinstance(module, nn.Conv1d) else module.weight.shape[0] * 2
                )
                nn.init.normal_(module.weight, std=0.6 * fan**-0.5)
        nn.init.normal_(model.f0_predictor.classifier.weight, std=20.0)
        nn.init.constant_(model.f0_predictor.classifier.bias, 150.0)
        nn.init.normal_(model.conv_post.weight, std=0.3 * (7 * model.conv_post.in_channels) ** -0.5)
        assert model.conv_post.bias is not None
        nn.init.constant_(model.conv_post.bias, -1.0)
    return model.to_precision(torch.float32)


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
