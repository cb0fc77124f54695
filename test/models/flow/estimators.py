"""The recorded models' estimators, and inputs for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from light_tts.models.flow.dit import DiT
from light_tts.models.flow.estimator_state import EstimatorState
from light_tts.models.flow.unet import ConditionalUNet
from light_tts.models.layers.ragged import Frames
from light_tts.models.loader import load_flow
from light_tts.models.model_yaml import read_model_config
from test.parity.recording import Recording

MEL = 80
CHUNK = 50

AnyEstimator = ConditionalUNet | DiT


def load_estimator(model_dir: Path) -> AnyEstimator:
    cfg = read_model_config(model_dir).flow
    return load_flow(model_dir, cfg, torch.device("cpu"), torch.float32).decoder.estimator


def recording_of(model_dir: Path) -> Recording:
    return Recording(model_dir.parent / "fixtures", f"cv{model_dir.name[-1]}_flow")


@dataclass(frozen=True, slots=True)
class Inputs:
    """An estimator's inputs. x, mu, cond: (B, MEL, T); t: (B,); spks: (B, MEL)."""

    x: Tensor
    mu: Tensor
    t: Tensor
    spks: Tensor
    cond: Tensor

    @classmethod
    def random(cls, num_rows: int, num_frames: int, seed: int = 0) -> Inputs:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        x, mu, cond = (normal(num_rows, MEL, num_frames) for _ in range(3))
        return cls(x, mu, torch.rand(num_rows, generator=generator), normal(num_rows, MEL), cond)

    @classmethod
    def recorded(cls, recording: Recording) -> Inputs:
        return cls(*(recording.tensor(f"est.{name}") for name in ("x", "mu", "t", "spks", "cond")))

    @property
    def num_frames(self) -> int:
        return self.x.shape[2]

    def pieces(self, starts: list[int], lens: list[int]) -> Inputs:
        """Frames [start, start + len) of each row; what lies beyond is noise that must not matter."""
        longest = max(lens)
        sequences = []
        for sequence in (self.x, self.mu, self.cond):
            padded = torch.full((len(starts), MEL, longest), 9.0)
            for row, (start, length) in enumerate(zip(starts, lens, strict=True)):
                padded[row, :, :length] = sequence[row, :, start : start + length]
            sequences.append(padded)
        x, mu, cond = sequences
        return Inputs(x, mu, self.t, self.spks, cond)

    def row(self, index: int, length: int) -> Inputs:
        """The first `length` frames of one row."""
        rows = slice(index, index + 1)
        x, mu, cond = (sequence[rows, :, :length] for sequence in (self.x, self.mu, self.cond))
        return Inputs(x, mu, self.t[rows], self.spks[rows], cond)

    def to(self, dtype: torch.dtype) -> Inputs:
        return Inputs(*(value.to(dtype) for value in (self.x, self.mu, self.t, self.spks, self.cond)))


def evaluate(
    estimator: AnyEstimator,
    inputs: Inputs,
    frames: Frames,
    state: EstimatorState | None = None,
    keep_state: bool = False,
) -> tuple[Tensor, EstimatorState | None]:
    return estimator(
        inputs.x, inputs.mu, inputs.t, inputs.spks, inputs.cond, frames, state, keep_state=keep_state
    )


def whole(estimator: AnyEstimator, inputs: Inputs, chunk: int = 0) -> Tensor:
    """All rows in full, without a state."""
    lens = torch.full((len(inputs.x),), inputs.num_frames)
    return evaluate(estimator, inputs, Frames.whole(lens, inputs.num_frames, chunk))[0]
