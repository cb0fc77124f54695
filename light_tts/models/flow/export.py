"""A flow estimator as an ONNX file, for whole utterances: any number of rows, any length."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from light_tts.models.flow.dit import DiT
from light_tts.models.flow.unet import ConditionalUNet

INPUTS = ("x", "mask", "mu", "t", "spks", "cond")
OUTPUT = "velocity"
OPSET = 17
_EXAMPLE_FRAMES = 37
_UNSEEN = 30_000.0  # beyond any score, within half precision


@dataclass(frozen=True, slots=True)
class _MaskedFrames:
    """In place of `Frames`: the mask comes from outside. No row has a past; none keeps a state.

    mask: (B, 1, T), above 0 where a frame exists
    """

    mask: Tensor
    new_lens: Tensor
    num_new: int = 0

    def attention_mask(self, device: torch.device) -> Tensor:
        # Added to the scores, in their own type: the exporter makes float32 of a bool mask. Engines dislike -inf.
        return ((self.mask - 1) * _UNSEEN)[:, None].expand(-1, -1, self.mask.shape[2], -1)

    def positions(self, device: torch.device) -> Tensor:
        steps = torch.ones_like(self.mask[:, 0], dtype=torch.int64).cumsum(1)
        return steps - 1


class Exportable(nn.Module):
    """The estimator with the signature that engines have: all of it in tensors.

    x, mu, cond: (B, mel, T); mask: (B, 1, T) ones, then zeros; t: (B,); spks: (B, mel)
    Returns the velocity (B, mel, T), undefined on right padding.
    """

    def __init__(self, estimator: ConditionalUNet | DiT) -> None:
        super().__init__()
        self.estimator = estimator

    def forward(self, x: Tensor, mask: Tensor, mu: Tensor, t: Tensor, spks: Tensor, cond: Tensor) -> Tensor:
        frames = _MaskedFrames(mask, torch.zeros(1, dtype=torch.int64))
        velocity = self.estimator.bind(mu, spks, cond, frames, None)  # type: ignore[arg-type]
        out, _ = velocity(x.transpose(1, 2), self.estimator.embed_times(t), None, False)
        return out.transpose(1, 2)


def export_estimator(estimator: ConditionalUNet | DiT, path: Path, mel: int = 80) -> None:
    """Write the estimator, in its own dtype, to `path`."""
    weight = next(estimator.parameters())

    def zeros(*size: int) -> Tensor:
        return torch.zeros(size, dtype=weight.dtype, device=weight.device)

    frames = _EXAMPLE_FRAMES
    example = (
        zeros(2, mel, frames),
        zeros(2, 1, frames) + 1,
        zeros(2, mel, frames),
        zeros(2),
        zeros(2, mel),
        zeros(2, mel, frames),
    )
    axes = {name: {0: "rows", 2: "frames"} for name in (*INPUTS, OUTPUT)}
    axes |= {"t": {0: "rows"}, "spks": {0: "rows"}}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter(
            "ignore"
        )  # the exporter is an old one, and says so; it needs no further package
        torch.onnx.export(
            Exportable(estimator),
            example,
            str(path),
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
