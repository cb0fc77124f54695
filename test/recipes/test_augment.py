from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from recipes.mini.augment_settings import AugmentSettings
from recipes.mini.train import augment
from test.recipes.encoder_parts import UNCHANGED

RATE = 16_000


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def tone(hertz: float, num_samples: int, rate: int = RATE) -> Tensor:
    seconds = torch.arange(num_samples, dtype=torch.float64) / rate
    return torch.sin(2 * math.pi * hertz * seconds).float()


def vowel(f0: float, formants: tuple[float, ...], num_samples: int) -> Tensor:
    """Harmonics of f0 under broad peaks at the formants."""
    wav = torch.zeros(num_samples)
    for number in range(1, int(7000 / f0)):
        hertz = number * f0
        wav += tone(hertz, num_samples) * (sum(1 / (1 + ((hertz - peak) / 300) ** 2) for peak in formants))
    return 0.1 * wav


def peaks(wav: Tensor, low: float, high: float) -> float:
    """Centre of the power between two frequencies."""
    power = torch.fft.rfft(wav * torch.hann_window(len(wav))).abs().square()
    hertz = torch.fft.rfftfreq(len(wav), 1 / RATE)
    inside = (hertz > low) & (hertz < high)
    return float((power * hertz)[inside].sum() / power[inside].sum())


@pytest.mark.parametrize("speed", [1.25, 0.8])
def test_playing_faster_raises_a_tone_and_shortens_it(speed: float) -> None:
    played = augment.played_in(tone(440.0, 40_000)[None], round(40_000 / speed))[0]
    expected = tone(440.0 * speed, len(played))
    torch.testing.assert_close(played[2000:-2000], expected[2000:-2000], atol=2e-3, rtol=0)


def test_what_playing_faster_moves_beyond_the_band_is_gone_and_not_mirrored() -> None:
    wav = tone(7000.0, 30_000)[None]
    assert float(augment.played_in(wav, 23_000)[0, 2000:-2000].abs().max()) < 1e-2
    assert float(augment.played_in(wav, 40_000)[0, 2000:-2000].abs().max()) > 0.9


def test_some_voices_stay_and_the_others_are_told_their_speed() -> None:
    wav = torch.stack([tone(500.0, 24_000) for _ in range(10)])
    settings = dataclasses.replace(UNCHANGED, warped=0.6, speed=(0.8, 1.2), formants=(1.0, 1.0))
    heard, speed, kept = augment.other_voices(wav, 19_200, settings, np.random.default_rng(0), RATE)
    assert heard.shape == (10, 19_200)
    assert kept == 4
    assert torch.equal(heard[:4], wav[:4, :19_200])
    assert speed[:4].tolist() == [1.0] * 4
    assert 0.79 < float(speed.min()) < 0.95
    assert 1.05 < float(speed.max()) < 1.21
    for row in range(4, 10):
        inside = heard[row, 2000:17_000]
        torch.testing.assert_close(
            inside, tone(500.0 * float(speed[row]), 19_200)[2000:17_000], atol=0.05, rtol=0
        )


def test_what_nothing_is_done_to_is_not_touched() -> None:
    wav = torch.randn(3, 4800)
    heard, speed, kept = augment.other_voices(wav, 4000, UNCHANGED, np.random.default_rng(0), RATE)
    assert kept == 3
    assert torch.equal(heard, wav[:, :4000])
    assert torch.equal(speed, torch.ones(3))
    torch.testing.assert_close(augment.recorded(wav, UNCHANGED, RATE), wav, atol=1e-5, rtol=0)
    still = augment.with_formants(wav, torch.ones(3), RATE)
    torch.testing.assert_close(still, wav, atol=1e-4, rtol=0)


@pytest.mark.parametrize("shift", [0.85, 1.18])
def test_formants_move_and_the_pitch_stays(shift: float) -> None:
    wav = vowel(125.0, (600.0, 2400.0), 32_000)
    moved = augment.with_formants(wav[None], torch.tensor([shift]), RATE)[0]
    centre = peaks(moved, 1500, 3800) / peaks(wav, 1500, 3800)
    assert 0.25 < math.log(centre) / math.log(shift) < 1.0
    spectrum = torch.fft.rfft(moved * torch.hann_window(len(moved))).abs()
    harmonics = [float(spectrum[250 * k - 3 : 250 * k + 4].max()) for k in range(3, 8)]  # 0.5 Hz a bin
    between = [float(spectrum[250 * k + 100 : 250 * k + 150].max()) for k in range(3, 8)]
    assert min(harmonics) > 10 * max(between)


