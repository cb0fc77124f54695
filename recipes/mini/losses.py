"""What the vocoder is trained with and measured by: spectral distances, pitch, and the adversarial game.

All in float32, also under autocast. wav: (B, N); "real" is the teacher's, "fake" the generator's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from light_tts.encode.features import slaney_mel_bank

# Of magnitudes before the logarithm: 20 dB above the model's own mel, at -75 dB of full scale. Below, the
# logarithm's slope would give most of the gradient to silence.
_FLOOR = 1e-4
_SIZE_FLOOR = 1e-5  # of a hidden layer
_POWER_FLOOR = 1e-9  # under the square root, whose slope is infinite at zero


@dataclass(frozen=True, slots=True)
class MelScale:
    """One resolution of the spectral loss; its hop is a quarter of its window."""

    n_fft: int
    num_mels: int


# Up to half the sample rate, beyond the model's own mel (8 kHz): what lies above has to be made up, but plausibly.
# No filter is narrower than the window's resolution.
MEL_SCALES = (MelScale(2048, 128), MelScale(1024, 80), MelScale(512, 48), MelScale(256, 24))
STFT_SIZES = (2048, 1024, 512)


def magnitudes(wav: Tensor, n_fft: int) -> Tensor:
    """(B, N) to (B, n_fft / 2 + 1, T): windowed Fourier magnitudes, four windows overlapping."""
    with torch.autocast(wav.device.type, enabled=False):
        window = _hann(n_fft, wav.device)
        spectrum = torch.stft(wav.float(), n_fft, n_fft // 4, window=window, return_complex=True)
        return (spectrum.real.square() + spectrum.imag.square() + _POWER_FLOOR).sqrt()


def mel_distance(
    fake: Tensor, real: Tensor, sample_rate: int, scales: Sequence[MelScale] = MEL_SCALES
) -> Tensor:
    """Mean absolute difference of natural-log mels, averaged over the scales."""
    total = fake.new_zeros(())
    for scale in scales:
        bank = slaney_mel_bank(sample_rate, scale.n_fft, scale.num_mels, 0.0, sample_rate / 2, fake.device)
        ours, theirs = (_log_mel(bank, magnitudes(wav, scale.n_fft)) for wav in (fake, real))
        total = total + (ours - theirs).abs().mean()
    return total / len(scales)


def stft_distance(fake: Tensor, real: Tensor, sizes: Sequence[int] = STFT_SIZES) -> Tensor:
    """Multi-resolution STFT distance: spectral convergence plus mean log-magnitude difference, by resolution."""
    total = fake.new_zeros(())
    for n_fft in sizes:
        ours, theirs = (magnitudes(wav, n_fft) for wav in (fake, real))
        convergence = (ours - theirs).norm() / theirs.norm().clamp(min=_FLOOR)
        log_difference = ours.clamp(min=_FLOOR).log() - theirs.clamp(min=_FLOOR).log()
        total = total + convergence + log_difference.abs().mean()
    return total / len(sizes)


def f0_loss(predicted: Tensor, real: Tensor) -> Tensor:
    """Mean absolute error in Hz over all frames, unvoiced ones being 0 Hz.

    The predictor has no voicing output: the source is voiced where its pitch is above 10 Hz. An absolute error is least
    at the median, so that a doubtful frame is drawn to 0 or to its pitch, whichever is likelier, and not to a
    pitch in between, as by a square; and its gradient is the same for every frame, however high the voice. A
    logarithm has no value for unvoiced frames, and an unbounded slope where the prediction crosses zero.
    """
    return (predicted.float() - real).abs().mean()


def f0_errors(predicted: Tensor, real: Tensor, voiced_threshold_hz: float) -> tuple[float, float]:
    """Root mean square error in Hz where both are voiced, and the share of frames whose voicing is wrong."""
    ours, theirs = predicted > voiced_threshold_hz, real > voiced_threshold_hz
    both = ours & theirs
    squares = (predicted - real).square()[both]
    rmse = float(squares.mean().sqrt()) if squares.numel() else float("nan")
    return rmse, float((ours != theirs).float().mean())


def discriminator_loss(real_scores: Sequence[Tensor], fake_scores: Sequence[Tensor]) -> Tensor:
    """Least squares: real to 1, fake to 0; summed over the discriminators."""
    pairs = zip(real_scores, fake_scores, strict=True)
    losses = [(real.float() - 1).square().mean() + fake.float().square().mean() for real, fake in pairs]
    return torch.stack(losses).sum()


def adversarial_loss(fake_scores: Sequence[Tensor]) -> Tensor:
    """Least squares: fake to 1; summed over the discriminators."""
    return torch.stack([(fake.float() - 1).square().mean() for fake in fake_scores]).sum()


def feature_loss(fake: Sequence[Sequence[Tensor]], real: Sequence[Sequence[Tensor]]) -> Tensor:
    """Mean absolute difference of the hidden layers, relative to their size in real speech.

    The size keeps discriminators from changing the weight of this loss by scaling their layers, which
    convolutions without weight norm are free to do. Averaged over layers, summed over discriminators.
    """
    return torch.stack(
        [_mean_difference(ours, theirs) for ours, theirs in zip(fake, real, strict=True)]
    ).sum()


def _mean_difference(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    differences = []
    for ours, theirs in zip(fake, real, strict=True):
        target = theirs.detach().float()
        differences.append((ours.float() - target).abs().mean() / target.abs().mean().clamp(min=_SIZE_FLOOR))
    return torch.stack(differences).mean()


def _log_mel(bank: Tensor, spectrum: Tensor) -> Tensor:
    with torch.autocast(spectrum.device.type, enabled=False):
        return (bank @ spectrum).clamp(min=_FLOOR).log()


@lru_cache(
    maxsize=16
)  # more than there are sizes: a recorded step goes on reading the tables it was recorded with
def _hann(size: int, device: torch.device) -> Tensor:
    return torch.hann_window(size, device=device)
