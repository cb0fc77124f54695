from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from light_tts.errors import InvalidInput
from light_tts.models.vocoder.mel_stretch import MelStretcher, stretch_mel


def mel(frames: int) -> Tensor:
    return torch.randn(1, 80, frames, generator=torch.Generator().manual_seed(1))


def test_speed_one_changes_nothing() -> None:
    assert torch.equal(stretch_mel(mel(33), 1.0), mel(33))


def test_speed_one_holds_nothing_back() -> None:
    out, _ = MelStretcher(1.0).push(mel(10), finalize=False)
    assert torch.equal(out, mel(10))


@pytest.mark.parametrize(("frames", "speed"), [(60, 1.25), (60, 0.8), (50, 2.0), (50, 0.5), (48, 1.5)])
def test_whole_ratios_equal_the_reference(frames: int, speed: float) -> None:
    expected = stretch_mel(mel(frames), speed, reference_rounding=True)
    torch.testing.assert_close(
        stretch_mel(mel(frames), speed), expected, atol=3e-5, rtol=0
    )  # float32 positions


@pytest.mark.parametrize("speed", [0.5, 0.73, 0.9, 1.1, 1.37, 2.0])
@pytest.mark.parametrize("frames", [1, 2, 61])
def test_lengths_are_within_one_frame_of_the_reference(frames: int, speed: float) -> None:
    length = stretch_mel(mel(frames), speed).shape[2]
    assert abs(length - frames / speed) <= 0.5 + 1e-9
    assert 0 <= length - int(frames / speed) <= 1


@pytest.mark.parametrize("speed", [0.5, 0.73, 1.0, 1.1, 1.9, 3.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_pieces_join_to_the_whole(speed: float, seed: int) -> None:
    generator = random.Random(seed)
    frames, stretcher, pieces, start = mel(137), MelStretcher(speed), [], 0
    while start < 137:
        size = min(137 - start, generator.choice((0, 1, 2, 30)))
        out, stretcher = stretcher.push(frames[:, :, start : start + size], finalize=False)
        start += size
        pieces.append(out)
        assert stretcher.pending is not None
        assert stretcher.pending.shape[2] <= 3  # bounded memory
    out, _ = stretcher.push(frames[:, :, :0], finalize=True)
    assert torch.equal(torch.cat([*pieces, out], dim=2), stretch_mel(frames, speed))


def test_a_ramp_is_read_at_the_right_places() -> None:
    ramp = torch.arange(40.0).view(1, 1, 40)
    out = stretch_mel(ramp, 1.6)[0, 0]
    expected = ((torch.arange(25) + 0.5) * 1.6 - 0.5).clamp(max=39)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


def test_an_empty_mel_stays_empty() -> None:
    assert stretch_mel(mel(0), 1.3).shape == (1, 80, 0)


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_speeds_are_refused(speed: float) -> None:
    for reference_rounding in (False, True):
        with pytest.raises(InvalidInput, match="must be above 0"):
            stretch_mel(mel(5), speed, reference_rounding=reference_rounding)
