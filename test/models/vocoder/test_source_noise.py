from __future__ import annotations

import pytest
import torch
from torch import Tensor

from light_tts.errors import InvalidInput
from light_tts.models.vocoder.source_noise import SourceNoise, draw_noise


def draw(*noises: SourceNoise, start: int = 0, count: int = 4000, gaussian: bool = True) -> Tensor:
    return draw_noise(noises, [start] * len(noises), count, 9, torch.device("cpu"), gaussian=gaussian)


@pytest.mark.parametrize("gaussian", [True, False])
@pytest.mark.parametrize("seed", [0, 1, -5, 2**70])
def test_a_piece_is_the_same_wherever_drawing_starts(seed: int, gaussian: bool) -> None:
    noise = SourceNoise.seeded(seed)
    whole = draw(noise, gaussian=gaussian)
    piece = draw(noise, start=1234, count=77, gaussian=gaussian)
    assert torch.equal(piece, whole[:, 1234 : 1234 + 77])


def test_rows_of_a_batch_are_independent_of_each_other() -> None:
    noises = [SourceNoise.seeded(3), SourceNoise.zeros(), SourceNoise.recorded(torch.rand(1, 80, 9))]
    starts = [7, 8, 9]
    batch = draw_noise(noises, starts, 50, 9, torch.device("cpu"), gaussian=True)
    for row, (noise, start) in enumerate(zip(noises, starts, strict=True)):
        assert torch.equal(batch[row], draw(noise, start=start, count=50)[0])
    assert not batch[1].any()


def test_normal_noise_has_the_moments_of_a_normal() -> None:
    x = draw(*(SourceNoise.seeded(seed) for seed in range(4)), count=30_000).double()
    assert abs(x.mean()) < 0.003
    assert abs(x.std() - 1) < 0.003
    assert abs((x**4).mean() - 3) < 0.03
    assert 4 < x.abs().max() < 4.9


def test_uniform_noise_fills_zero_to_one() -> None:
    x = draw(SourceNoise.seeded(1), count=30_000, gaussian=False).double()
    assert x.min() >= 0
    assert x.max() < 1
    counts = torch.histc(x, 10, 0, 1)
    assert (counts / x.numel() - 0.1).abs().max() < 0.003


def test_neighbouring_seeds_channels_and_samples_are_uncorrelated() -> None:
    x = draw(*(SourceNoise.seeded(seed) for seed in range(6)), count=30_000).double()
    seeds = x.flatten(1) @ x.flatten(1).T / x[0].numel()
    assert (seeds - torch.eye(6)).abs().max() < 0.01
    channels = x.flatten(0, 1)
    assert (channels.T @ channels / len(channels) - torch.eye(9)).abs().max() < 0.015
    for lag in (1, 2, 480):
        assert (x[:, lag:] * x[:, :-lag]).mean().abs() < 0.005


def test_a_recording_is_played_back_from_its_start() -> None:
    recording = torch.rand(1, 100, 9)
    assert torch.equal(draw(SourceNoise.recorded(recording), start=20, count=30), recording[:, 20:50])


def test_a_recording_that_is_too_short_is_refused() -> None:
    with pytest.raises(InvalidInput, match="recorded noise has 100 samples, the utterance needs 101"):
        draw(SourceNoise.recorded(torch.rand(100, 9)), start=1, count=100)
