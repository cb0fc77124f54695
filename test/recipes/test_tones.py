"""The measure of tones tells the four apart on made-up speech, in another voice and at another pace."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from light_tts.encode.features import prompt_mel
from light_tts.models.config import MelConfig
from recipes.mini.errors import RecipeError
from recipes.mini.tones import (
    FRAME,
    Place,
    Reading,
    contour,
    f0_track,
    heard_tones,
    references,
    spoken_contour,
    warping_path,
)

RATE = 24_000
TONES = {1: (5, 5, 5), 2: (0, 2, 5), 3: (-2, -5, -3), 4: (5, 1, -4)}  # semitones at start, middle, end
FORMANTS = ((700, 1200), (300, 2300), (500, 900))  # of the three syllables


def sentence(tone: int, pitch_hz: float = 200.0, pace: float = 1.0, span: float = 1.0) -> NDArray[np.float32]:
    """Three syllables; the middle one has a tone, its neighbours are level."""
    num = int(0.3 * RATE * pace)
    semitones = [
        np.zeros(num),
        span * np.interp(np.linspace(0, 2, num), [0, 1, 2], TONES[tone]),
        np.zeros(num),
    ]
    parts = []
    for curve, formants in zip(semitones, FORMANTS, strict=True):
        f0 = pitch_hz * 2 ** (curve / 12)
        phase = 2 * np.pi * np.cumsum(f0) / RATE
        wav = np.zeros(num)
        for harmonic in range(1, 25):
            gain = sum(np.exp(-(((harmonic * f0 - peak) / 200) ** 2)) for peak in formants) + 0.02
            wav += gain * np.sin(harmonic * phase) * (harmonic * f0 < 0.45 * RATE)
        parts.append(wav * np.hanning(num) ** 0.3)
    whole = np.concatenate([np.zeros(2400), *parts, np.zeros(2400)])
    return (0.5 * whole / np.abs(whole).max()).astype(np.float32)


def mel_of(wav: NDArray[np.float32]) -> NDArray[np.float64]:
    mel: NDArray[np.float64] = prompt_mel(torch.from_numpy(wav), MelConfig()).double().numpy()
    return mel


def syllable(pace: float = 1.0) -> tuple[int, int]:
    start = (2400 + int(0.3 * RATE * pace)) // FRAME
    return start, start + int(0.3 * RATE * pace) // FRAME


@pytest.fixture(scope="module")
def readings() -> dict[Place, Reading]:
    wavs = {tone: sentence(tone) for tone in (1, 2, 3, 4)}
    return {(0, tone): Reading(mel_of(wav), f0_track(wav), syllable()) for tone, wav in wavs.items()}


def heard(said: dict[int, int], readings: dict[Place, Reading], *voice: float) -> dict[Place, int | None]:
    """What is heard where tone k is written and said[k] is said."""
    wavs = {(0, written): sentence(tone, *voice) for written, tone in said.items()}
    contours = {place: spoken_contour(wav, mel_of(wav), readings[place]) for place, wav in wavs.items()}
    return heard_tones(contours, readings)


@pytest.mark.parametrize("voice", [(200.0, 1.0, 1.0), (120.0, 1.3, 0.7), (260.0, 0.8, 1.2)])
def test_tones_are_heard_as_they_are_said(
    voice: tuple[float, float, float], readings: dict[Place, Reading]
) -> None:
    """In another voice, at another pace, with more or less of a range."""
    assert heard({1: 1, 2: 2, 3: 3, 4: 4}, readings, *voice) == {(0, tone): tone for tone in (1, 2, 3, 4)}


def test_wrong_tones_are_heard(readings: dict[Place, Reading]) -> None:
    assert heard({1: 2, 2: 1, 3: 4, 4: 3}, readings) == {(0, 1): 2, (0, 2): 1, (0, 3): 4, (0, 4): 3}


def test_a_voice_without_tones_is_not_right_by_chance(readings: dict[Place, Reading]) -> None:
    flat = heard({1: 1, 2: 1, 3: 1, 4: 1}, readings)
    assert sum(tone == place[1] for place, tone in flat.items()) <= 1


def test_silence_has_no_tone(readings: dict[Place, Reading]) -> None:
    wav = np.full(RATE, 1e-5, np.float32)
    assert spoken_contour(wav, mel_of(wav), readings[0, 1]) is None
    assert heard_tones({(0, 1): None}, readings) == {(0, 1): None}


@pytest.mark.parametrize("hertz", [80.0, 150.0, 300.0, 450.0])
def test_the_pitch_of_a_steady_sound_is_found(hertz: float) -> None:
    time = np.arange(RATE) / RATE
    wav = sum(np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 8))
    f0 = f0_track(np.asarray(0.2 * wav, np.float32))[5:-5]
    assert np.abs(f0 / hertz - 1).max() < 0.02


def test_noise_has_no_pitch() -> None:
    noise = np.random.default_rng(0).standard_normal(RATE).astype(np.float32) * 0.1
    assert (f0_track(noise) > 0).mean() < 0.05


def test_a_contour_is_measured_from_the_rest_of_the_sentence() -> None:
    f0 = np.array([100.0] * 10 + [200.0] * 10 + [0.0, 100.0])
    found = contour(f0, (10, 20))
    assert found is not None
    np.testing.assert_allclose(found, 12.0)
    assert contour(f0, (20, 21)) is None


def test_warping_finds_the_same_place_in_a_slower_reading() -> None:
    left = np.eye(5)
    right = np.repeat(left, 2, axis=0)
    path = warping_path(left, right)
    assert path[0].tolist() == [0, 0]
    assert path[-1].tolist() == [4, 9]
    assert {int(j) // 2 - int(i) for i, j in path} == {0}


def test_recorded_readings_are_kept_by_voice_set_and_tone() -> None:
    tensors: dict[str, Tensor] = {}
    for tone in (1, 2, 3, 4):
        tensors |= {
            f"lan-yue.0.{tone}.mel": torch.zeros(8, 80).half(),
            f"lan-yue.0.{tone}.f0": torch.zeros(8),
        }
        tensors[f"lan-yue.0.{tone}.region"] = torch.tensor([2, 5])
    found = references(tensors)
    assert {place: reading.region for place, reading in found["lan-yue"].items()} == {
        (0, tone): (2, 5) for tone in (1, 2, 3, 4)
    }
    del tensors["lan-yue.0.4.f0"]
    with pytest.raises(RecipeError, match="not complete"):
        references(tensors)
    with pytest.raises(RecipeError, match="record"):
        references({})
