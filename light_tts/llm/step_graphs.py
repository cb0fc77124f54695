"""CUDA graphs of the device step, one for each padded number of rows."""

from __future__ import annotations

import logging
import time
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from light_tts.kernels.flash_prefill import BLOCK_Q, PackedPrompts
from light_tts.llm.device_step import DeviceStep, Prompts

logger = logging.getLogger(__name__)

_PROMPT_BUCKETS = (64, 128, 256, 512, 1024, 2048)
_MAX_PROMPTS = 16  # that are complete in one graph of prompts


def padded_sizes(max_rows: int) -> list[int]:
    """1, 2, 4, then multiples of 8 up to the first that holds `max_rows`."""
    sizes = [size for size in (1, 2, 4) if size < max_rows]
    return [*sizes, *range(8, max_rows + 8, 8)] if max_rows > 4 else [*sizes, max_rows]


class StepRunner:
    """Runs a DeviceStep, in graphs where `capture` was called."""

    def __init__(self, step: DeviceStep, max_rows: int) -> None:
        self._step = step
        self._sizes = padded_sizes(max_rows)
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._prompts: dict[int, _PromptGraph] = {}
        # One for all graphs: memory, and the matrix library's own, is only shared within a stream.
        self._side: torch.cuda.Stream | None = None

    @property
    def num_graphs(self) -> int:
        return len(self._graphs) + len(self._prompts)

    def decode(self, num_rows: int) -> None:
        """The first `num_rows` rows, and as many more as fill it up; `row_seat` must give those to nobody."""
        size = self._sizes[bisect_left(self._sizes, num_rows)]
        if graph := self._graphs.get(size):
            graph.replay()
        else:
            self._step.decode(size if self._graphs else num_rows)

    def prefill(self, prompts: Prompts) -> Tensor:
        num_tokens = len(prompts.ids)
        for size, graph in self._prompts.items():
            if size >= num_tokens and len(prompts.row_seat) <= _MAX_PROMPTS:
                if len(prompts.packed.blocks) <= graph.max_blocks:
                    return graph.replay(prompts)
                break
        return self._step.prefill(prompts)

    @torch.inference_mode()
    def capture_only(self, num_rows: int) -> None:
        """Capture the step for this number of rows, as it is or padded."""
        size = self._sizes[bisect_left(self._sizes, num_rows)]
        self._step.row_seat.fill_(self._step.num_seats)
        self._graphs[size] = _captured(
            lambda: self._step.decode(size), torch.cuda.graph_pool_handle(), self._capture_stream()
        )

    def _capture_stream(self) -> torch.cuda.Stream:
        if self._side is None:
            self._side = torch.cuda.Stream(self._step.device)  # type: ignore[no-untyped-call]
        return self._side

    @torch.inference_mode()
    def capture(self, log: Callable[[str], None] = logger.info, *, prompts: bool = True) -> None:
        """Capture all graphs; no sequence may be running. Kernels are compiled on the way."""
        begin_s, pool = time.monotonic(), torch.cuda.graph_pool_handle()
        side = self._capture_stream()
        self._step.row_seat.fill_(self._step.num_seats)
        for done, size in enumerate(
            reversed(self._sizes)
        ):  # the largest first: the others fit into its memory
            self._graphs[size] = _captured(lambda size=size: self._step.decode(size), pool, side)  # type: ignore[misc]
            if done % 4 == 0:
                log(f"captured the step for {size} rows, {time.monotonic() - begin_s:.1f} s")
        for size in reversed(_PROMPT_BUCKETS) if prompts else ():
            self._prompts[size] = _PromptGraph(self._step, size, pool, side)
        self._prompts = dict(sorted(self._prompts.items()))
        log(f"captured {self.num_graphs} graphs in {time.monotonic() - begin_s:.1f} s")


class _PromptGraph:
    """A forward over `size` prompt tokens; those that are not there are stored in the scratch slot, for nobody."""

    def __init__(self, step: DeviceStep, size: int, pool: Any, side: torch.cuda.Stream) -> None:
        self.max_blocks = size // BLOCK_Q + _MAX_PROMPTS
        shapes = {
            "ids": (size,),
            "positions": (size,),
            "slots": (size,),
            "sequences": (self.max_blocks, 4),
            "blocks": (self.max_blocks, 2),
            "last_rows": (_MAX_PROMPTS,),
            "row_seat": (_MAX_PROMPTS,),
        }
        total = sum(int(np.prod(shape)) for shape in shapes.values())
        self._joint = torch.zeros(total, dtype=torch.int32, device=step.device)
        self._parts: dict[str, Tensor] = {}
        at = 0
        for name, shape in shapes.items():
            count = int(np.prod(shape))
            self._parts[name] = self._joint[at : at + count].view(shape)
            at += count
        self._parts["slots"].fill_(step.scratch_slot)
        self._parts["row_seat"].fill_(step.num_seats)
        p = self._parts
        packed = PackedPrompts((), p["positions"], p["slots"], p["sequences"], p["blocks"])
        self._prompts = Prompts(packed, p["ids"], p["last_rows"], p["row_seat"])
        self._idle = self._joint.clone()

        def run() -> None:
            self._tokens = step.prefill(self._prompts)

        self._graph = _captured(run, pool, side)

    def replay(self, prompts: Prompts) -> Tensor:
        self._joint.copy_(self._idle)
        packed = prompts.packed
        for name, part in (
            ("ids", prompts.ids),
            ("positions", packed.positions),
            ("slots", packed.slots),
            ("sequences", packed.sequences),
            ("blocks", packed.blocks),
            ("last_rows", prompts.last_rows),
            ("row_seat", prompts.row_seat),
        ):
            self._parts[name][: len(part)].copy_(part)
        # Blocks that are not there belong to a sequence without rows.
        self._parts["blocks"][len(packed.blocks) :].fill_(self.max_blocks - 1)
        self._graph.replay()
        return self._tokens[: len(prompts.row_seat)]


def _captured(run: Callable[[], None], pool: Any, side: torch.cuda.Stream) -> torch.cuda.CUDAGraph:
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):  # compiles kernels, and lets libraries choose theirs
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool, stream=side):
        run()
    return graph
