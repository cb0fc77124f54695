"""Speaking faster or slower: linear interpolation of the mel over time, whole or as a stream."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from light_tts.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class MelStretcher:
    """A mel stream read at `speed` times its pace: output frame i is taken at (i + 0.5) * speed - 0.5.

    speed: > 0; 1.25 shortens to four fifths
    pending: (B, C, n) input frames from number `start` on that later output frames still need; None at first
    made: output frames so far

    A whole utterance of T frames becomes as many as have their centre inside it: T / speed to the nearest.
    """

    speed: float
    pending: Tensor | None = None
    start: int = 0
    made: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.speed) and self.speed > 0):
            raise InvalidInput(f"speed is {self.speed}, must be above 0")

    def push(self, mel: Tensor, *, finalize: bool) -> tuple[Tensor, MelStretcher]:
        """The output frames that `mel` (B, C, T >= 0) completes, (B, C, n), and the next state."""
        known = mel if self.pending is None else torch.cat([self.pending, mel], dim=2)
        end = self.start + known.shape[2]
        count = self._frames_before(end if finalize else end - 0.5) - self.made
        wanted = torch.arange(self.made, self.made + count, dtype=torch.float64)
        position = self._position(wanted).clamp(min=0, max=max(0, end - 1)) - self.start
        left = position.floor().long()
        right = left.add(1).clamp(max=max(0, end - 1 - self.start))
        weight = (position - left).to(mel)
        left, right = left.to(mel.device), right.to(mel.device)
        stretched = torch.lerp(known[:, :, left], known[:, :, right], weight)
        first_needed = min(end, max(0, math.floor((self.made + count + 0.5) * self.speed - 0.5)))
        kept = known[:, :, max(0, first_needed - self.start) :].clone()
        return stretched, replace(self, pending=kept, start=first_needed, made=self.made + count)

    def _position(self, frame: Tensor) -> Tensor:
        return (frame + 0.5) * self.speed - 0.5

    def _frames_before(self, limit: float) -> int:
        """How many output frames have their centre (i + 0.5) * speed up to `limit`, at least `made`."""
        return max(self.made, math.floor(limit / self.speed - 0.5 + 1e-9) + 1)


def stretch_mel(mel: Tensor, speed: float, *, reference_rounding: bool = False) -> Tensor:
    """(B, C, T) to (B, C, about T / speed), as `MelStretcher` does.

    reference_rounding: the reference's length int(T / speed), and T / length in place of `speed`. Its
        positions differ by less than one output frame at the utterance's end, but are known only once it has
        ended.
    """
    if not reference_rounding:
        return MelStretcher(speed).push(mel, finalize=True)[0]
    MelStretcher(speed)  # the same check of the speed
    return F.interpolate(mel, size=int(mel.shape[2] / speed), mode="linear", align_corners=False)
