"""The vocoder's randomness as a value: noise is a function of a seed and of the absolute sample position."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from light_tts.errors import InvalidInput

_MASK = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True, eq=False)
class SourceNoise:
    """Noise of one utterance: silence, a seed or a recording.

    Nothing is stored for a seed. Any piece can be drawn at any time, so chunked, whole and batched synthesis
    hear the same. The reference's random start phases have no place here: it draws them, but never reads
    them, since it resamples the phase steps at frame centres.
    """

    seed: int | None = None
    recording: Tensor | None = None  # (N, harmonics) float32

    @classmethod
    def seeded(cls, seed: int) -> SourceNoise:
        return cls(seed=seed)

    @classmethod
    def zeros(cls) -> SourceNoise:
        return cls()

    @classmethod
    def recorded(cls, noise: Tensor) -> SourceNoise:
        """noise: (N, harmonics), or (1, N, harmonics), for the first N samples."""
        return cls(recording=noise.flatten(0, -2).float())


@dataclass(frozen=True, slots=True)
class NoiseKeys:
    """Seeds as the device reads them: what makes noise without any copy from the CPU.

    offset, mask: (B,) int32
    """

    offset: Tensor
    mask: Tensor

    @classmethod
    def of(cls, seeds: Sequence[int]) -> NoiseKeys:
        """On the CPU."""
        keys = [_keys(seed) for seed in seeds]
        offset, mask = ([_signed(key[index]) for key in keys] for index in (0, 1))
        return cls(torch.tensor(offset, dtype=torch.int32), torch.tensor(mask, dtype=torch.int32))

    def draw(self, start: int, num_samples: int, num_harmonics: int, *, gaussian: bool) -> Tensor:
        """As `draw_noise` for rows that all begin at `start`."""
        numbers = torch.arange(num_samples * num_harmonics, dtype=torch.int32, device=self.offset.device)
        counter = numbers + (self.offset[:, None] + _signed(start * num_harmonics))
        bits = _mix(counter ^ self.mask[:, None]).view(len(self.offset), num_samples, num_harmonics)
        return _normal(bits) if gaussian else _uniform(bits)


def draw_noise(
    noises: Sequence[SourceNoise],
    starts: Sequence[int],
    num_samples: int,
    num_harmonics: int,
    device: torch.device,
    *,
    gaussian: bool,
) -> Tensor:
    """(B, num_samples, num_harmonics) float32: row b holds the samples from `starts[b]` of `noises[b]`.

    gaussian: standard normal (CosyVoice2), else uniform in [0, 1) (CosyVoice3)
    Raises InvalidInput when a recording is too short.
    """
    shape = (len(noises), num_samples, num_harmonics)
    if all(noise.seed is None for noise in noises):
        drawn = torch.zeros(shape, device=device)
    else:
        bits = _random_bits([noise.seed or 0 for noise in noises], starts, shape, device)
        drawn = _normal(bits) if gaussian else _uniform(bits)
    for row, (noise, start) in enumerate(zip(noises, starts, strict=True)):
        if noise.recording is not None:
            drawn[row] = _piece(noise.recording, start, num_samples)
        elif noise.seed is None:
            drawn[row] = 0
    return drawn


def _piece(recording: Tensor, start: int, num_samples: int) -> Tensor:
    end = start + num_samples
    if end > recording.shape[0]:
        raise InvalidInput(f"recorded noise has {recording.shape[0]} samples, the utterance needs {end}")
    return recording[start:end]


def _random_bits(
    seeds: Sequence[int], starts: Sequence[int], shape: tuple[int, int, int], device: torch.device
) -> Tensor:
    """32 random bits per element as int32: its number in the utterance, hashed with two keys of the seed."""
    batch, num_samples, num_harmonics = shape
    keys = [_keys(seed) for seed in seeds]
    first = [_signed(start * num_harmonics + key[0]) for start, key in zip(starts, keys, strict=True)]
    offset = torch.tensor(first, dtype=torch.int32, device=device)[:, None]
    second = torch.tensor([_signed(key[1]) for key in keys], dtype=torch.int32, device=device)[:, None]
    counter = torch.arange(num_samples * num_harmonics, dtype=torch.int32, device=device) + offset
    return _mix(counter ^ second).view(batch, num_samples, num_harmonics)


def _mix(x: Tensor) -> Tensor:
    """A bijection of 32-bit integers that spreads every bit over all (xor-shift-multiply, wrapping int32)."""
    x = x ^ _shift(x, 16)
    x = x * _signed(0x7FEB_352D)
    x = x ^ _shift(x, 15)
    x = x * _signed(0x846C_A68B)
    return x ^ _shift(x, 16)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical shift to the right; torch's own repeats the sign bit."""
    return (x >> bits) & (_MASK >> bits)


def _signed(value: int) -> int:
    """The low 32 bits of `value` as an int32."""
    value &= _MASK
    return value - (1 << 32) if value >> 31 else value


def _keys(seed: int) -> tuple[int, int]:
    """Two 32-bit keys from a seed of any size; neighbouring seeds get unrelated keys (splitmix64)."""
    z = (seed + 0x9E37_79B9_7F4A_7C15) & (1 << 64) - 1
    z = (z ^ z >> 30) * 0xBF58_476D_1CE4_E5B9 & (1 << 64) - 1
    z = (z ^ z >> 27) * 0x94D0_49BB_1331_11EB & (1 << 64) - 1
    z ^= z >> 31
    return z & _MASK, z >> 32


def _uniform(bits: Tensor) -> Tensor:
    return _shift(bits, 8).float() * 2.0**-24


def _normal(bits: Tensor) -> Tensor:
    """Box-Muller on the two halves of each number: 16 bits of radius and of angle, |x| < 4.9."""
    radius = (_shift(bits, 16).float() + 0.5).mul_(2.0**-16).log_().mul_(-2).sqrt_()
    return (bits & 0xFFFF).float().mul_(2 * math.pi * 2.0**-16).cos_().mul_(radius)
