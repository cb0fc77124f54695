"""Conditional flow matching: carries noise to mel frames along the estimator's velocity."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from light_tts.models.flow.estimator_state import EstimatorState, Velocity
from light_tts.models.layers.ragged import Frames

Observer = Callable[[int, float, Tensor, Tensor, Tensor], None]
"""Called before each Euler step with its index, t, x, and the two velocities, all (B, mel, T)."""


class Estimator(Protocol):
    def bind(
        self, mu: Tensor, spks: Tensor, cond: Tensor, frames: Frames, state: EstimatorState | None
    ) -> Velocity:
        """The estimator with all its inputs fixed but x and t."""

    def embed_times(self, t: Tensor) -> Tensor:
        """(N,) times to (N, ...), whose entries `Velocity` takes."""


@dataclass(frozen=True, slots=True)
class SolverState:
    """The estimator's state at each step, of B streams.

    steps: 2 B rows each: the conditioned ones, then the unconditioned ones; B rows without guidance
    past_lens: (B,) int64 on the CPU, mel frames that each stream has processed
    guided: whether there are unconditioned rows
    """

    steps: tuple[EstimatorState, ...]
    past_lens: Tensor
    guided: bool = True

    def split(self) -> list[SolverState]:
        """One state per stream, without padding and with memory of its own if there are several."""
        num_streams = len(self.past_lens)
        if num_streams == 1:
            return [self]
        lens = self.past_lens.split(1)
        streams = []
        for index, past_len in enumerate(lens):
            rows = [index, num_streams + index] if self.guided else [index]
            steps = tuple(step.take(rows, int(past_len)) for step in self.steps)
            streams.append(SolverState(steps, past_len, self.guided))
        return streams

    @classmethod
    def stack(cls, states: Sequence[SolverState | None]) -> SolverState | None:
        """Batch streams, possibly of different past lengths. None stands for one that only begins.

        Returns None when all of them only begin, and a single stream as it is.
        """
        known = [state for state in states if state is not None]
        if len(states) == 1 or not known:
            return states[0]
        guided = known[0].guided
        rows = [(state, half) for half in range(2 if guided else 1) for state in states]
        steps = [
            EstimatorState.stack([state.steps[step].row(half) if state else None for state, half in rows])
            for step in range(len(known[0].steps))
        ]
        past_lens = [state.past_lens if state else torch.zeros(1, dtype=torch.int64) for state in states]
        return cls(tuple(step for step in steps if step is not None), torch.cat(past_lens), guided)


def time_steps(num_steps: int) -> tuple[Tensor, list[float]]:
    """Times (num_steps,) float32 on the CPU and step widths, closer together at the start.

    Both are accumulated in float32, as the recorded reference does.
    """
    span = 1 - torch.cos(torch.linspace(0, 1, num_steps + 1) * 0.5 * math.pi)
    times, deltas = [span[0]], [span[1] - span[0]]
    for step in range(1, num_steps):
        times.append(times[-1] + deltas[-1])
        deltas.append(span[step + 1] - times[-1])
    return torch.stack(times), [float(delta) for delta in deltas]


def solve(
    estimator: Estimator,
    noise: Tensor,
    mu: Tensor,
    spks: Tensor,
    cond: Tensor,
    frames: Frames,
    cfg_rate: float,
    num_steps: int,
    state: SolverState | None = None,
    keep_state: bool = False,
    observer: Observer | None = None,
) -> tuple[Tensor, SolverState | None]:
    """Euler steps with classifier-free guidance; at `cfg_rate` 0 the unconditioned rows are not computed.

    noise, mu, cond: (B, mel, T); spks: (B, mel), both in the estimator's dtype. x stays in float32.
    Returns the mel (B, mel, T) float32, meaningless on padding, and the state after these frames if wanted.
    """
    times, deltas = time_steps(num_steps)
    embedded = estimator.embed_times(times.to(mu.device))
    guided = cfg_rate != 0.0
    velocity = estimator.bind(
        *(
            (_with_null(mu), _with_null(spks), _with_null(cond), _twice(frames))
            if guided
            else (mu, spks, cond, frames)
        ),
        state.steps[0] if state else None,  # the conditions' left context is the same at every step
    )
    x = noise.float().transpose(1, 2).contiguous()
    kept = []
    for step, delta in enumerate(deltas):
        past = state.steps[step] if state else None
        rows = x.to(mu.dtype).repeat(2, 1, 1) if guided else x.to(mu.dtype)
        out, step_state = velocity(rows, embedded[step : step + 1], past, keep_state)
        conditioned, unconditioned = out.float().chunk(2) if guided else (out.float(), torch.zeros_like(x))
        if observer is not None:
            views = (x, conditioned, unconditioned)
            observer(step, float(times[step]), *(view.transpose(1, 2) for view in views))
        if step_state is not None:
            kept.append(step_state)
        x = x + delta * ((1 + cfg_rate) * conditioned - cfg_rate * unconditioned)
    past_lens = frames.past_lens + frames.new_lens
    return x.transpose(1, 2), SolverState(tuple(kept), past_lens, guided) if keep_state else None


def _with_null(condition: Tensor) -> Tensor:
    return torch.cat([condition, torch.zeros_like(condition)])


def _twice(frames: Frames) -> Frames:
    past, new = frames.past_lens.repeat(2), frames.new_lens.repeat(2)
    return Frames(past, new, frames.num_new, frames.chunk, frames.max_past)
