from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from light_tts.encode.features import (
    kaldi_fbank,
    prompt_mel,
    slaney_mel_bank,
    speaker_fbank,
    whisper_log_mel,
)
from light_tts.models.config import MelConfig


@pytest.fixture(scope="module")
def recorded(golden: Path) -> dict[str, Tensor]:
    return load_file(golden / "fixtures/audio.safetensors")


@pytest.mark.parametrize(("name", "fmax"), [("mel24_fmax8000", 8000.0), ("mel24_fmaxnull", None)])
def test_prompt_mel_equals_the_recording(recorded: dict[str, Tensor], name: str, fmax: float | None) -> None:
    mel = prompt_mel(recorded["wave24"][0], MelConfig(fmax=fmax))
    torch.testing.assert_close(mel.T[None], recorded[name], atol=1e-5, rtol=0)


def test_features_at_16_khz_equal_the_recording(recorded: dict[str, Tensor]) -> None:
    wave = recorded["wave16"][0]
    torch.testing.assert_close(whisper_log_mel(wave)[None], recorded["whisper128"], atol=1e-5, rtol=0)
    torch.testing.assert_close(kaldi_fbank(wave), recorded["fbank80_raw"], atol=1e-5, rtol=0)
    torch.testing.assert_close(speaker_fbank(wave), recorded["fbank80"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("seconds", [0.5, 0.999, 1.0, 30.0])
def test_numbers_of_frames_follow_from_the_length(seconds: float) -> None:
    at_24k, at_16k = torch.zeros(int(seconds * 24_000)), torch.zeros(int(seconds * 16_000))
    assert prompt_mel(at_24k, MelConfig()).shape == (len(at_24k) // 480, 80)
    assert whisper_log_mel(at_16k).shape == (128, len(at_16k) // 160)
    assert kaldi_fbank(at_16k).shape == (1 + (len(at_16k) - 400) // 160, 80)


def test_silence_gives_the_floors_and_no_infinity() -> None:
    silence = torch.zeros(16_000)
    assert torch.equal(whisper_log_mel(silence), torch.full((128, 100), (-10.0 + 4.0) / 4.0))
    torch.testing.assert_close(kaldi_fbank(silence), torch.full((98, 80), math.log(2.0**-23)))
    assert bool(torch.isfinite(prompt_mel(silence, MelConfig())).all())


def test_mel_filters_have_equal_area_and_cover_the_range_without_gaps() -> None:
    bank = slaney_mel_bank(24_000, 1920, 80, 0.0, 8000.0)
    hertz_per_bin = 12.5
    torch.testing.assert_close(bank[40:].sum(dim=1) * hertz_per_bin, torch.ones(40), atol=0.02, rtol=0)
    covered = bank.sum(dim=0)
    assert bool((covered[1 : int(8000 / hertz_per_bin)] > 0).all())
    assert float(covered[int(8000 / hertz_per_bin) + 1 :].sum()) == 0.0


def test_a_tone_is_loudest_in_the_filter_around_it() -> None:
    time = torch.arange(24_000, dtype=torch.float64) / 24_000
    mel = prompt_mel(torch.sin(2 * math.pi * 3000 * time).float(), MelConfig())
    bank = slaney_mel_bank(24_000, 1920, 80, 0.0, 8000.0)
    assert int(mel[25].argmax()) == int(bank[:, 240].argmax())  # bin 240 is 3000 Hz


def test_filters_made_for_inference_serve_training_as_well() -> None:
    slaney_mel_bank.cache_clear()
    with torch.inference_mode():
        prompt_mel(torch.randn(4800), MelConfig())
    wave = torch.randn(4800, requires_grad=True)
    prompt_mel(wave, MelConfig()).sum().backward()
    assert wave.grad is not None


@pytest.mark.parametrize("view", [whisper_log_mel, kaldi_fbank, speaker_fbank])
def test_a_batch_is_heard_as_its_recordings_one_by_one(view: Callable[[Tensor], Tensor]) -> None:
    batch = torch.randn(3, 8000) * torch.tensor([[1.0], [0.1], [0.01]])
    torch.testing.assert_close(view(batch), torch.stack([view(wave) for wave in batch]), atol=1e-5, rtol=0)


def test_the_mel_of_a_batch_is_that_of_its_recordings() -> None:
    batch = torch.randn(2, 2, 4800)
    mel = prompt_mel(batch, MelConfig())
    assert mel.shape == (2, 2, 10, 80)
    torch.testing.assert_close(mel[1, 0], prompt_mel(batch[1, 0], MelConfig()), atol=1e-5, rtol=0)


def test_what_follows_a_recording_in_a_padded_batch_does_not_scale_it() -> None:
    quiet, loud = 0.01 * torch.randn(8000), torch.randn(8000)
    padded = whisper_log_mel(torch.cat([quiet, loud])[None], num_frames=torch.tensor([49]))
    alone = whisper_log_mel(quiet)
    torch.testing.assert_close(padded[0, :, :49], alone[:, :49], atol=1e-5, rtol=0)
    assert float(padded[0, :, 49:].max()) <= float(alone[:, :49].min()) + 1e-5
