"""Parity of repetition-aware sampling: recording `ras`, part of the `llm` stage."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from light_tts.llm.request import SamplingParams
from light_tts.llm.sampler import Draw, RasSampler, nucleus, ras_sample, torch_draw
from light_tts.llm.sequence import Constraint
from test.parity.recording import Recording
from test.parity.report import Report

PROBABILITY = 1e-6


class _Inverse:
    """Draws by inverse CDF from recorded uniforms, in float64; notes what it was given."""

    def __init__(self, uniforms: list[float]) -> None:
        self.uniforms = uniforms
        self.given: list[Tensor] = []
        self.picks: list[int] = []

    def __call__(self, probabilities: Tensor) -> int:
        uniform = self.uniforms[len(self.picks)]
        cumulative = (probabilities.double() / probabilities.double().sum()).cumsum(0)
        self.given.append(probabilities.clone())
        self.picks.append(int((cumulative <= uniform).sum()))
        return self.picks[-1]


def check_ras(recording: Recording, report: Report) -> Recording:
    cases = recording.meta("cases")
    names = [f"logp{case['case']:02d}" for case in cases]
    report.equal("ras", "tensors", recording.tensor_names, names)
    for name, case in zip(names, cases, strict=True):
        params = SamplingParams(**case["kwargs"])
        _check_inverse(name, case, recording.tensor(name), params, report)
        _check_torch(name, case, recording.tensor(name), params, report)
    return recording


def _check_inverse(
    name: str, case: dict[str, Any], scores: Tensor, params: SamplingParams, report: Report
) -> None:
    draw = _Inverse(case["uniforms"])
    choice = ras_sample(scores.clone(), case["history"], params, draw)
    recorded = case["draws"]
    report.equal(f"ras {name}", "choice", choice, case["choice"])
    report.equal(f"ras {name}", "fell_back", len(draw.picks) == 2, case["fell_back"])
    report.equal(f"ras {name}", "draws.n", [len(given) for given in draw.given], [d["n"] for d in recorded])
    report.equal(f"ras {name}", "draws.pick", draw.picks, [d["pick"] for d in recorded])
    used = draw.uniforms[: len(draw.picks)]
    report.equal(f"ras {name}", "draws.u", used, [d["u"] for d in recorded])
    top = torch.cat([given[:5] for given in draw.given])
    expected = torch.tensor([p for d in recorded for p in d["p_top5"]])
    report.close(f"ras {name}", "draws.p_top5", top, expected, PROBABILITY)


def _check_torch(
    name: str, case: dict[str, Any], scores: Tensor, params: SamplingParams, report: Report
) -> None:
    """With torch's generator: once through the sampler of the product, once with an eye on the first draw."""
    seeded = SamplingParams(**{**case["kwargs"], "seed": case["torch_seed"]})
    left = scores.clone()
    choice = RasSampler(seeded).pick(left, case["history"], Constraint())
    report.equal(f"ras {name}", "torch_choice", choice, case["torch_choice"])
    masked = left.isneginf().nonzero()[:, 0]
    report.equal(f"ras {name}", "masked_after", masked, case["masked_after"])
    draw: Draw = torch_draw(torch.Generator().manual_seed(case["torch_seed"]))
    ids, probabilities = nucleus(scores.softmax(dim=0), params.top_p, params.top_k)
    first = int(ids[draw(probabilities)])
    report.equal(f"ras {name}", "torch_nucleus_choice", first, case["torch_nucleus_choice"])
