"""Work of fixed shapes recorded once as CUDA graphs and replayed; elsewhere simply done."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

I = TypeVar("I")  # noqa: E741  # the inputs of one kind of work


@dataclass(slots=True)
class _Recorded(Generic[I]):
    inputs: I
    graph: torch.cuda.CUDAGraph
    outputs: tuple[Tensor, ...]


class Graphs(Generic[I]):
    """At most `limit` graphs, the least recently used go first. All work of one object is done in order on one stream,
    whoever asks for it: inputs and intermediate results of all graphs share their memory.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        record: bool = True,
        limit: int = 200,
        recording: threading.Lock | None = None,
    ) -> None:
        """recording: held while a graph is recorded; to be shared by all of a process"""
        self._device = device
        self._recording = recording or threading.Lock()
        self._record = record and device.type == "cuda"
        self._limit = limit
        self._known: OrderedDict[Hashable, _Recorded[I]] = OrderedDict()
        self._lock = threading.RLock()
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)
            self._memory = torch.cuda.graph_pool_handle()
            self._outside = torch.cuda.current_stream(device)

    def __len__(self) -> int:
        return len(self._known)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One caller at a time, behind what its own stream has to do, which in turn waits for it."""
        with self._lock:
            if self._stream is None:
                yield
                return
            outside = torch.cuda.current_stream(self._device)
            if outside == self._stream:
                yield
                return
            self._outside = outside
            self._stream.wait_stream(outside)
            try:
                with torch.cuda.stream(self._stream):
                    yield
            finally:  # also after a failure: what the caller frees then may still be read here
                outside.wait_stream(self._stream)

    def run(
        self,
        key: Hashable,
        make: Callable[[], I],
        fill: Callable[[I], None],
        work: Callable[[I], tuple[Tensor, ...]],
    ) -> tuple[Tensor, ...]:
        """`work` on inputs that `make` allocates and `fill` sets; in a `turn`. The results are the caller's.

        work: must do the same for every call with this key, may be done twice, and copies nothing from the CPU
        """
        if not self._record:
            inputs = make()
            fill(inputs)
            return work(inputs)
        known = self._known.get(key)
        if known is None:
            inputs = make()
            fill(inputs)
            known = self._known[key] = self._recorded(inputs, work)
        else:
            fill(known.inputs)
        self._known.move_to_end(key)
        known.graph.replay()
        results = tuple(output.clone() for output in known.outputs)
        for result in results:
            result.record_stream(self._outside)
        return results

    def _recorded(self, inputs: I, work: Callable[[I], tuple[Tensor, ...]]) -> _Recorded[I]:
        while len(self._known) >= self._limit:
            self._known.popitem(last=False)
        work(inputs)  # compiles kernels and fills caches
        assert self._stream is not None
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        own = torch.cuda.graph(
            graph,
            pool=self._memory,
            stream=self._stream,
            capture_error_mode="thread_local",
        )
        with self._recording, own:
            outputs = work(inputs)
        return _Recorded(inputs, graph, outputs)
