"""The device's sampling on the host: for sequences that step synchronously, and to compare with."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import torch
from torch import Tensor

from light_tts.kernels.philox import waiting_times
from light_tts.llm.request import SamplingParams
from light_tts.llm.sampler import nucleus
from light_tts.llm.sequence import Constraint


class PhiloxSampler:
    """A `Picker` that draws what `kernels.sample` draws from the same scores, seed and history."""

    def __init__(self, params: SamplingParams) -> None:
        self._params = params
        seed = secrets.randbits(63) if params.seed is None else params.seed
        self._seed = torch.tensor(seed & 0xFFFFFFFF), torch.tensor(seed >> 32)

    def pick(self, scores: Tensor, history: Sequence[int], constraint: Constraint) -> int:
        for banned in constraint.banned:
            scores[banned] = -torch.inf
        scores = scores / self._params.temperature
        params, draw = self._params, len(history)
        ids, _ = nucleus(scores.softmax(dim=0), params.top_p, params.top_k)
        token = int(ids[self._race(scores[ids], ids, draw, 0)])
        if history[-params.win_size :].count(token) < params.win_size * params.tau_r:
            return token
        scores[token] = -torch.inf
        return self._race(scores, torch.arange(len(scores)), draw, 1)

    def _race(self, scores: Tensor, ids: Tensor, draw: int, attempt: int) -> int:
        waits = waiting_times(ids, torch.tensor(draw), attempt, *self._seed)
        return int((scores - waits.log()).argmax())
