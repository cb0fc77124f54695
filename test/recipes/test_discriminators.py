from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from recipes.mini.losses import discriminator_loss
from recipes.mini.models.discriminators import (
    PERIODS,
    SPECTRUM_SIZES,
    Discriminators,
    PeriodDiscriminator,
    SpectrumDiscriminator,
)
from recipes.mini.settings import Settings


def noise(rows: int, num_samples: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(rows, num_samples, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("period", PERIODS)
def test_a_period_discriminator_never_mixes_phases_of_its_period(period: int) -> None:
    wav = noise(1, 40 * period).requires_grad_()
    judged = PeriodDiscriminator(period, (4, 4))(wav)
    judged.score[..., 1].square().sum().backward()
    assert wav.grad is not None
    heard = wav.grad[0].view(-1, period).abs().sum(0) > 0
    assert heard.tolist() == [phase == 1 for phase in range(period)]


@pytest.mark.parametrize("num_samples", [4800, 4801, 4807])
def test_any_length_is_judged(num_samples: int) -> None:
    judgements = Discriminators((4, 4), (4, 4))(noise(2, num_samples))
    assert len(judgements) == len(PERIODS) + len(SPECTRUM_SIZES)
    assert all(judged.score.shape[:2] == (2, 1) for judged in judgements)
    assert all(len(judged.features) == 2 for judged in judgements)


def test_a_spectrogram_shows_the_tone_its_phase_and_the_place_of_each_bin() -> None:
    bins = 32
    wav = torch.sin(torch.arange(4800) * (2 * math.pi * bins / 512))[None]
    front = SpectrumDiscriminator(512, (4, 4))
    shown, turned = front.spectrogram(wav)[0], front.spectrogram(-wav)[0]
    assert shown.shape[:2] == (3, 256)
    assert int(shown[:2, :, 10].norm(dim=0).argmax()) == bins
    torch.testing.assert_close(turned[:2], -shown[:2])
    assert torch.equal(shown[2, :, 10], torch.linspace(-1, 1, 256))


def test_quiet_sounds_are_shown_louder_than_they_are() -> None:
    front = SpectrumDiscriminator(512, (4, 4))
    loud, quiet = (float(front.spectrogram(level * noise(1, 4800))[:, :2].std()) for level in (1.0, 0.1))
    assert 0.3 < quiet / loud < 0.8


def test_rows_are_judged_alone() -> None:
    model = Discriminators((4, 4), (4, 4))
    wav = noise(2, 4800)
    for both, alone in zip(model(wav), model(wav[1:]), strict=True):
        torch.testing.assert_close(both.score[1:], alone.score, atol=1e-6, rtol=1e-5)


def test_gradients_reach_every_weight() -> None:
    model = Discriminators((4, 4, 4), (4, 4, 4))
    sum(judged.score.square().sum() for judged in model(noise(1, 4800))).backward()
    assert [
        name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()
    ] == []


def test_spectra_stay_in_float32_under_autocast() -> None:
    front = SpectrumDiscriminator(512, (4, 4))
    wav = noise(1, 4800)
    expected = front.spectrogram(wav)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(front.spectrogram(wav), expected)


def test_every_discriminator_learns_to_tell_tones_from_noise() -> None:
    torch.manual_seed(0)
    model = Discriminators((8, 16), (8, 16))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    real = 0.3 * torch.sin(torch.arange(1600) * torch.tensor([[0.1], [0.2]]))
    for step in range(30):
        fake = noise(2, 1600, seed=step)
        truths, fakes = model(real), model(fake)
        loss = discriminator_loss([j.score for j in truths], [j.score for j in fakes])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for truth, lie in zip(model(real), model(noise(2, 1600, seed=99)), strict=True):
        assert truth.score.mean() > lie.score.mean() + 0.3


def test_the_voices_discriminators_are_about_as_large_as_its_generator() -> None:
    s = Settings.default().vocoder
    with torch.device("meta"):
        model = Discriminators(s.period_channels, s.spectrum_channels)
    assert 3e6 < sum(weight.numel() for weight in model.parameters()) < 4e6
