from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from light_tts.models.vocoder.harmonic_source import HarmonicSource, SourceState
from light_tts.models.vocoder.source_noise import SourceNoise
from test.models.vocoder.vocoders import SHAPES, golden_vocoder, random_vocoder

SILENCE = SourceNoise.zeros()


def excitation(module: HarmonicSource, f0: Tensor, noise: SourceNoise = SILENCE) -> Tensor:
    """(T * samples_per_frame, H) of one utterance."""
    blocks = module.excitations(f0, [noise], SourceState())
    return torch.cat([block for block, _, _ in blocks], dim=1)[0]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_steady_pitch_gives_steady_sines(shape: str) -> None:
    module = random_vocoder(2, shape).m_source
    samples, frames, pitch = module.samples_per_frame, 100, 123.4
    sines = excitation(module, torch.full((1, frames), pitch)) / module.sine_amplitude
    time = torch.arange(frames * samples, dtype=torch.float64)
    # Constant up to the first frame's centre, where one frame's phase has passed, and from the last one's on.
    since_centre = (time + 0.5 - samples / 2).clamp(0, samples * (frames - 1))
    cycles = (since_centre + samples)[:, None] * torch.arange(1, 10) * pitch / module.sampling_rate
    torch.testing.assert_close(
        sines.double(), torch.sin(2 * math.pi * cycles), atol=2e-3, rtol=0
    )  # float32 steps


def test_causal_sines_stand_still_within_a_frame() -> None:
    module = golden_vocoder(3).m_source
    f0 = torch.tensor([[100.0, 150.0, 200.0]])
    frames = excitation(module, f0).view(3, module.samples_per_frame, 9)
    assert torch.equal(frames, frames[:, :1].expand_as(frames))
    cycles = f0[0].cumsum(0)[:, None] * torch.arange(1, 10) / module.sampling_rate * module.samples_per_frame
    expected = module.sine_amplitude * torch.sin(2 * math.pi * cycles)
    torch.testing.assert_close(frames[:, 0], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("version", [2, 3])
def test_five_minutes_do_not_drift(version: int) -> None:
    """The phase of the last frame equals an exact sum, to what float32 steps allow."""
    module = random_vocoder(version, "3-4").m_source
    f0 = 100 + 200 * torch.rand(1, 15_000, generator=torch.Generator().manual_seed(1))
    _, state = module(f0, [SILENCE])
    steps = (f0 * 9 / module.sampling_rate % 1).double()
    expected = steps.sum() * module.samples_per_frame % 1
    assert state.phase is not None
    assert abs(float(state.phase[0, 8] - expected)) < 1e-9


def test_unvoiced_frames_are_noise_and_voiced_ones_sines_with_little_noise() -> None:
    module = golden_vocoder(2).m_source
    f0 = torch.tensor([[5.0, 9.99, 10.0, 10.01, 200.0]])
    noise = SourceNoise.seeded(1)
    frames = excitation(module, f0, noise).view(5, module.samples_per_frame, 9)
    sines = excitation(module, f0).view(5, module.samples_per_frame, 9)
    assert not sines[:3].any()
    assert sines[3:].any(dim=2).any(dim=1).all()
    levels = (frames - sines).std(dim=(1, 2))
    torch.testing.assert_close(levels[:3], torch.full((3,), 0.1 / 3), rtol=0.05, atol=0)
    torch.testing.assert_close(levels[3:], torch.full((2,), 0.003), rtol=0.05, atol=0)


@pytest.mark.parametrize("version", [2, 3])
def test_pieces_join_to_the_whole_source(version: int) -> None:
    module = random_vocoder(version, "5-8-3").m_source
    f0 = 200 * torch.rand(2, 90, generator=torch.Generator().manual_seed(2))
    noises = [SourceNoise.seeded(1), SourceNoise.seeded(2)]
    whole, _ = module(f0, noises)
    look, pieces, state = module.lookahead_frames, [], SourceState()
    for start, end in ((0, 1), (1, 40), (40, 41), (41, 90)):
        known = f0[:, start : end + look]
        piece, state = module(known, noises, state, [start, start], finalize=end == 90)
        pieces.append(piece)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, atol=1e-5, rtol=0)


def test_no_frames_give_no_samples() -> None:
    module = golden_vocoder(2).m_source
    source, state = module(torch.zeros(1, 0), [SILENCE], finalize=False)
    assert source.shape == (1, 0)
    assert state.phase is None
