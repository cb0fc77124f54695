from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from light_tts.encode.features import slaney_mel_bank
from recipes.mini.losses import (
    MEL_SCALES,
    adversarial_loss,
    discriminator_loss,
    f0_errors,
    f0_loss,
    feature_loss,
    magnitudes,
    mel_distance,
    stft_distance,
)

RATE = 24_000


def tone(hertz: float, num_samples: int = 4800) -> Tensor:
    return 0.3 * torch.sin(torch.arange(num_samples) * (2 * math.pi * hertz / RATE))[None]


@pytest.mark.parametrize("scale", MEL_SCALES)
def test_no_filter_of_the_loss_falls_between_two_bins(scale: object) -> None:
    assert isinstance(scale, type(MEL_SCALES[0]))
    bank = slaney_mel_bank(RATE, scale.n_fft, scale.num_mels, 0.0, RATE / 2)
    assert (bank.sum(dim=1) > 0).all()


def test_magnitudes_are_those_of_the_fourier_transform() -> None:
    wav = torch.randn(2, 4800, generator=torch.Generator().manual_seed(0))
    window = torch.hann_window(512)
    expected = torch.fft.rfft(wav[1, 128 * 5 - 256 : 128 * 5 + 256] * window).abs()
    torch.testing.assert_close(magnitudes(wav, 512)[1, :, 5], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("distance", [lambda a, b: mel_distance(a, b, RATE), stft_distance])
def test_distances_are_zero_for_the_same_and_grow_with_the_error(distance: object) -> None:
    assert callable(distance)
    wav = tone(300) + tone(900)
    noise = torch.randn(wav.shape, generator=torch.Generator().manual_seed(0))
    errors = [float(distance(wav + level * noise, wav)) for level in (0.0, 1e-3, 1e-2, 1e-1)]
    assert errors[0] == 0
    assert errors == sorted(errors)
    assert errors[1] > 0


def test_the_mel_distance_does_not_hear_phases_but_hears_pitches() -> None:
    wav = tone(300)
    assert mel_distance(-wav, wav, RATE) < 1e-4
    assert mel_distance(tone(330), wav, RATE) > 0.1


def test_silence_has_a_finite_gradient() -> None:
    wav = torch.zeros(1, 4800, requires_grad=True)
    (mel_distance(wav, tone(300), RATE) + stft_distance(wav, tone(300))).backward()
    assert wav.grad is not None
    assert wav.grad.isfinite().all()


def test_spectral_losses_stay_in_float32_under_autocast() -> None:
    wav, other = tone(300), tone(310)
    expected = mel_distance(wav, other, RATE)
    with torch.autocast("cpu", torch.bfloat16):
        assert mel_distance(wav, other, RATE) == expected


def test_a_doubtful_frame_is_drawn_to_its_likelier_value_not_to_one_between() -> None:
    def best(real: Tensor) -> float:
        candidates = torch.arange(0.0, 250.0, 10.0)
        losses = torch.stack([f0_loss(hertz.expand_as(real), real) for hertz in candidates])
        return float(candidates[losses.argmin()])

    assert best(torch.tensor([200.0, 200.0, 200.0, 0.0, 0.0])) == 200
    assert best(torch.tensor([200.0, 200.0, 0.0, 0.0, 0.0])) == 0


def test_f0_errors_count_pitch_where_both_are_voiced_and_voicing_everywhere() -> None:
    predicted = torch.tensor([[103.0, 204.0, 0.0, 50.0, 2.0]])
    real = torch.tensor([[100.0, 200.0, 150.0, 0.0, 0.0]])
    rmse, wrong = f0_errors(predicted, real, 10.0)
    assert rmse == pytest.approx(math.sqrt((9 + 16) / 2))
    assert wrong == pytest.approx(2 / 5)
    assert math.isnan(f0_errors(predicted * 0, real, 10.0)[0])


def test_the_game_is_won_at_one_for_real_and_zero_for_fake() -> None:
    ones, zeros = [torch.ones(2, 3), torch.ones(2, 5)], [torch.zeros(2, 3), torch.zeros(2, 5)]
    assert discriminator_loss(ones, zeros) == 0
    assert discriminator_loss(zeros, ones) == 4
    assert adversarial_loss(ones) == 0
    assert adversarial_loss(zeros) == 2


def test_scaling_a_discriminators_layers_leaves_the_feature_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    fake = [[torch.randn(2, 4, generator=generator) for _ in range(3)] for _ in range(2)]
    real = [[torch.randn(2, 4, generator=generator) for _ in range(3)] for _ in range(2)]
    loss = feature_loss(fake, real)
    grown = feature_loss([[9 * x for x in row] for row in fake], [[9 * x for x in row] for row in real])
    torch.testing.assert_close(grown, loss)
    assert loss > 0
    assert feature_loss(real, real) == 0


def test_the_feature_loss_does_not_move_the_real_side() -> None:
    real = torch.randn(2, 4, requires_grad=True)
    fake = torch.randn(2, 4, requires_grad=True)
    feature_loss([[fake]], [[real]]).backward()
    assert real.grad is None
    assert fake.grad is not None
