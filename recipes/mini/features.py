"""What the models hear, for batches of unequal length on the training device: the numbers that serving computes.

wav: (B, n) float32, right-padded; lens: (B,) int64 samples of each row that count.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from light_tts.encode.features import SPEECH_RATE_HZ, kaldi_fbank, whisper_log_mel
from light_tts.encode.resample import resample
from recipes.mini.settings import SAMPLE_RATE

LOG_MEL_HOP = 160  # at 16 kHz
_FBANK_WINDOW, _FBANK_HOP = 400, 160
_LONGEST_REFLECTION = 200  # samples that the log-mel's last frame reaches beyond the end


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """No TF32: rounded products would be noise at -60 dB in resampled audio, above what the features resolve."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def at_16_khz(wav: Tensor) -> Tensor:
    """(B, n) at 24 kHz to (B, ceil(2 n / 3))."""
    with exact_convolutions():
        return resample(wav, SAMPLE_RATE, SPEECH_RATE_HZ)


def speech_features(wav: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
    """The speech tokenizer's input. wav: at 16 kHz, every row at least 201 samples.

    Returns (B, 128, n // 160) log-mel and (B,) frames of each row; what lies beyond them is of no use.
    """
    num_frames = lens // LOG_MEL_HOP
    return whisper_log_mel(_reflected(wav, lens), num_frames=num_frames), num_frames


def speaker_features(wav: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
    """The speaker encoder's input. wav: at 16 kHz, every row at least 400 samples.

    Returns (B, T, 80) filter-bank energies minus their mean over the row's own frames, 0 beyond, and (B,) frames.
    """
    fbank = kaldi_fbank(wav)
    num_frames = 1 + (lens - _FBANK_WINDOW) // _FBANK_HOP
    inside = frame_mask(num_frames, fbank.shape[1])[..., None]
    mean = (fbank * inside).sum(dim=1, keepdim=True) / num_frames[:, None, None]
    return (fbank - mean) * inside, num_frames


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy without waiting for the device."""
    pinned = values.pin_memory() if device.type == "cuda" else values
    return pinned.to(device, non_blocking=True)


def tiled(wav: Tensor, lens: Tensor) -> Tensor:
    """Repeat each row's own samples over its padding: a voice without silence."""
    return wav.gather(1, torch.arange(wav.shape[1], device=wav.device) % lens[:, None])


def frame_mask(num_frames: Tensor, longest: int) -> Tensor:
    """(B, longest) float32: 1 where a row has a frame."""
    return (torch.arange(longest, device=num_frames.device) < num_frames[:, None]).float()


def _reflected(wav: Tensor, lens: Tensor) -> Tensor:
    """Continue each row beyond its end by its mirror image, as the transform does with a row that stands alone."""
    position = torch.arange(wav.shape[1], device=wav.device)
    beyond = position - lens[:, None]  # -1 is the last sample
    mirrored = (lens[:, None] - 2 - beyond).clamp(min=0)
    source = torch.where((beyond >= 0) & (beyond < _LONGEST_REFLECTION), mirrored, position)
    return wav.gather(1, source)
