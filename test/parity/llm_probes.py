"""What the `llm` stage puts into the engine to see what happens there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from light_tts.llm.sequence import Constraint
from light_tts.models.config import SpeechLMConfig
from light_tts.models.kv_cache import ForwardBatch
from light_tts.models.speech_lm import SpeechLM


@dataclass(slots=True)
class Greedy:
    """A picker: the most probable speech token unless the recording forced another. Notes what it saw."""

    cfg: SpeechLMConfig
    plan: dict[str, int] = field(default_factory=dict)
    num_final: int | None = None
    log_probs: list[Tensor] = field(default_factory=list)
    sampled: list[int] = field(default_factory=list)
    ignore_eos: list[bool] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)

    def pick(self, scores: Tensor, history: Sequence[int], constraint: Constraint) -> int:
        top = scores[: self.cfg.speech_token_size].topk(2)
        token = int(top.indices[0])
        if self.num_final is not None and self.num_final == self.ignore_eos.count(False):
            token = self.cfg.eos_id
        forced = self.plan.get(str(len(self.sampled)))
        if forced is not None:
            token = forced
        if token < self.cfg.speech_token_size:
            self.margins.append(float(top.values[0] - top.values[1]))
        self.log_probs.append(scores.clone())
        self.sampled.append(token)
        self.ignore_eos.append(constraint.ignore_eos)
        return token

    @property
    def chosen_logp(self) -> Tensor:
        return torch.stack([row[token] for row, token in zip(self.log_probs, self.sampled, strict=True)])


@dataclass(slots=True)
class Trace:
    """What went through the model, by forward; hidden: of the first alone, all its rows."""

    inputs: list[Tensor] = field(default_factory=list)
    batches: list[ForwardBatch] = field(default_factory=list)
    hidden: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)

    def attach(self, model: SpeechLM) -> list[torch.utils.hooks.RemovableHandle]:
        return [model.register_forward_hook(self._on_model)]

    def _on_model(
        self, model: nn.Module, args: tuple[Tensor, ForwardBatch, object, list[int]], output: Tensor
    ) -> None:
        assert isinstance(model, SpeechLM)
        inputs, batch, _, _ = args
        self.inputs.append(inputs.clone())
        self.batches.append(batch)
        self.logits.append(model.logits(output))
        if not self.hidden:
            # The engine asks for the last row, the recording has them all.
            whole = model.forward(inputs, batch, model.new_cache(int(batch.slots.max()) + 1))
            self.hidden.append(whole)
