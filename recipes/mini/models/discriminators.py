"""What tells the teacher's waves from the vocoder's: networks over periods of samples and over spectrograms.

Plain convolutions: weight norm would cost more launches than the convolutions; `losses.feature_loss` takes care of the
scale of the layers. About 4 M weights, as many as suit a generator of 3 M.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PERIODS = (2, 3, 5, 7, 11)
SPECTRUM_SIZES = (2048, 1024, 512)

_SLOPE = 0.1
_FIRST_SCORES = 0.01  # near 0: the game must not begin with random opinions
_COMPRESSION = 0.3  # exponent of magnitudes: quiet bins count too
_POWER_FLOOR = 1e-5  # bounds the compression's slope


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """Of one discriminator: scores near 1 for real and near 0 for fake, and its hidden layers."""

    score: Tensor
    features: list[Tensor]


class PeriodDiscriminator(nn.Module):
    """Looks at every `period`-th sample: (B, N) folded to (B, 1, N / period, period)."""

    def __init__(self, period: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.period = period
        last = len(channels) - 1
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, (5, 1), stride=(3 if index < last else 1, 1), padding=(2, 0))
            for index, (before, after) in enumerate(pairwise((1, *channels)))
        )
        self.score = nn.Conv2d(channels[-1], 1, (3, 1), padding=(1, 0))

    def forward(self, wav: Tensor) -> Judgement:
        missing = -wav.shape[1] % self.period
        padded = F.pad(wav[:, None], (0, missing), mode="reflect")
        return _judge(padded.view(len(wav), 1, -1, self.period), self.convs, self.score)


class SpectrumDiscriminator(nn.Module):
    """Looks at a spectrogram with phases: convolutions that halve the frequencies and widen over time."""

    def __init__(self, n_fft: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.n_fft = n_fft
        last = len(channels) - 1
        self.convs = nn.ModuleList(
            # real part, imaginary part, and the frequency itself: speech differs from band to band
            nn.Conv2d(before, after, (5, 3), stride=(2, 1), padding=(2, dilation), dilation=(1, dilation))
            for before, after, dilation in _widening(channels[:last])
        )
        self.convs.append(nn.Conv2d(channels[last - 1], channels[last], 3, padding=1))
        self.score = nn.Conv2d(channels[last], 1, 3, padding=1)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, wav: Tensor) -> Judgement:
        return _judge(self.spectrogram(wav), self.convs, self.score)

    def spectrogram(self, wav: Tensor) -> Tensor:
        """(B, N) to (B, 3, n_fft / 2, T) float32: compressed real and imaginary parts, frequency in -1..1."""
        with torch.autocast(wav.device.type, enabled=False):
            window = self.get_buffer("window")
            spectrum = torch.stft(
                wav.float(), self.n_fft, self.n_fft // 4, window=window, normalized=True, return_complex=True
            )
            parts = torch.stack([spectrum.real, spectrum.imag], dim=1)[:, :, :-1]
            power = parts.square().sum(1, keepdim=True) + _POWER_FLOOR
            place = torch.linspace(-1, 1, parts.shape[2], device=wav.device)[:, None]
            place = place.expand(len(parts), 1, *parts.shape[2:])
            return torch.cat([parts * power ** ((_COMPRESSION - 1) / 2), place], dim=1)


class Discriminators(nn.Module):
    """All of them.

    period_channels, spectrum_channels: of the hidden layers, first to last
    """

    def __init__(
        self,
        period_channels: Sequence[int],
        spectrum_channels: Sequence[int],
        periods: Sequence[int] = PERIODS,
        spectrum_sizes: Sequence[int] = SPECTRUM_SIZES,
    ) -> None:
        super().__init__()
        self.periods = nn.ModuleList(PeriodDiscriminator(period, period_channels) for period in periods)
        self.spectra = nn.ModuleList(
            SpectrumDiscriminator(size, spectrum_channels) for size in spectrum_sizes
        )
        self.apply(_initialise)
        for discriminator in (*self.periods, *self.spectra):
            nn.init.normal_(discriminator.score.weight, std=_FIRST_SCORES)

    def forward(self, wav: Tensor) -> list[Judgement]:
        """wav: (B, N), N > half the largest spectrum. One judgement per discriminator."""
        return [discriminator(wav) for discriminator in (*self.periods, *self.spectra)]


def _judge(x: Tensor, convs: nn.ModuleList, score: nn.Conv2d) -> Judgement:
    features = []
    for conv in convs:
        x = F.leaky_relu(conv(x), _SLOPE)
        features.append(x)
    return Judgement(score(x), features)


def _initialise(module: nn.Module) -> None:
    """Layers as loud as their input: torch's own choice halves speech in every layer, until only biases are left."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, a=_SLOPE, nonlinearity="leaky_relu")
        assert module.bias is not None
        nn.init.zeros_(module.bias)


def _widening(channels: Sequence[int]) -> list[tuple[int, int, int]]:
    """(before, after, dilation over time) of each layer: 1, 1, 2, 4, ..."""
    return [(a, b, max(1, 2 ** (i - 1))) for i, (a, b) in enumerate(pairwise((3, *channels)))]
