"""The flow's objective: conditional flow matching on rows without padding."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from light_tts.models.config import FlowConfig
from light_tts.models.flow.token_to_mel import Flow
from light_tts.models.flow.unet import ConditionalUNet
from light_tts.models.layers.ragged import Frames
from recipes.mini.settings import FlowSettings
from recipes.mini.train.flow_data import FlowBatch, RowKind
from recipes.mini.train.loop import autocast
from recipes.mini.train.recorded import Losses, Objective


@dataclass(frozen=True, slots=True)
class FullRows(Frames):
    """`Frames.whole` of rows without padding, whose masks wait on the device instead of being made there anew."""

    @classmethod
    def of(cls, num_rows: int, num_frames: int, chunk: int) -> FullRows:
        lens = torch.full((num_rows,), num_frames)
        return cls(torch.zeros_like(lens), lens, num_frames, chunk)

    def scaled(self, factor: int) -> FullRows:
        return FullRows.of(len(self.new_lens), self.num_new * factor, self.chunk * factor)

    def attention_mask(self, device: torch.device | None = None) -> Tensor | None:
        """(1, 1, T, T): the same for all rows."""
        if self.chunk == 0 or self.num_new <= self.chunk:
            return None
        return _chunk_mask(self.num_new, self.chunk, device or torch.device("cpu"))


@lru_cache(maxsize=32)
def _chunk_mask(num_frames: int, chunk: int, device: torch.device) -> Tensor:
    mask = Frames.whole(torch.tensor([num_frames]), num_frames, chunk).attention_mask(device)
    assert mask is not None
    return mask


def new_flow(cfg: FlowConfig, mean_mel: Tensor | None = None) -> Flow:
    """Random weights. mean_mel: (80,), which the first velocities are near to.

    The speaker's projection is widened: entries of a vector of length 1 are small.
    """
    flow = Flow(cfg)
    with torch.no_grad():
        flow.spk_embed_affine_layer.weight.mul_(math.sqrt(cfg.spk_embed_dim))
        estimator = flow.decoder.estimator
        assert isinstance(estimator, ConditionalUNet)
        assert estimator.final_proj.bias is not None
        if mean_mel is not None:
            estimator.final_proj.bias.copy_(mean_mel)
    return flow


def scheduled(time: Tensor) -> Tensor:
    """Uniform numbers to times of the flow, of which the solver visits the early ones more often."""
    return 1 - torch.cos(time * (0.5 * math.pi))


Conditions = tuple[Tensor, Tensor, Tensor]


def conditions(flow: Flow, batch: FlowBatch, frames: Frames) -> Conditions:
    """mu (B, 80, 2 T), speaker (B, 80) and the prompt's mel followed by zeros (B, 80, 2 T)."""
    mu, _ = flow.condition(batch.tokens, frames, batch.context, batch.final)
    speaker = flow.spk_embed_affine_layer(batch.speaker)
    place = torch.arange(batch.mel.shape[1], device=batch.mel.device)
    given = place < batch.prompt_frames[:, None]
    return mu, speaker, (batch.mel * given[:, :, None]).transpose(1, 2)


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What the estimator is asked in training: the velocity at `x`, where the straight one is `wanted`.

    x, wanted: (B, 2 T, 80); time: (B,) of the flow
    """

    x: Tensor
    wanted: Tensor
    time: Tensor

    @classmethod
    def of(cls, batch: FlowBatch, sigma_min: float) -> Question:
        time = scheduled(batch.time)
        t = time[:, None, None]
        x = (1 - (1 - sigma_min) * t) * batch.noise + t * batch.mel
        return cls(x, batch.mel - (1 - sigma_min) * batch.noise, time)


def velocity(flow: Flow, question: Question, frames: Frames, given: Conditions, kept: Tensor) -> Tensor:
    """(B, 2 T, 80) float32, the estimator's answer.

    frames: at the token rate, as for `conditions`
    kept: (B,) bool, rows that are told the conditions; the others follow nothing
    """
    mu, speaker, prompt = given
    told = kept.to(question.x.dtype)
    answer, _ = flow.decoder.estimator(
        question.x.transpose(1, 2),
        mu * told[:, None, None],
        question.time,
        speaker * told[:, None],
        prompt * told[:, None, None],
        frames.scaled(flow.cfg.token_mel_ratio),
    )
    out: Tensor = answer.float().transpose(1, 2)
    return out


def objective(flow: Flow, settings: FlowSettings) -> Objective:
    """The mean square (or absolute) error of the velocity, and of the mel that it is led by. Inputs: of a FlowBatch.

    In guided batches the flow learns to answer at once what the solver would otherwise get from two answers,
    (1 + w) with and -w without conditions. Its own difference between them is added to what is wanted: with the
    share s = w / (1 + w) of it, the answer v settles where v = wanted + s (v - v0), that is at
    wanted + w (wanted - v0).

    `mean` is how far what the estimator follows is from the mel itself: the encoder hears of it at once, and not only
    through an estimator that does not listen yet.
    """
    share = settings.guidance / (1 + settings.guidance)

    def losses(kind: Hashable, inputs: Sequence[Tensor]) -> Losses:
        assert isinstance(kind, RowKind)
        batch = FlowBatch(*inputs)
        frames = FullRows.of(len(batch.tokens), kind.num_tokens, flow.chunk_size if kind.streaming else 0)
        question = Question.of(batch, settings.sigma_min)
        wanted, kept = question.wanted, ~batch.dropped
        with autocast(batch.mel.device):
            given = conditions(flow, batch, frames)
            answer = velocity(flow, question, frames, given, kept)
            if kind.guided:
                with torch.no_grad():
                    alone = velocity(flow, question, frames, given, torch.zeros_like(kept))
                wanted = wanted + share * (answer.detach() - alone) * kept[:, None, None]
        error = answer - wanted
        velocity_loss = error.square().mean() if settings.squared else error.abs().mean()
        mean_loss = (given[0].float().transpose(1, 2) - batch.mel).abs().mean()
        return {
            "loss": velocity_loss + settings.weight_mean * mean_loss,
            "velocity": velocity_loss.detach(),
            "mean": mean_loss.detach(),
        }

    return losses
