"""The public speaker encoder that ours is taught by: GE2E as trained and shipped in the package Resemblyzer.

Its input is the linear mel of 1.6 s windows; an utterance's embedding is the mean over its windows.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from light_tts.encode.features import SPEECH_RATE_HZ, slaney_mel_bank
from recipes.mini.errors import RecipeError

EMBED_DIM = 256
FILE_NAME = "ge2e.safetensors"
PACKAGE = "Resemblyzer==0.1.4"  # Apache-2.0; its wheel holds the weights

_FFT, _HOP, _MELS = 400, 160, 40
_WINDOW_FRAMES = 160
_STEP_FRAMES = 77  # 1.3 windows a second
_MIN_COVERAGE = 0.75  # of the last window
_LEVEL_DBFS = -30.0  # quieter recordings are raised to it, louder ones stay


class GE2E(nn.Module):
    """Three LSTM layers, a linear one, ReLU, unit length."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(_MELS, EMBED_DIM, 3, batch_first=True)
        self.linear = nn.Linear(EMBED_DIM, EMBED_DIM)

    @torch.no_grad()
    def forward(self, wave: Tensor) -> Tensor:
        """wave: (B, n) float32 at 16 kHz. Returns (B, 256) float32 of unit length."""
        with torch.autocast(wave.device.type, enabled=False):
            windows = _windows(_linear_mel(_levelled(wave.float())))
            batch, count = windows.shape[:2]
            _, (hidden, _) = self.lstm(windows.flatten(0, 1))
            each = F.normalize(torch.relu(self.linear(hidden[-1])), dim=1)
            return F.normalize(each.view(batch, count, EMBED_DIM).mean(dim=1), dim=1)


def load_ge2e(path: Path, device: torch.device) -> GE2E:
    """Raises RecipeError if the file is missing or holds something else."""
    try:
        weights = load_file(path)
        model = GE2E()
        model.load_state_dict({name: value.float() for name, value in weights.items()})
    except (OSError, SafetensorError, RuntimeError) as error:
        raise RecipeError(f"{path} does not hold the weights of {PACKAGE} (convert_ge2e): {error}") from error
    model.lstm.flatten_parameters()
    return model.requires_grad_(False).eval().to(device)


def convert_ge2e(wheel: Path, target: Path) -> None:
    """Write the weights in the package's wheel as half-precision safetensors, without their training state.

    Raises RecipeError if the wheel holds none.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            pretrained = io.BytesIO(archive.read("resemblyzer/pretrained.pt"))
        state = torch.load(pretrained, map_location="cpu", weights_only=True)["model_state"]
    except (OSError, KeyError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise RecipeError(f"{wheel} is not the wheel of {PACKAGE}: {error}") from error
    wanted = GE2E().state_dict()
    missing = sorted(set(wanted) - set(state))
    if missing:
        raise RecipeError(f"{wheel} lacks the weights {', '.join(missing)}")
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: state[name].half().contiguous() for name in wanted}, target)


def _levelled(wave: Tensor) -> Tensor:
    rms = wave.square().mean(dim=1, keepdim=True).sqrt().clamp(min=1e-6)
    gain: Tensor = 10.0 ** (_LEVEL_DBFS / 20) / rms
    return wave * gain.clamp(min=1.0)


def _linear_mel(wave: Tensor) -> Tensor:
    """(B, n) to (B, frames, 40) mel power, with silence after the end as far as the last window needs it."""
    num_samples = wave.shape[1]
    num_frames = math.ceil((num_samples + 1) / _HOP)
    count = math.ceil(max(1, num_frames - _WINDOW_FRAMES + _STEP_FRAMES + 1) / _STEP_FRAMES)
    covered = num_samples / _HOP - (count - 1) * _STEP_FRAMES
    if count > 1 and covered < _MIN_COVERAGE * _WINDOW_FRAMES:
        count -= 1
    frames_needed = (count - 1) * _STEP_FRAMES + _WINDOW_FRAMES
    wave = F.pad(wave, (0, max(0, frames_needed * _HOP - num_samples)))
    window = torch.hann_window(_FFT, device=wave.device)
    spectrum = torch.stft(wave, _FFT, _HOP, window=window, pad_mode="constant", return_complex=True)
    power = spectrum.real.square() + spectrum.imag.square()
    bank = slaney_mel_bank(SPEECH_RATE_HZ, _FFT, _MELS, 0.0, SPEECH_RATE_HZ / 2, wave.device)
    return (bank @ power).transpose(1, 2)[:, :frames_needed]


def _windows(mel: Tensor) -> Tensor:
    """(B, frames, 40) to (B, windows, 160, 40)"""
    return mel.unfold(1, _WINDOW_FRAMES, _STEP_FRAMES).transpose(2, 3)
