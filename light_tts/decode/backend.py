"""Which engine runs the flow's estimator: decided here and nowhere else."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib.util import find_spec

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FlowBackend:
    """reason: why it is this one, for the log and for `/metrics`"""

    name: str
    reason: str


def choose_flow_backend(
    load_trt: bool, device: str, *, tensorrt_installed: bool | None = None
) -> FlowBackend:
    """`torch` wherever TensorRT is not wanted or cannot be had.

    device: "cpu" or "cuda:N"; tensorrt_installed: None looks
    There is no TensorRT engine here yet that takes the estimator's streaming state: where the library is installed
    that is the reason given.
    """
    if tensorrt_installed is None:
        tensorrt_installed = find_spec("tensorrt") is not None
    if not load_trt:
        return FlowBackend("torch", "load_trt is False")
    if not device.startswith("cuda"):
        return FlowBackend("torch", f"TensorRT needs a GPU, this process runs on {device}")
    if not tensorrt_installed:
        return FlowBackend("torch", "the package tensorrt is not installed")
    return FlowBackend("torch", "tensorrt is installed, but has no engine for the streaming estimator here")


def announce(backend: FlowBackend) -> None:
    """The one line in the log."""
    logger.info("flow estimator runs on %s: %s", backend.name, backend.reason)
