"""Measures which tiles are fastest for the step's products on this GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import astuple
from functools import partial
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from light_tts.kernels.lang import is_out_of_resources
from light_tts.kernels.skinny_linear import Tiles
from light_tts.kernels.suite import KernelSuite
from light_tts.kernels.workspace import Workspace
from light_tts.llm.packed_weights import PackedWeights
from light_tts.llm.step_plan import MAX_FUSED_ROWS, StepPlan, default_plan

_REPLAYS = 8
MAX_CANDIDATES = 14
OPERATIONS = ("qkv", "out", "gate_up", "down", "head")

Measure = Callable[[Callable[[], None]], float]


def candidates(operation: str, usual: Tiles) -> list[Tiles]:
    """The usual tiles, then what differs from them in one way, then in two."""
    splits = {"out": (1, 2, 4), "down": (2, 4, 8, 16)}.get(operation, (1,))
    heights = {usual.block_m, 64} if usual.block_m > 64 else {usual.block_m}
    choices = product(sorted(heights), (16, 32, 64), (128, 64, 256), splits, (4, 2, 8), (4, 3, 5, 2))
    tiles = [Tiles(*choice) for choice in choices]
    fitting = [one for one in tiles if _fits(one, operation)]
    fitting.sort(key=lambda one: sum(a != b for a, b in zip(astuple(one), astuple(usual), strict=True)))
    return fitting[:MAX_CANDIDATES]


def _fits(tiles: Tiles, operation: str) -> bool:
    """In a multiprocessor's shared memory."""
    weights = tiles.block_n * (2 if operation == "gate_up" else 1)
    return (tiles.block_m + weights) * tiles.block_k * 2 * tiles.num_stages <= 200 * 1024


def runs(weights: PackedWeights, operation: str, num_rows: int) -> Callable[[Tiles, KernelSuite], None]:
    """Runs one operation with the weights of all layers in turn, so that none is found in a cache."""
    device, dtype = weights.head.device, weights.head.dtype
    first = weights.layers[0]
    depth = {"down": first.down.shape[1], "out": first.out.shape[1]}.get(operation, first.qkv.shape[1])
    x = torch.randn(num_rows, depth, device=device).to(dtype)
    residual = torch.randn(num_rows, len(first.out), device=device).to(dtype)
    squares = residual.float().square().sum(dim=-1).expand(28, -1).contiguous() / 28
    workspace = Workspace.on(device, 1 << 22, 1 << 14)

    def run(tiles: Tiles, suite: KernelSuite) -> None:
        if operation == "head":
            out = torch.empty((num_rows, len(weights.head)), device=device)
            _product(suite, x, weights.head, out, tiles, workspace, weights, squares, weights.head_bias)
            return
        for layer in weights.layers:
            if operation in ("out", "down"):
                weight = layer.out if operation == "out" else layer.down
                sums = torch.empty((-(-len(weight) // tiles.block_n), num_rows), device=device)
                suite.skinny_linear(x, weight, residual, tiles=tiles, workspace=workspace, out_squares=sums)
                continue
            gated = operation == "gate_up"
            weight = layer.gate_up if gated else layer.qkv
            out = torch.empty((num_rows, len(weight) // (2 if gated else 1)), device=device, dtype=dtype)
            bias = None if gated else layer.qkv_bias
            _product(suite, x, weight, out, tiles, workspace, weights, squares, bias)

    return run


def _product(
    suite: KernelSuite,
    x: Tensor,
    weight: Tensor,
    out: Tensor,
    tiles: Tiles,
    workspace: Workspace,
    weights: PackedWeights,
    squares: Tensor,
    bias: Tensor | None,
) -> None:
    gated = out.shape[1] != len(weight)
    suite.skinny_linear(
        x,
        weight,
        out,
        tiles=tiles,
        workspace=workspace,
        bias=bias,
        squares=squares,
        eps=weights.eps,
        gated=gated,
    )


def library(weights: PackedWeights, operation: str, num_rows: int) -> Callable[[], None]:
    """The library's product alone, without what the fused one does beside it."""
    device, dtype = weights.head.device, weights.head.dtype
    held = [weights.head] if operation == "head" else [getattr(layer, operation) for layer in weights.layers]
    x = torch.randn(num_rows, held[0].shape[1], device=device).to(dtype)

    def run() -> None:
        for weight in held:
            F.linear(x, weight)

    return run


def graph_ms(run: Callable[[], None]) -> float:
    """Of one replay of a graph, in milliseconds: the median of several."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
        side.synchronize()
        graph = torch.cuda.CUDAGraph()
        graph.capture_begin()  # not `torch.cuda.graph`, which tidies up all memory first
        run()
        graph.capture_end()
    torch.cuda.current_stream().wait_stream(side)
    times = []
    for _ in range(_REPLAYS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(float(begin.elapsed_time(end)))
    return sorted(times)[len(times) // 2]


@torch.inference_mode()
def search(
    weights: PackedWeights, num_rows: int, suite: KernelSuite, budget_s: float, measure: Measure = graph_ms
) -> tuple[StepPlan, dict[str, list[tuple[float, Tiles]]]]:
    """The fastest plan found in that time, and what was measured: by operation, milliseconds for all layers."""
    usual = default_plan(num_rows)
    if usual is None:
        raise ValueError(f"num_rows is {num_rows}, limit {MAX_FUSED_ROWS}")
    measured: dict[str, list[tuple[float, Tiles]]] = {}
    for operation in OPERATIONS:
        stop_s = time.monotonic() + budget_s / len(OPERATIONS)
        run = runs(weights, operation, num_rows)
        found = measured.setdefault(operation, [])
        for tiles in candidates(operation, getattr(usual, operation)):
            if found and time.monotonic() > stop_s:
                break
            try:
                found.append((measure(partial(run, tiles, suite)), tiles))
            except Exception as error:
                if not is_out_of_resources(error):
                    raise
        found.sort(key=lambda pair: pair[0])
    return StepPlan(*(measured[operation][0][1] for operation in OPERATIONS)), measured
