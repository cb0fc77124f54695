"""What the models hear: three spectral views of a recording, or of a batch of equally long ones, on any device.

The order and the precision of the operations are the reference's: rounding errors of quiet bins
grow by a factor of 1000.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from light_tts.models.config import MelConfig

SPEECH_RATE_HZ = 16_000  # input of the speech tokenizer and of the speaker encoder
WHISPER_MELS = 128
FBANK_MELS = 80

_WHISPER_FFT, _WHISPER_HOP = 400, 160  # 25 ms, 10 ms
_FBANK_WINDOW, _FBANK_HOP, _FBANK_FFT = 400, 160, 512
_FBANK_LOWEST_HZ = 20.0
_FBANK_FLOOR = 2.0**-23  # float32 epsilon


@dataclass(frozen=True, slots=True, eq=False)
class PromptFeatures:
    """All that the models take from a reference recording. CPU tensors, never changed once made.

    speech_token: (n,) int64 at 25 Hz
    prompt_mel: (m, 80) float32 log-mel at 50 Hz; m = 2n if the prompt was aligned
    speaker_embedding: (192,) float32
    content_hash: of the audio that they came from
    """

    speech_token: Tensor
    prompt_mel: Tensor
    speaker_embedding: Tensor
    content_hash: str
    duration_s: float


def prompt_mel(samples: Tensor, config: MelConfig) -> Tensor:
    """Natural-log magnitude mel of the vocoder's rate.

    samples: (..., n) float32 at config.sampling_rate, n > (n_fft - hop_size) / 2
    Returns (..., n // hop_size, num_mels) float32 (one frame less when the padding does not fill it).
    """
    pad = (config.n_fft - config.hop_size) // 2
    padded = F.pad(samples.reshape(-1, samples.shape[-1]), (pad, pad), mode="reflect")
    spectrum = torch.stft(
        padded,
        config.n_fft,
        config.hop_size,
        config.win_size,
        window=torch.hann_window(config.win_size, device=samples.device),
        center=False,
        return_complex=True,
    )
    magnitude = torch.sqrt(spectrum.real.square() + spectrum.imag.square() + 1e-9)
    highest = config.fmax if config.fmax is not None else config.sampling_rate / 2
    bank = slaney_mel_bank(
        config.sampling_rate, config.n_fft, config.num_mels, config.fmin, highest, samples.device
    )
    mel = (bank @ magnitude).clamp(min=1e-5).log().transpose(1, 2)
    return mel.reshape(*samples.shape[:-1], *mel.shape[1:]).contiguous()


def whisper_log_mel(
    samples: Tensor, num_mels: int = WHISPER_MELS, num_frames: Tensor | None = None
) -> Tensor:
    """Whisper's log-mel: log10 power, at most 8 decades below its maximum, scaled to about [-1, 1].

    samples: (n,) or (B, n) float32 at 16 kHz, n > 200
    num_frames: (B,) of the recordings of a padded batch; frames beyond are as silent as can be
    Returns (num_mels, n // 160) or (B, num_mels, n // 160) float32.
    """
    window = torch.hann_window(_WHISPER_FFT, device=samples.device)
    spectrum = torch.stft(samples, _WHISPER_FFT, _WHISPER_HOP, window=window, return_complex=True)
    power = spectrum[..., :-1].abs().square()
    bank = slaney_mel_bank(SPEECH_RATE_HZ, _WHISPER_FFT, num_mels, 0.0, SPEECH_RATE_HZ / 2, samples.device)
    mel: Tensor = bank @ power
    log_mel = mel.clamp(min=1e-10).log10()
    if num_frames is not None:
        beyond = torch.arange(log_mel.shape[2], device=samples.device) >= num_frames[:, None]
        log_mel = log_mel.masked_fill(beyond[:, None], -10.0)
    log_mel = torch.maximum(log_mel, log_mel.amax((-2, -1), keepdim=True) - 8.0)
    return (log_mel + 4.0) / 4.0


def kaldi_fbank(samples: Tensor, num_mels: int = FBANK_MELS) -> Tensor:
    """Kaldi's log filter-bank energies with its defaults, without dither.

    samples: (..., n) float32 at 16 kHz in [-1, 1], n >= 400
    Returns (..., 1 + (n - 400) // 160, num_mels) float32.
    """
    frames = samples.unfold(-1, _FBANK_WINDOW, _FBANK_HOP)
    frames = frames - frames.mean(dim=-1, keepdim=True)
    previous = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
    povey = torch.hann_window(_FBANK_WINDOW, periodic=False, device=samples.device).pow(0.85)
    frames = (frames - 0.97 * previous) * povey
    power = torch.fft.rfft(frames, n=_FBANK_FFT).abs().square()
    energy: Tensor = power @ _kaldi_mel_bank(num_mels, samples.device).T
    return energy.clamp(min=_FBANK_FLOOR).log()


def speaker_fbank(samples: Tensor) -> Tensor:
    """`kaldi_fbank` minus its mean over time: the speaker encoder's input, (..., T, 80)."""
    fbank = kaldi_fbank(samples)
    return fbank - fbank.mean(dim=-2, keepdim=True)


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # the cached tensor must also serve a training step
def slaney_mel_bank(
    sample_rate: int, n_fft: int, num_mels: int, fmin: float, fmax: float, device: torch.device | None = None
) -> Tensor:
    """(num_mels, n_fft / 2 + 1) float32 triangular filters of equal area on Slaney's mel scale, by default on the CPU.

    The scale is linear (200/3 Hz per mel) up to 1000 Hz and logarithmic (27 mels per factor 6.4) above.
    """
    corners = torch.linspace(_hz_to_mel(fmin), _hz_to_mel(fmax), num_mels + 2, dtype=torch.float64)
    logarithmic = 1000.0 * torch.exp((corners - 15.0) * (math.log(6.4) / 27.0))
    hertz = torch.where(corners >= 15.0, logarithmic, corners * (200.0 / 3.0))
    bins = torch.linspace(0.0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    left, centre, right = hertz[:-2, None], hertz[1:-1, None], hertz[2:, None]
    triangles = torch.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clamp(
        min=0.0
    )
    return (triangles * (2.0 / (right - left))).float().to(device)


def _hz_to_mel(hertz: float) -> float:
    return 15.0 + 27.0 * math.log(hertz / 1000.0) / math.log(6.4) if hertz >= 1000.0 else hertz * 3.0 / 200.0


@lru_cache(maxsize=4)
@torch.inference_mode(False)
def _kaldi_mel_bank(num_mels: int, device: torch.device) -> Tensor:
    """(num_mels, 257) float32 filters, triangular in mel = 1127 ln(1 + f / 700), zero at Nyquist."""
    low, high = (1127.0 * math.log(1.0 + hz / 700.0) for hz in (_FBANK_LOWEST_HZ, SPEECH_RATE_HZ / 2))
    width = (high - low) / (num_mels + 1)
    index = torch.arange(num_mels)[:, None]
    left, centre, right = (low + (index + offset) * width for offset in (0.0, 1.0, 2.0))
    # float32 from here on, as in the reference: narrow filters have weights near zero.
    bins = 1127.0 * torch.log(1.0 + SPEECH_RATE_HZ / _FBANK_FFT * torch.arange(_FBANK_FFT // 2) / 700.0)
    triangles = torch.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clamp(
        min=0.0
    )
    return F.pad(triangles, (0, 1)).to(device)
