"""Gradients of a step, on CUDA recorded once for each kind of batch and then replayed as one launch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

_EAGER_STEPS = 2  # of each kind before it is recorded: tables are made and libraries choose their kernels

Losses = dict[str, Tensor]
Objective = Callable[[Hashable, Sequence[Tensor]], Losses]
"""The losses of a batch of some kind; the one named "loss" is minimised. It must not wait for the device, and
whatever differs between batches of a kind must be in their tensors."""
Placed = list[tuple[nn.Parameter, Tensor]]
"""Gradients, and the parameters that they belong to."""


@dataclass(frozen=True, slots=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    losses: Losses
    gradients: Placed


class Gradients:
    """Computes losses and puts gradients on the parameters; the optimizer's step is somebody else's.

    The recordings share their memory, of which the largest kind decides the size. Where recording fails,
    training goes on without.
    """

    def __init__(
        self,
        objective: Objective,
        parameters: Sequence[nn.Parameter],
        record: bool,
        differentiate: Callable[[Losses], Placed] | None = None,
    ) -> None:
        """record: on CUDA; elsewhere it has no effect. differentiate: where parts minimise different losses"""
        self._objective = objective
        self._differentiate = differentiate or self._of_one_loss
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._record = record and all(parameter.is_cuda for parameter in self._parameters)
        self._recordings: dict[Hashable, _Recording] = {}
        self._seen: dict[Hashable, int] = {}

    def __call__(self, kind: Hashable, inputs: Sequence[Tensor]) -> Losses:
        """kind: decides the shapes of `inputs` and the path through the objective"""
        if not self._record:
            return self._compute(kind, inputs)[0]
        seen = self._seen[kind] = self._seen.get(kind, 0) + 1
        if seen <= _EAGER_STEPS:
            return self._aside(kind, inputs)
        if kind not in self._recordings and not self._make(kind, inputs):
            return self._compute(kind, inputs)[0]
        recording = self._recordings[kind]
        torch._foreach_copy_(recording.inputs, list(inputs))
        recording.graph.replay()
        self._put(recording.gradients)
        # The next recording to be replayed may overwrite these.
        return {name: loss.clone() for name, loss in recording.losses.items()}

    def _compute(self, kind: Hashable, inputs: Sequence[Tensor]) -> tuple[Losses, Placed]:
        losses = self._objective(kind, inputs)
        gradients = [(parameter, _laid_out(parameter, g)) for parameter, g in self._differentiate(losses)]
        self._put(gradients)
        return {name: loss.detach() for name, loss in losses.items()}, gradients

    def _of_one_loss(self, losses: Losses) -> Placed:
        gradients = torch.autograd.grad(losses["loss"], self._parameters)
        return list(zip(self._parameters, gradients, strict=True))

    @staticmethod
    def _put(gradients: Placed) -> None:
        for parameter, gradient in gradients:
            parameter.grad = gradient

    def _aside(self, kind: Hashable, inputs: Sequence[Tensor]) -> Losses:
        """On another stream, as recordings want what precedes them."""
        stream = torch.cuda.Stream(self._parameters[0].device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            losses, _ = self._compute(kind, inputs)
        torch.cuda.current_stream().wait_stream(stream)
        return losses

    def _make(self, kind: Hashable, inputs: Sequence[Tensor]) -> bool:
        """Recording computes nothing: the batch's own step is the first replay."""
        own = [tensor.clone() for tensor in inputs]
        graph = torch.cuda.CUDAGraph()
        pool = next((known.graph.pool() for known in self._recordings.values()), None)
        try:
            with torch.cuda.graph(graph, pool=pool):
                losses, gradients = self._compute(kind, own)
        except RuntimeError:
            logger.exception("a step of kind %s cannot be recorded: going on without CUDA graphs", kind)
            self._record = False
            return False
        self._recordings[kind] = _Recording(graph, own, losses, gradients)
        return True


def _laid_out(parameter: nn.Parameter, gradient: Tensor) -> Tensor:
    """The gradient with its parameter's strides, which a fused optimizer asks for on CUDA. Convolutions differ."""
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter, memory_format=torch.preserve_format).copy_(gradient)
