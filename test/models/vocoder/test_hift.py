from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from light_tts.errors import InvalidModelConfig
from light_tts.models.vocoder.hift import HiFT
from light_tts.models.vocoder.source_noise import SourceNoise
from test.models.vocoder.vocoders import (
    SAME_WAVE,
    golden_mel,
    golden_vocoder,
    make,
    random_mel,
    random_vocoder,
    vocoder_params,
)


@pytest.fixture(params=vocoder_params())
def voice(request: pytest.FixtureRequest) -> tuple[HiFT, Tensor]:
    version, shape = request.param
    return make(version, shape, 70)


@torch.inference_mode()
def test_padded_rows_sound_as_alone(voice: tuple[HiFT, Tensor]) -> None:
    """Lengths around that of the windows which mend the ends: shorter, as long, longer, empty, full."""
    model, mel = voice
    window = model.reach.left + model.reach.right
    lens = torch.tensor([window - 1, window, 70, 1, 0, 62, window + 5])
    mels = torch.cat([mel.roll(row, dims=2) for row in range(len(lens))])
    noises = [SourceNoise.seeded(row) for row in range(len(lens))]
    garbage = mels.clone()
    for row, length in enumerate(lens.tolist()):
        garbage[row, :, length:] = 7.0
    wavs = model.synthesize(garbage, lens, noises)
    samples = model.cfg.samples_per_frame
    for row, length in enumerate(lens.tolist()):
        assert not wavs[row, length * samples :].any()
        if length:
            alone = model.synthesize(mels[row : row + 1, :, :length], torch.tensor([length]), [noises[row]])
            torch.testing.assert_close(wavs[row, : length * samples], alone[0], atol=SAME_WAVE, rtol=0)


@torch.inference_mode()
def test_every_frame_gives_its_samples_within_the_limit(voice: tuple[HiFT, Tensor]) -> None:
    model, mel = voice
    for frames in (1, 2, 33):
        wav = model.synthesize(mel[:, :, :frames], torch.tensor([frames]), [SourceNoise.seeded(1)])
        assert wav.shape == (1, frames * model.cfg.samples_per_frame)
        assert wav.dtype == torch.float32
        assert wav.abs().max() <= model.cfg.audio_limit


@torch.inference_mode()
def test_only_the_seed_decides_the_noise(voice: tuple[HiFT, Tensor]) -> None:
    model, mel = voice
    lens = torch.tensor([mel.shape[2]])

    def speak(noise: SourceNoise) -> Tensor:
        return model.synthesize(mel, lens, [noise])

    assert torch.equal(speak(SourceNoise.seeded(1)), speak(SourceNoise.seeded(1)))
    assert not torch.equal(speak(SourceNoise.seeded(1)), speak(SourceNoise.seeded(2)))


@torch.inference_mode()
def test_a_causal_vocoder_does_not_hear_later_frames() -> None:
    model, mel = golden_vocoder(3), golden_mel(3)
    lens, noise = torch.tensor([40]), [SourceNoise.seeded(1)]
    later = mel[:, :, :40].clone()
    later[:, :, 30:] = -3
    known = (30 - model.cfg.conv_pre_look_right - model.reach.right) * model.cfg.samples_per_frame
    before, after = (model.synthesize(m, lens, noise) for m in (mel[:, :, :40], later))
    torch.testing.assert_close(before[:, :known], after[:, :known], atol=1e-6, rtol=0)
    assert not torch.allclose(before[:, known:], after[:, known:])


