"""The excitation: harmonics of f0 with noise, mixed to one signal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from light_tts.models.config import HiFTConfig
from light_tts.models.vocoder.source_noise import NoiseKeys, SourceNoise, draw_noise

# Rows times frames made at once. It bounds the (samples, harmonics) temporaries: to the cache of a CPU core,
# and to tens of megabytes on a GPU, where every block costs launches.
BLOCK_FRAMES_CPU = 32
BLOCK_FRAMES_GPU = 1024


@dataclass(frozen=True, slots=True)
class SourceState:
    """Where the oscillators of a batch stand.

    phase: (B, harmonics) float64, cycles in [0, 1) at the centre of the last frame made; None at first
    """

    phase: Tensor | None = None


class HarmonicSource(nn.Module):
    """Sine waves at 1..H times f0, in phase across frames; noise alone where f0 is below the threshold.

    The phase is summed in float64, in cycles: float32 sums in radians, as in the reference, drift by about
    1e-3 of the waveform within four seconds.
    """

    def __init__(self, cfg: HiFTConfig) -> None:
        super().__init__()
        self.num_harmonics = cfg.nb_harmonics + 1
        self.sampling_rate = cfg.sampling_rate
        self.samples_per_frame = cfg.samples_per_frame
        self.sine_amplitude = cfg.nsf_alpha
        self.voiced_noise = cfg.nsf_sigma
        self.voiced_threshold_hz = cfg.nsf_voiced_threshold
        self.causal = cfg.version == 3
        self.l_linear = nn.Linear(self.num_harmonics, 1)

    @property
    def lookahead_frames(self) -> int:
        """f0 frames needed beyond the frame that is made: CosyVoice2 glides to the next frame's centre."""
        return 0 if self.causal else 1

    def forward(
        self,
        f0: Tensor,
        noises: Sequence[SourceNoise] | NoiseKeys,
        state: SourceState | None = None,
        start_frames: Sequence[int] | None = None,
        *,
        finalize: bool = True,
    ) -> tuple[Tensor, SourceState]:
        """The source signal of the next frames.

        f0: (B, T) Hz, continuing where `state` stopped; unless `finalize`, the last `lookahead_frames` are
            only looked at and have to come again
        noises: one per row, or their keys; start_frames: the absolute number of each row's first frame, default 0,
            which it must be with keys
        Returns (B, N) float32, N = samples_per_frame times the frames made, and the state after them.
        """
        blocks = []
        state = state or SourceState()
        for excitation, _, after in self.excitations(f0, noises, state, start_frames, finalize=finalize):
            blocks.append(torch.tanh(self.l_linear(excitation)).squeeze(2))
            state = after
        return torch.cat(blocks, dim=1) if blocks else f0.new_zeros(f0.shape[0], 0), state

    def excitations(
        self,
        f0: Tensor,
        noises: Sequence[SourceNoise] | NoiseKeys,
        state: SourceState,
        start_frames: Sequence[int] | None = None,
        *,
        finalize: bool = True,
    ) -> Iterator[tuple[Tensor, Tensor, SourceState]]:
        """Harmonics with noise before mixing, by blocks: (B, n, H) float32, voiced (B, t), state after."""
        starts = start_frames or [0] * f0.shape[0]
        num_frames = f0.shape[1] - (0 if finalize else self.lookahead_frames)
        budget = BLOCK_FRAMES_CPU if f0.device.type == "cpu" else BLOCK_FRAMES_GPU
        block = max(1, budget // max(1, f0.shape[0]))
        for begin in range(0, num_frames, block):
            end = min(begin + block, num_frames)
            voiced = f0[:, begin:end] > self.voiced_threshold_hz
            sines, state = self._sines(f0[:, begin : end + self.lookahead_frames], end - begin, state)
            noise = self._noise(noises, [start + begin for start in starts], sines)
            yield self._mix(sines, noise, voiced), voiced, state

    def _noise(
        self, noises: Sequence[SourceNoise] | NoiseKeys, first_frames: Sequence[int], sines: Tensor
    ) -> Tensor:
        """As many samples as `sines` (B, n, H) has."""
        _, count, harmonics = sines.shape
        first = [frame * self.samples_per_frame for frame in first_frames]
        if isinstance(noises, NoiseKeys):
            return noises.draw(first[0], count, harmonics, gaussian=not self.causal)
        return draw_noise(noises, first, count, harmonics, sines.device, gaussian=not self.causal)

    def _mix(self, sines: Tensor, noise: Tensor, voiced: Tensor) -> Tensor:
        """Amplitudes by frame: quiet noise under loud sines, or louder noise alone."""
        sine_amplitude = voiced * self.sine_amplitude
        noise_amplitude = torch.where(voiced, self.voiced_noise, self.sine_amplitude / 3)
        by_frame = (*voiced.shape, self.samples_per_frame, self.num_harmonics)
        mixed = sines.view(by_frame) * sine_amplitude[:, :, None, None]
        return (mixed + noise.view(by_frame) * noise_amplitude[:, :, None, None]).flatten(1, 2)

    def _sines(self, f0: Tensor, num_frames: int, state: SourceState) -> tuple[Tensor, SourceState]:
        """Unit sine waves (B, num_frames * samples_per_frame, H) of the first `num_frames` of f0 (B, T)."""
        harmonics = torch.arange(1, self.num_harmonics + 1, device=f0.device)
        steps = (f0.unsqueeze(2) * harmonics / self.sampling_rate % 1.0).double() * self.samples_per_frame
        before = torch.zeros_like(steps[:, 0]) if state.phase is None else state.phase
        centres = (before[:, None] + steps[:, :num_frames].cumsum(1)) % 1.0  # (B, T, H) cycles
        after = SourceState(centres[:, -1])
        if self.causal:  # one phase for the whole frame
            return torch.sin(_radians(centres)).repeat_interleave(self.samples_per_frame, dim=1), after
        if state.phase is None:  # constant up to the first centre
            before, steps = centres[:, 0], torch.cat([torch.zeros_like(steps[:, :1]), steps[:, 1:]], dim=1)
        if steps.shape[1] == num_frames:  # the signal's end: constant after the last centre
            steps = torch.cat([steps, torch.zeros_like(steps[:, :1])], dim=1)
        return self._glide(_radians(torch.cat([before[:, None], centres], dim=1)), _radians(steps)), after

    def _glide(self, starts: Tensor, steps: Tensor) -> Tensor:
        """Sines whose phase runs linearly from each frame centre to the next.

        starts, steps: (B, T + 1, H) float32 radians, from the centre before the first frame on
        Returns (B, T * samples_per_frame, H).
        """
        samples = self.samples_per_frame
        # Sample q of a frame lies (2q + 1 - samples) / (2 samples) frames from its centre.
        offset = (2 * torch.arange(samples, device=steps.device) + 1 - samples) / (2 * samples)
        rising, falling = offset[: samples // 2, None] + 1, offset[samples // 2 :, None]
        first = torch.addcmul(starts[:, :-1, None], steps[:, :-1, None], rising)
        second = torch.addcmul(starts[:, 1:, None], steps[:, 1:, None], falling)
        return torch.sin(torch.cat([first, second], dim=2)).flatten(1, 2)


def _radians(cycles: Tensor) -> Tensor:
    """float64 cycles as float32 radians."""
    return (cycles * (2 * math.pi)).float()
