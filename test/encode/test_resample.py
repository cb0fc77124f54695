from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from light_tts.encode.resample import resample


def by_definition(samples: Tensor, from_hz: int, to_hz: int) -> Tensor:
    """Each output as its own sum over all inputs, in float64."""
    length = math.ceil(len(samples) * to_hz / from_hz)
    cutoff = min(from_hz, to_hz) * 0.99
    distance = torch.arange(length).double()[:, None] / to_hz - torch.arange(len(samples)).double() / from_hz
    crossings = (distance * cutoff).clamp(-6, 6)
    weights = torch.sinc(crossings) * torch.cos(crossings * math.pi / 12).square() * (cutoff / from_hz)
    return weights @ samples.double()


@pytest.mark.parametrize(
    ("from_hz", "to_hz"),
    [
        (24_000, 16_000),
        (48_000, 16_000),
        (44_100, 24_000),
        (16_000, 24_000),
        (96_000, 24_000),
        (44_101, 24_000),  # coprime: 24 000 phases
        (16_001, 16_000),
    ],
)
@pytest.mark.parametrize("length", [1, 7, 997])
def test_equals_the_sum_over_all_inputs(from_hz: int, to_hz: int, length: int) -> None:
    samples = torch.from_numpy(np.random.default_rng(0).standard_normal(length).astype(np.float32))
    torch.testing.assert_close(
        resample(samples, from_hz, to_hz).double(), by_definition(samples, from_hz, to_hz), atol=2e-6, rtol=0
    )


def test_the_same_rate_changes_nothing() -> None:
    samples = torch.randn(100)
    assert resample(samples, 24_000, 24_000) is samples


def test_a_tone_keeps_its_pitch_and_level_and_what_is_too_high_disappears() -> None:
    time = torch.arange(48_000, dtype=torch.float64) / 48_000
    audible, too_high = (torch.sin(2 * math.pi * hz * time).float() for hz in (1_000, 11_000))
    out = resample(audible, 48_000, 16_000)
    expected = torch.sin(2 * math.pi * 1_000 * torch.arange(16_000, dtype=torch.float64) / 16_000)
    torch.testing.assert_close(out[100:-100].double(), expected[100:-100], atol=5e-3, rtol=0)
    assert float(resample(too_high, 48_000, 16_000)[100:-100].abs().max()) < 0.02


def test_a_batch_is_resampled_row_by_row() -> None:
    batch = torch.randn(2, 3, 500)
    together = resample(batch, 24_000, 16_000)
    assert together.shape == (2, 3, 334)
    torch.testing.assert_close(together[1, 2], resample(batch[1, 2], 24_000, 16_000), atol=1e-6, rtol=0)