@pytest.mark.parametrize(("version", "exact"), [(2, torch.float32), (3, torch.float64)])
def test_pitch_keeps_its_precision_when_convolutions_are_bfloat16(version: int, exact: torch.dtype) -> None:
    model, half = random_vocoder(version, "5-8-3"), _copy(random_vocoder(version, "5-8-3"))
    half.to_precision(torch.bfloat16)
    assert {p.dtype for p in half.f0_predictor.parameters()} == {exact}
    assert {p.dtype for p in half.m_source.parameters()} == {torch.float32}
    assert {p.dtype for p in half.conv_pre.parameters()} == {torch.bfloat16}
    mel, lens, noise = random_mel(model, 40), torch.tensor([40]), [SourceNoise.seeded(1)]
    with torch.inference_mode():
        assert torch.equal(model.f0(mel), half.f0(mel.bfloat16().float())) is False
        assert torch.equal(model.f0(mel), half.f0(mel))
        expected, wav = model.synthesize(mel, lens, noise), half.synthesize(mel, lens, noise)
    error = (wav - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert 0 < error < 0.05
    assert wav.dtype == torch.float32


@pytest.mark.parametrize("version", [2, 3])
def test_gradients_reach_every_weight(version: int) -> None:
    model = _copy(random_vocoder(version, "3-4")).requires_grad_(True)
    mel = random_mel(model, 8)
    model.synthesize(mel, torch.tensor([8]), [SourceNoise.seeded(1)]).square().sum().backward()
    without = [
        name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()
    ]
    assert without == []


def test_a_transform_that_cannot_overlap_is_refused() -> None:
    cfg = dataclasses.replace(random_vocoder(2, "3-4").cfg, istft_n_fft=10, istft_hop_len=4)
    with pytest.raises(InvalidModelConfig, match="n_fft 10 is not a multiple of hop_len 4"):
        HiFT(cfg)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("shape", ["5-8-3", "3-4", "3-1-5"])
@torch.inference_mode()
def test_decoder_equals_a_plain_reading_of_its_definition(version: int, shape: str) -> None:
    """Written again with one-dimensional convolutions and torch's own transforms, without any sharing."""
    model = random_vocoder(version, shape)
    mel = random_mel(model, 20, seed=3)
    source = 0.1 * torch.randn(
        1, 20 * model.cfg.samples_per_frame, generator=torch.Generator().manual_seed(4)
    )
    expected = _plain_decode(model, mel, source)
    torch.testing.assert_close(model.decode(mel, source), expected, atol=1e-5, rtol=0)


def _copy(model: HiFT) -> HiFT:
    copy = HiFT(model.cfg)
    copy.load_state_dict(model.state_dict())
    return copy.to_precision(torch.float32).eval()


def _plain_decode(model: HiFT, mel: Tensor, source: Tensor) -> Tensor:
    cfg, causal, weights = model.cfg, model.cfg.version == 3, model.state_dict()
    functional = torch.nn.functional

    def conv(name: str, x: Tensor, padding: tuple[int, int], dilation: int = 1, stride: int = 1) -> Tensor:
        return functional.conv1d(
            functional.pad(x, padding),
            weights[f"{name}.weight"],
            weights[f"{name}.bias"],
            stride,
            0,
            dilation,
        )

    def same(name: str, x: Tensor, dilation: int = 1) -> Tensor:
        total = (weights[f"{name}.weight"].shape[2] - 1) * dilation
        return conv(name, x, (total, 0) if causal else (total // 2, total // 2), dilation)

    def snake(name: str, x: Tensor) -> Tensor:
        alpha = weights[f"{name}.alpha"][None, :, None]
        return x + torch.sin(alpha * x) ** 2 / (alpha + 1e-9)

    def block(name: str, x: Tensor, dilations: tuple[int, ...]) -> Tensor:
        for index, dilation in enumerate(dilations):
            y = same(f"{name}.convs1.{index}", snake(f"{name}.activations1.{index}", x), dilation)
            x = x + same(f"{name}.convs2.{index}", snake(f"{name}.activations2.{index}", y))
        return x

    spectrum = _plain_spectrum(source, cfg.istft_n_fft, cfg.istft_hop_len)
    x = conv("conv_pre", mel, (0, cfg.conv_pre_look_right) if causal else (3, 3))
    for index, (rate, kernel) in enumerate(zip(cfg.upsample_rates, cfg.upsample_kernel_sizes, strict=True)):
        x = functional.leaky_relu(x, cfg.lrelu_slope)
        if causal:
            x = conv(f"ups.{index}", x.repeat_interleave(rate, dim=2), (kernel - 1, 0))
        else:
            weight, bias = weights[f"ups.{index}.weight"], weights[f"ups.{index}.bias"]
            x = functional.conv_transpose1d(x, weight, bias, rate, (kernel - rate) // 2)
        if index == len(cfg.upsample_rates) - 1:
            x = functional.pad(x, (1, 0), mode="reflect")
        later = int(torch.tensor(cfg.upsample_rates[index + 1 :]).prod())
        padding = (0, 0) if later == 1 else (later - 1, 0) if causal else (later // 2, later // 2)
        down = conv(f"source_downs.{index}", spectrum, padding, stride=later)
        x = x + block(f"source_resblocks.{index}", down, cfg.source_resblock_dilation_sizes[index])
        first = index * len(cfg.resblock_dilation_sizes)
        blocks = [block(f"resblocks.{first + n}", x, d) for n, d in enumerate(cfg.resblock_dilation_sizes)]
        x = torch.stack(blocks).mean(0)
    x = same("conv_post", functional.leaky_relu(x, 0.01))
    return _plain_wave(x, cfg.istft_n_fft, cfg.istft_hop_len).clamp(-cfg.audio_limit, cfg.audio_limit)


def _plain_spectrum(source: Tensor, n_fft: int, hop_len: int) -> Tensor:
    window = torch.hann_window(n_fft)
    spectrum = torch.stft(source, n_fft, hop_len, window=window, return_complex=True)
    return torch.cat([spectrum.real, spectrum.imag], dim=1)


def _plain_wave(x: Tensor, n_fft: int, hop_len: int) -> Tensor:
    magnitude, phase = x.chunk(2, dim=1)
    spectrum = torch.polar(magnitude.exp().clamp(max=100), torch.sin(phase))
    return torch.istft(spectrum, n_fft, hop_len, window=torch.hann_window(n_fft))
