"""What the solver needs of an estimator, whichever it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from light_tts.models.flow.fast.binding import Binding

VelocityAt = Callable[[Tensor, int], Tensor]
"""x (R, T, mel) half and the number of the step, to the velocity (R * T, mel) half; undefined on right padding."""


@dataclass(frozen=True, slots=True)
class TailShape:
    """A causal convolution's left context: `length` frames of `channels`, at each step or the same at all."""

    length: int
    channels: int
    each_step: bool


class FastEstimator(ABC):
    """tails: per convolution, in the order of the forward pass; heads * head_dim = inner"""

    mel: int
    heads: int
    inner: int
    num_attentions: int
    tails: tuple[TailShape, ...]

    @abstractmethod
    def bind(self, mu: Tensor, spks: Tensor, cond: Tensor, binding: Binding) -> VelocityAt:
        """All inputs fixed but x and the step. mu, cond: (R, T, mel) half; spks: (R, mel)."""
