"""The choice of tiles, as a part of the check."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

import torch

from light_tts.kernels import lang
from light_tts.kernels.suite import KernelSuite
from light_tts.llm import plan_search, tuned_plan
from light_tts.llm.device_step import Plan
from light_tts.llm.packed_weights import PackedWeights
from light_tts.llm.step_plan import StepPlan, default_plan
from test.gpu.llm_parts import Result, Setting, no_plan, random_model

ROWS = (1, 16, 32, 64, 104)


def interpreted() -> bool:
    return lang.can_run(torch.device("cpu"))


@torch.inference_mode()
def tune(setting: Setting, path: Path, budget_s: float) -> Result:
    """Writes the best plans; returns milliseconds a step by operation: usual, best and library."""
    dtype = torch.float16 if setting.on_gpu else torch.float32
    weights = PackedWeights.of(random_model(setting, dtype), 64)
    sizes = ROWS if setting.on_gpu else ROWS[:1]
    plans: dict[int, StepPlan | None] = {}
    result: Result = {}
    for rows in sizes:
        measure = plan_search.graph_ms if setting.on_gpu else _wall_ms
        suite = KernelSuite(setting.fast)
        plans[rows], measured = plan_search.search(weights, rows, suite, budget_s / len(sizes), measure)
        usual = default_plan(rows)
        for operation in plan_search.OPERATIONS:
            found = measured[operation]
            first = next(ms for ms, tiles in found if tiles == getattr(usual, operation))
            lib = measure(plan_search.library(weights, operation, rows))
            best = found[0]
            text = (
                f"usual {first:.4f}, best {best[0]:.4f} of {len(found)} {astuple(best[1])}, library {lib:.4f}"
            )
            result[f"{rows} rows, {operation}"] = text
        tuned_plan.save(tuned_plan.TunedPlans(dict(plans)), path)
    return result


@torch.inference_mode()
def warm(setting: Setting, index: int, count: int) -> Result:
    """Compiles a share of what the search and the plans run, each in half precision once; Triton keeps it on disk."""
    weights = PackedWeights.of(random_model(setting, torch.float16, layers=1), 64)
    compiled, number, failed = 0, 0, list[str]()
    for rows in ROWS:
        for operation in plan_search.OPERATIONS:
            run = plan_search.runs(weights, operation, rows)
            for place, tiles in enumerate(
                plan_search.candidates(operation, getattr(default_plan(rows), operation))
            ):
                for pdl in (0, 1, 2) if place == 0 else (0,):
                    number += 1
                    if number % count != index:
                        continue
                    try:
                        run(tiles, KernelSuite(setting.fast, pdl))
                        compiled += 1
                    except Exception as error:
                        if not lang.is_out_of_resources(error):
                            failed.append(
                                f"{operation} {astuple(tiles)} {type(error).__name__} {error}"[:200]
                            )
    return {"compiled": compiled, "failed": failed}


def _wall_ms(run: Callable[[], None]) -> float:
    begin_s = time.perf_counter()
    run()
    return (time.perf_counter() - begin_s) * 1e3


def plans(path: Path, *, overlapping: bool) -> dict[str, tuple[Plan, int]]:
    """By name, the best last: a plan, and how kernels overlap."""
    chosen: dict[str, tuple[Plan, int]] = {
        "library products": (no_plan, 0),
        "fused": (default_plan, False),
    }
    if overlapping:
        chosen["fused, overlapping"] = (default_plan, 1)
        chosen["fused, prefetching"] = (default_plan, 2)
    if tuned := tuned_plan.load(path):
        chosen["tuned"] = (tuned, 0)
        if overlapping:
            chosen["tuned, prefetching"] = (tuned, 2)
    return chosen
