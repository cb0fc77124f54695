"""Short-time Fourier transform and its inverse as matrix products.

Same numbers as `torch.stft` / `torch.istft` with a periodic Hann window and centred, reflected frames; unlike
them, no complex tensors and no device synchronisation.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


def stft(signal: Tensor, n_fft: int, hop_len: int) -> Tensor:
    """(B, N > n_fft / 2) float32 to (B, n_fft + 2, N // hop_len + 1): real parts, then imaginary parts."""
    half = n_fft // 2
    padded = F.pad(signal.unsqueeze(1), (half, half), mode="reflect").squeeze(1)
    frames = padded.unfold(1, n_fft, hop_len)  # (B, F, n_fft)
    return (frames @ _analysis(n_fft, signal.device)).transpose(1, 2)


def istft(spectrum: Tensor, n_fft: int, hop_len: int) -> Tensor:
    """(B, n_fft + 2, F) float32, real parts then imaginary parts, to (B, (F - 1) * hop_len)."""
    num_frames, half = spectrum.shape[2], n_fft // 2
    frames = spectrum.transpose(1, 2) @ _synthesis(n_fft, spectrum.device)  # (B, F, n_fft)
    window_power = _window(n_fft, spectrum.device).square().expand(1, num_frames, n_fft)
    signal = _overlap_add(frames, hop_len) / _overlap_add(window_power, hop_len).clamp(min=1e-11)
    return signal[:, half : half + (num_frames - 1) * hop_len]


def ragged_stft(signal: Tensor, lens: Tensor, n_fft: int, hop_len: int) -> Tensor:
    """`stft` of rows that end at `lens` (B,) samples: (B, N) to (B, N // hop_len + 1, n_fft + 2).

    Channels last; undefined beyond a row's own N // hop_len + 1 columns.
    """
    half, total = n_fft // 2, signal.shape[1]
    place = torch.arange(-half, total + half, device=signal.device).abs()
    mirrored = 2 * lens[:, None].long() - 2 - place
    place = torch.where(place < lens[:, None], place, mirrored).clamp(0, total - 1)
    frames = signal.gather(1, place).unfold(1, n_fft, hop_len)
    return frames @ _analysis(n_fft, signal.device)


def ragged_istft(spectrum: Tensor, lens: Tensor, n_fft: int, hop_len: int) -> Tensor:
    """`istft` of rows that end after `lens` (B,) columns: (B, F, n_fft + 2) to (B, (F - 1) * hop_len)."""
    num_frames, half = spectrum.shape[1], n_fft // 2
    inside = (torch.arange(num_frames, device=spectrum.device) < lens[:, None])[:, :, None]
    frames = torch.where(inside, spectrum, 0.0) @ _synthesis(n_fft, spectrum.device)
    window_power = inside * _window(n_fft, spectrum.device).square()
    signal = _overlap_add(frames, hop_len) / _overlap_add(window_power, hop_len).clamp(min=1e-11)
    return signal[:, half : half + (num_frames - 1) * hop_len]


def _overlap_add(frames: Tensor, hop_len: int) -> Tensor:
    """(B, F, n) frames, n a multiple of hop_len, to (B, (F - 1) * hop_len + n)."""
    batch, num_frames, size = frames.shape
    pieces = frames.view(batch, num_frames, size // hop_len, hop_len).unbind(2)
    last = len(pieces) - 1
    padded = [F.pad(piece, (0, 0, index, last - index)) for index, piece in enumerate(pieces)]
    return torch.stack(padded).sum(0).flatten(1)


@lru_cache(maxsize=8)
def _window(n_fft: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # may be cached by a server and later used in training
        return torch.hann_window(n_fft, periodic=True, dtype=torch.float64).float().to(device)


def _angles(n_fft: int) -> Tensor:
    """(n_fft, n_fft / 2 + 1) float64: 2 pi n k / n_fft."""
    time, frequency = torch.arange(n_fft), torch.arange(n_fft // 2 + 1)
    return (time[:, None] * frequency % n_fft).double() * (2 * math.pi / n_fft)


@lru_cache(maxsize=8)
def _analysis(n_fft: int, device: torch.device) -> Tensor:
    """(n_fft, n_fft + 2): window and transform."""
    with torch.inference_mode(False):
        angles, window = _angles(n_fft), torch.hann_window(n_fft, dtype=torch.float64)[:, None]
        return torch.cat([angles.cos() * window, -angles.sin() * window], dim=1).float().to(device)


@lru_cache(maxsize=8)
def _synthesis(n_fft: int, device: torch.device) -> Tensor:
    """(n_fft + 2, n_fft): inverse transform and window."""
    with torch.inference_mode(False):
        angles, window = _angles(n_fft).T, torch.hann_window(n_fft, dtype=torch.float64)
        weight = torch.full((n_fft // 2 + 1, 1), 2 / n_fft, dtype=torch.float64)
        weight[0] = weight[-1] = 1 / n_fft  # the only frequencies without a mirror image
        return (torch.cat([angles.cos() * weight, -angles.sin() * weight]) * window).float().to(device)
