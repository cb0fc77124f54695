"""Make the teacher's clean voices sound like recordings of people: other voices, and other ways to record them.

Everything works on batches on the training device; rows draw their own numbers from torch's generator.
wav: (B, n) float32, full scale 1. Nothing here is differentiated.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recipes.mini.augment_settings import AugmentSettings
from recipes.mini.corpus import FRAME
from recipes.mini.features import to_device

_SPEEDS = 16  # that there are: each is a length of its own for the Fourier transform
_SPEEDS_PER_BATCH = 8
_EQ_POINTS = 10
_ROOM_S = 0.4
_ENVELOPE_FFT, _ENVELOPE_HOP = 1024, 256
_ENVELOPE_S = 0.002  # cepstrum below: the vocal tract; above: the pitch
_MAX_ENVELOPE_GAIN = math.log(10.0)  # 20 dB


def other_voices(
    wav: Tensor, num_samples: int, settings: AugmentSettings, rng: np.random.Generator, sample_rate: int
) -> tuple[Tensor, Tensor, int]:
    """Change the voices of the last rows by playing them faster or slower and moving their formants.

    wav: (B, n), n >= num_samples * settings.speed[1], a multiple of FRAME; rng: the host's, for speeds
    Returns wav (B, num_samples), the speed of each row (B,), and how many rows, from the first, are as they were.
    """
    kept = len(wav) - round(settings.warped * len(wav))
    pieces, speeds = [wav[:kept, :num_samples]], [1.0] * kept
    for rows in np.array_split(np.arange(kept, len(wav)), _SPEEDS_PER_BATCH):
        if len(rows):
            step = rng.integers(_SPEEDS) / (_SPEEDS - 1)
            wanted = settings.speed[0] * (settings.speed[1] / settings.speed[0]) ** step
            length = round(wav.shape[1] / wanted / FRAME) * FRAME
            pieces.append(_fitted(played_in(wav[rows[0] : rows[-1] + 1], length), num_samples))
            speeds += [wav.shape[1] / length] * len(rows)
    if kept < len(wav):
        changed = torch.cat(pieces[1:])
        shift = _log_uniform(len(changed), settings.formants, wav.device)
        pieces[1:] = [with_formants(changed, shift, sample_rate)]
    return torch.cat(pieces), to_device(torch.tensor(speeds), wav.device), kept


def played_in(wav: Tensor, num_samples: int) -> Tensor:
    """Play (B, n) so fast that it takes num_samples: pitch, formants and tempo change alike.

    By cutting or padding the spectrum: exact, but what is at one end rings a little at the other.
    """
    played: Tensor = torch.fft.irfft(torch.fft.rfft(wav), num_samples)
    return played * (num_samples / wav.shape[1])


def with_formants(wav: Tensor, shift: Tensor, sample_rate: int) -> Tensor:
    """Move each row's resonances towards `shift` (B,) times their frequencies, and leave its pitch.

    The smooth spectral envelope moves; resonances that are sharper than 500 Hz stay in part where they were.
    """
    window = torch.hann_window(_ENVELOPE_FFT, device=wav.device)
    whole = F.pad(wav, (0, -wav.shape[1] % _ENVELOPE_HOP))
    spectrum = torch.stft(whole, _ENVELOPE_FFT, _ENVELOPE_HOP, window=window, return_complex=True)
    envelope = _log_envelope(spectrum.abs(), sample_rate)
    num_bins = envelope.shape[1]
    bins = torch.arange(num_bins, device=wav.device) / shift[:, None]
    below = bins.floor().clamp(max=num_bins - 2).long()
    weight = (bins - below).clamp(0.0, 1.0)[..., None]
    index = below[..., None].expand_as(envelope)
    moved = torch.lerp(envelope.gather(1, index), envelope.gather(1, index + 1), weight)
    gain = (moved - envelope).clamp(-_MAX_ENVELOPE_GAIN, _MAX_ENVELOPE_GAIN).exp()
    shifted = _overlap_add(spectrum * gain, window)[:, : wav.shape[1]]
    return shifted


def recorded(wav: Tensor, settings: AugmentSettings, sample_rate: int) -> Tensor:
    """Rooms, microphones, noise, telephones and levels, each on a share of the rows."""
    wav = _filtered(wav, settings, sample_rate)
    wav = _some(wav, settings.noise, lambda clean: _noisy(clean, settings))
    wav = _some(wav, settings.clipping, _clipped)
    level = 10.0 ** (_uniform(len(wav), settings.level_db, wav.device) / 20)
    wav = _some(wav, settings.level, lambda before: before * level[:, None])
    return _some(wav, settings.mu_law, _mu_law)


def _fitted(wav: Tensor, num_samples: int) -> Tensor:
    return F.pad(wav, (0, max(0, num_samples - wav.shape[1])))[:, :num_samples]


def _some(wav: Tensor, share: float, change: Callable[[Tensor], Tensor]) -> Tensor:
    chosen = torch.rand(len(wav), 1, device=wav.device) < share
    return torch.where(chosen, change(wav), wav)


def _filtered(wav: Tensor, settings: AugmentSettings, sample_rate: int) -> Tensor:
    """Rooms, equalisers and limited bands are linear: one product of spectra."""
    batch, num_samples = wav.shape
    room = _room(batch, settings, sample_rate, wav.device)
    size = num_samples + room.shape[1]
    size += -size % 1024  # a product of small primes is fast
    response = torch.fft.rfft(room, size)
    hertz = torch.fft.rfftfreq(size, 1 / sample_rate, device=wav.device)
    for share, gain in (
        (settings.equaliser, _equaliser(batch, hertz, settings.equaliser_db)),
        (settings.band, _band(batch, hertz, settings)),
    ):
        chosen = torch.rand(batch, 1, device=wav.device) < share
        response = response * torch.where(chosen, gain, torch.ones_like(gain))
    filtered: Tensor = torch.fft.irfft(torch.fft.rfft(wav, size) * response, size)
    return filtered[:, :num_samples]


def _room(batch: int, settings: AugmentSettings, sample_rate: int, device: torch.device) -> Tensor:
    """(B, taps) impulse responses: the direct sound, then noise that decays exponentially; or the first alone."""
    taps = int(_ROOM_S * sample_rate)
    seconds = torch.arange(taps, device=device) / sample_rate
    decay = 10.0 ** (-3.0 * seconds / _uniform(batch, settings.reverberation_s, device)[:, None])
    tail = torch.randn(batch, taps, device=device) * decay
    tail[:, : int(0.001 * sample_rate)] = 0.0
    tail = tail / tail.square().sum(dim=1, keepdim=True).sqrt()
    wet = 10.0 ** (_uniform(batch, settings.reverberation_db, device) / 20)
    wet = wet * (torch.rand(batch, device=device) < settings.room)
    room = tail * wet[:, None]
    room[:, 0] = 1.0
    return room


def _equaliser(batch: int, hertz: Tensor, sigma_db: float) -> Tensor:
    """(B, bins) smooth random gain over the logarithm of frequency."""
    points = torch.randn(batch, _EQ_POINTS, device=hertz.device) * sigma_db
    octaves = (hertz.clamp(min=60.0) / 60.0).log2()
    place = octaves / octaves[-1] * (_EQ_POINTS - 1)
    below = place.floor().clamp(max=_EQ_POINTS - 2).long()
    decibels = torch.lerp(points[:, below], points[:, below + 1], (place - below).expand(batch, -1))
    return 10.0 ** (decibels / 20)


def _band(batch: int, hertz: Tensor, settings: AugmentSettings) -> Tensor:
    """(B, bins) gain of a high-pass and a low-pass, 24 dB and 48 dB an octave."""
    low = _log_uniform(batch, settings.low_cut_hz, hertz.device)[:, None]
    high = _log_uniform(batch, settings.high_cut_hz, hertz.device)[:, None]
    return 1.0 / ((1.0 + (low / hertz.clamp(min=1.0)) ** 8) * (1.0 + (hertz / high) ** 16)).sqrt()


def _noisy(wav: Tensor, settings: AugmentSettings) -> Tensor:
    """Coloured noise, or the voices of other rows, at a random ratio to the signal."""
    batch, num_samples = wav.shape
    white = torch.fft.rfft(torch.randn_like(wav))
    slope = _uniform(batch, (0.0, 1.0), wav.device)[:, None]
    bins = torch.arange(1, white.shape[1] + 1, device=wav.device)
    coloured = torch.fft.irfft(white * bins ** (-slope), num_samples)
    voices = sum(
        (wav.roll(shift, dims=0).roll(shift * 4001, dims=1) for shift in (1, 2, 3)), torch.zeros_like(wav)
    )
    chattering = torch.rand(batch, 1, device=wav.device) < settings.chatter
    noise = torch.where(chattering, voices, coloured)
    ratio = 10.0 ** (-_uniform(batch, settings.noise_snr_db, wav.device) / 20)
    return wav + noise * (_rms(wav) / _rms(noise) * ratio[:, None])


def _clipped(wav: Tensor) -> Tensor:
    limit = wav.abs().amax(dim=1, keepdim=True) * _uniform(len(wav), (0.3, 0.9), wav.device)[:, None]
    return torch.minimum(torch.maximum(wav, -limit), limit)


def _mu_law(wav: Tensor) -> Tensor:
    """Eight bits on a logarithmic scale, as in telephony."""
    wav = wav.clamp(-1.0, 1.0)
    compressed = wav.sign() * torch.log1p(255.0 * wav.abs()) / math.log(256.0)
    steps = (compressed * 127.0).round() / 127.0
    return steps.sign() * torch.expm1(steps.abs() * math.log(256.0)) / 255.0


def _log_envelope(magnitude: Tensor, sample_rate: int) -> Tensor:
    """(B, bins, T) log magnitude, smoothed over frequency by keeping the short times of the cepstrum."""
    cepstrum = torch.fft.irfft(magnitude.clamp(min=1e-5).log(), dim=1)
    kept = int(_ENVELOPE_S * sample_rate)
    cepstrum[:, kept : cepstrum.shape[1] - kept + 1] = 0.0
    smooth: Tensor = torch.fft.rfft(cepstrum, dim=1).real
    return smooth


def _overlap_add(spectrum: Tensor, window: Tensor) -> Tensor:
    """(B, bins, T) to (B, (T - 1) * hop): torch.istft, which would wait for the device."""
    frames = torch.fft.irfft(spectrum, dim=1) * window[:, None]
    length = (spectrum.shape[2] - 1) * _ENVELOPE_HOP + _ENVELOPE_FFT
    weights = window.square()[None, :, None].expand(1, -1, spectrum.shape[2])
    summed, weight = (
        F.fold(part, (1, length), (1, _ENVELOPE_FFT), stride=(1, _ENVELOPE_HOP)).flatten(1)
        for part in (frames, weights)
    )
    half = _ENVELOPE_FFT // 2
    wav: Tensor = summed[:, half:-half] / weight[:, half:-half]
    return wav


def _rms(wav: Tensor) -> Tensor:
    return wav.square().mean(dim=1, keepdim=True).sqrt().clamp(min=1e-5)


def _uniform(count: int, limits: tuple[float, float], device: torch.device) -> Tensor:
    return torch.rand(count, device=device) * (limits[1] - limits[0]) + limits[0]


def _log_uniform(count: int, limits: tuple[float, float], device: torch.device) -> Tensor:
    return _uniform(count, (math.log(limits[0]), math.log(limits[1])), device).exp()
