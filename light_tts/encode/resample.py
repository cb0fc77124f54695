"""Change of sample rate by windowed-sinc interpolation."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_ZERO_CROSSINGS = 6  # of the sinc on each side of its peak
_ROLLOFF = 0.99  # cut-off as a share of the lower Nyquist frequency
_PHASES_PER_BLOCK = 256


def resample(samples: Tensor, from_hz: int, to_hz: int) -> Tensor:
    """Band-limited interpolation of `samples` at the times of the new rate.

    samples: (..., n) float32, on any device
    Returns (..., ceil(n * to_hz / from_hz)) float32.

    Output i lies at input position i * from_hz / to_hz. With the rates reduced to step : phases, positions
    repeat their fractional part every `phases` outputs, so that each phase is one strided convolution with
    its own kernel. Phases are computed in blocks: rates such as 44101 : 24000 would otherwise need a table of
    24000 kernels that each span 44101 samples.
    Source: torchaudio.transforms.Resample with default arguments, which the reference uses.
    """
    if from_hz == to_hz:
        return samples
    divisor = math.gcd(from_hz, to_hz)
    step, phases = from_hz // divisor, to_hz // divisor
    half_width = math.ceil(_ZERO_CROSSINGS * step / (min(step, phases) * _ROLLOFF))
    num_samples = samples.shape[-1]
    num_out = -(-num_samples * phases // step)
    num_frames = -(-num_out // phases)
    right = max(0, num_frames * step - num_samples) + half_width + 1
    padded = F.pad(samples.reshape(-1, 1, num_samples), (half_width, right))
    blocks = []
    for first in range(0, phases, _PHASES_PER_BLOCK):
        block = range(first, min(first + _PHASES_PER_BLOCK, phases))
        start = first * step // phases  # input position below the block's first output
        kernel = _kernel(block, start, half_width, step, phases).to(samples)
        stop = start + (num_frames - 1) * step + kernel.shape[-1]
        blocks.append(F.conv1d(padded[..., start:stop], kernel[:, None], stride=step))
    resampled = torch.cat(blocks, dim=1).transpose(1, 2).flatten(1)[:, :num_out]
    return resampled.reshape(*samples.shape[:-1], num_out)


def _kernel(block: range, start: int, half_width: int, step: int, phases: int) -> Tensor:
    """(len(block), taps) weights; tap 0 is `half_width` inputs left of `start`. Computed in float64."""
    last = (block.stop - 1) * step // phases
    taps = torch.arange(start - half_width, last + half_width + 2, dtype=torch.float64)
    outputs = torch.arange(block.start, block.stop, dtype=torch.float64)
    cutoff = min(step, phases) * _ROLLOFF  # zero crossings per `step` inputs
    time = (taps[None] / step - outputs[:, None] / phases) * cutoff
    time = time.clamp(-_ZERO_CROSSINGS, _ZERO_CROSSINGS)
    hann = torch.cos(time * (math.pi / 2 / _ZERO_CROSSINGS)).square()
    return torch.sinc(time) * hann * (cutoff / step)
