from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

import pytest
import torch

from light_tts.kernels.suite import KERNELS, KernelSuite
from light_tts.llm import plan_search, tuned_plan
from light_tts.llm.packed_weights import PackedWeights
from light_tts.llm.step_graphs import padded_sizes
from light_tts.llm.step_plan import MAX_FUSED_ROWS, StepPlan, default_plan
from test.support.random_lm import random_lm


def test_graphs_are_for_few_sizes_that_waste_little() -> None:
    assert padded_sizes(1) == [1]
    assert padded_sizes(3) == [1, 2, 3]
    assert padded_sizes(4) == [1, 2, 4]
    assert padded_sizes(50) == [1, 2, 4, 8, 16, 24, 32, 40, 48, 56]
    assert padded_sizes(64)[-2:] == [56, 64]


@pytest.mark.parametrize("num_rows", [1, 16, 17, 33, 64, 65, 128])
def test_usual_tiles_hold_all_rows_at_once(num_rows: int) -> None:
    plan = default_plan(num_rows)
    assert plan is not None
    assert all(tiles[0] >= num_rows for tiles in astuple(plan))
    assert plan.gate_up.split == 1
    assert default_plan(MAX_FUSED_ROWS + 1) is None


def test_the_fastest_of_what_was_measured_becomes_the_plan_and_comes_back_from_disk(tmp_path: Path) -> None:
    model = random_lm(hidden_size=96, heads=6)
    weights, times = PackedWeights.of(model, 16), iter(range(1000, 0, -1))

    def measure(run: Callable[[], None]) -> float:
        run()
        return float(next(times))

    plan, measured = plan_search.search(weights, 3, KernelSuite(), 60.0, measure)
    for operation in plan_search.OPERATIONS:
        tried = plan_search.candidates(operation, getattr(default_plan(3), operation))
        assert tried[0] == getattr(default_plan(3), operation)
        assert len(set(tried)) == len(tried) == len(measured[operation])
        assert getattr(plan, operation) == tried[-1], "each is faster than the one before"
    path = tmp_path / "cache" / "plans.json"
    assert tuned_plan.load(path) is None
    tuned_plan.save(tuned_plan.TunedPlans({4: plan, 8: None}), path)
    held = tuned_plan.load(path)
    assert held is not None
    assert held(3) == plan
    assert held(8) is None
    assert isinstance(held(9), StepPlan)
    path.write_text("{}")
    assert tuned_plan.load(path) is None


def test_a_kernel_that_there_is_not_cannot_be_left_out_by_mistake() -> None:
    with pytest.raises(ValueError, match="flash_decod'"):
        KernelSuite(frozenset({"flash_decod"}))
    assert KernelSuite(KERNELS).without("sample").fast == KERNELS - {"sample"}
    assert KernelSuite.best(torch.device("cpu"), torch.float16).fast == frozenset()