@pytest.mark.parametrize("num_samples", [4096, 5000])
def test_spectra_without_change_give_the_wave_back(num_samples: int) -> None:
    wav = torch.randn(2, num_samples)
    window = torch.hann_window(1024)
    spectrum = torch.stft(wav, 1024, 256, window=window, return_complex=True)
    again = augment._overlap_add(spectrum, window)
    torch.testing.assert_close(again, wav[:, : again.shape[1]], atol=1e-5, rtol=0)
    assert num_samples - again.shape[1] < 256


def only(change: str, share: float = 1.0) -> AugmentSettings:
    return dataclasses.replace(UNCHANGED, **{change: share})  # type: ignore[arg-type]


def test_noise_comes_at_the_told_ratio() -> None:
    wav = torch.stack([tone(300.0 + 50 * k, 16_000) for k in range(16)])
    for chatter in (0.0, 1.0):
        settings = dataclasses.replace(only("noise"), chatter=chatter, noise_snr_db=(12.0, 12.0))
        noise = augment.recorded(wav, settings, RATE) - wav
        ratio = 20 * torch.log10(wav.square().mean(1).sqrt() / noise.square().mean(1).sqrt())
        torch.testing.assert_close(ratio, torch.full((16,), 12.0), atol=0.1, rtol=0)


def test_a_room_goes_on_after_the_sound() -> None:
    click = torch.zeros(8, 8000)
    click[:, 1000] = 1.0
    heard = augment.recorded(click, only("room"), RATE)
    torch.testing.assert_close(heard[:, :1000], torch.zeros(8, 1000), atol=1e-4, rtol=0)
    torch.testing.assert_close(heard[:, 1000], torch.ones(8), atol=1e-4, rtol=0)
    early, late = heard[:, 1020:2600].square().sum(1), heard[:, 4200:5800].square().sum(1)
    assert bool((early > 3 * late).all())
    assert bool((early > 1e-4).all())


def test_a_limited_band_loses_its_ends() -> None:
    settings = dataclasses.replace(only("band"), low_cut_hz=(300.0, 300.0), high_cut_hz=(3400.0, 3400.0))
    wav = torch.stack([tone(hertz, 16_000) for hertz in (75.0, 1000.0, 6800.0)])
    low, kept, high = augment.recorded(wav, settings, RATE).square().mean(1).sqrt() * math.sqrt(2)
    assert float(low) < 0.01
    assert float(kept) == pytest.approx(1.0, abs=0.02)
    assert float(high) < 0.01


def test_an_equaliser_is_smooth_over_frequency() -> None:
    click = torch.zeros(40, 16_000)
    click[:, 0] = 1.0
    heard = augment.recorded(click, only("equaliser"), RATE)
    gain = 20 * torch.fft.rfft(heard).abs().log10()
    assert 1.5 < float(gain.std()) < 5.5
    assert float((gain[:, 201:] - gain[:, 200:-1]).abs().max()) < 0.3


def test_telephone_coding_keeps_the_wave_within_its_steps() -> None:
    wav = torch.linspace(-1, 1, 2001)[None]
    coded = augment.recorded(wav, only("mu_law"), RATE)
    assert coded.unique().numel() <= 255
    assert bool(((coded - wav).abs() <= 0.03 * wav.abs() + 2e-3).all())


def test_each_row_is_changed_on_its_own() -> None:
    wav = torch.randn(64, 2000) * 0.1
    heard = augment.recorded(wav, only("level", 0.5), RATE)
    gains = (heard / wav).median(dim=1).values
    unchanged = (gains - 1.0).abs() < 1e-4
    assert 16 <= int(unchanged.sum()) <= 48
    assert gains[~unchanged].unique().numel() == int((~unchanged).sum())


def test_everything_at_once_stays_finite() -> None:
    loud = AugmentSettings(
        warped=1.0, room=1.0, equaliser=1.0, band=1.0, noise=1.0, clipping=1.0, level=1.0, mu_law=1.0
    )
    wav = torch.stack([torch.zeros(9600), torch.ones(9600), torch.randn(9600)])
    wav, _, _ = augment.other_voices(wav, 6000, loud, np.random.default_rng(0), RATE)
    heard = augment.recorded(wav, loud, RATE)
    assert heard.shape == (3, 6000)
    assert bool(heard.isfinite().all())
