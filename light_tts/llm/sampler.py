"""Repetition-aware sampling, one random stream per sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from light_tts.llm.request import SamplingParams
from light_tts.llm.sequence import Constraint

Draw = Callable[[Tensor], int]
"""Picks an index of (n,) float32 probabilities, which need not sum to one."""


class Picker(Protocol):
    def pick(self, scores: Tensor, history: Sequence[int], constraint: Constraint) -> int:
        """The next token. scores: (num_ids,) float32 log-probabilities on the CPU, free to be overwritten."""


class RasSampler:
    """The sampler of one sequence. The same seed gives the same tokens whatever else is in the batch."""

    def __init__(self, params: SamplingParams) -> None:
        self._params = params
        generator = torch.Generator()
        if params.seed is None:
            generator.seed()
        else:
            generator.manual_seed(params.seed)
        self._draw = torch_draw(generator)

    def pick(self, scores: Tensor, history: Sequence[int], constraint: Constraint) -> int:
        for ids in constraint.banned:
            scores[ids] = -torch.inf
        if self._params.temperature != 1.0:
            scores = scores / self._params.temperature
        return ras_sample(scores, history, self._params, self._draw)


def torch_draw(generator: torch.Generator) -> Draw:
    """`torch.multinomial` to the last bit, without its checks: not by inverse CDF, and it uses up a number of
    `generator` per probability.
    """

    def draw(probabilities: Tensor) -> int:
        waits = torch.empty_like(probabilities).exponential_(1, generator=generator)
        return int(torch.div(probabilities, waits, out=waits).argmax())

    return draw


def ras_sample(scores: Tensor, history: Sequence[int], params: SamplingParams, draw: Draw) -> int:
    """Draw from the nucleus; if that id was used recently, mask it and draw from all the others.

    scores: (num_ids,) float32 log-probabilities; the masked id becomes -inf in place
    history: ids drawn so far, newest last
    """
    ids, probabilities = nucleus(scores.softmax(dim=0), params.top_p, params.top_k)
    token = int(ids[draw(probabilities)])
    if history[-params.win_size :].count(token) < params.win_size * params.tau_r:
        return token
    scores[token] = -torch.inf
    return draw(scores.softmax(dim=0))


def nucleus(probabilities: Tensor, top_p: float, top_k: int) -> tuple[Tensor, Tensor]:
    """The most probable ids until their mass reaches `top_p` or their number `top_k`.

    probabilities: (num_ids,) float32
    Returns ids and their probabilities, both (n,) with n >= 1, most probable first, then by id.
    """
    numbers = probabilities.numpy()  # for so few numbers numpy's operators take half the time of torch's
    top_k = min(top_k, len(numbers))
    # A partition leaves the order of equals open, so it only finds the limit; the sort of what reaches it is stable.
    limit = np.partition(numbers, -top_k)[-top_k]
    ids = np.flatnonzero(numbers >= limit)
    ids = ids[np.argsort(-numbers[ids], kind="stable")[:top_k]]
    values = numbers[ids]
    # One by one in float32, as the reference does: ties with top_p then fall the same way.
    mass = np.cumsum(values, dtype=np.float32)
    count = 1 + int((mass[:-1] < np.float32(top_p)).sum())
    return torch.from_numpy(ids[:count]), torch.from_numpy(values[:count])
