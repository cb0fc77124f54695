"""Which engine runs the flow's estimator and the vocoder: decided here and nowhere else."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from importlib.util import find_spec

import torch

from light_tts.decode.speech_decoder import SpeechDecoder
from light_tts.models.flow.fast.flow import FastFlow
from light_tts.models.flow.flow_runner import FlowRunner
from light_tts.models.flow.guarded_flow import GuardedFlow
from light_tts.models.flow.tensorrt_engine import load_engine
from light_tts.models.flow.token_to_mel import Flow
from light_tts.models.vocoder.fast_hift import FastHiFT
from light_tts.models.vocoder.hift import HiFT
from light_tts.observe import metrics

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Precision:
    """compute: of weights, activations and streams' states; residual: of the sums along the estimator's blocks"""

    compute: torch.dtype
    residual: torch.dtype


@dataclass(frozen=True, slots=True)
class FlowBackend:
    """reason: why it is this one, for the log and for `/metrics`"""

    name: str
    reason: str


GRAPHS, TENSORRT = "graphs", "tensorrt"


def choose_flow_backend(
    load_trt: bool, device: str, *, tensorrt_installed: bool | None = None, dtype: str = "auto"
) -> FlowBackend:
    """`tensorrt` where it is wanted and installed, else `graphs` on a GPU; `torch` elsewhere and in full precision.

    device: "cpu" or "cuda:N"; tensorrt_installed: None looks; dtype: the flag
    """
    if tensorrt_installed is None:
        tensorrt_installed = find_spec("tensorrt") is not None
    name = GRAPHS if device.startswith("cuda") and dtype != "float32" else "torch"
    if not load_trt:
        return FlowBackend(name, "load_trt is False")
    if not device.startswith("cuda"):
        return FlowBackend(name, f"TensorRT needs a GPU, this process runs on {device}")
    if not tensorrt_installed:
        return FlowBackend(name, "the package tensorrt is not installed")
    if name != GRAPHS:
        return FlowBackend(name, f"TensorRT runs in half precision, dtype is {dtype}")
    return FlowBackend(TENSORRT, "tensorrt is installed; streams run as graphs, which have their states")


def half_precision(dtype: str, version: int) -> Precision:
    """What the fast flow and vocoder compute in. dtype: the flag, "auto" or a half-precision type

    version: of the model, 2 or 3
    """
    if dtype == "bfloat16":
        return Precision(torch.bfloat16, torch.float32)
    return Precision(torch.float16, torch.float32 if version == 3 else torch.float16)


def make_decoder(
    flow: Flow, vocoder: HiFT, backend: FlowBackend, precision: Precision, pool_bytes: int
) -> tuple[SpeechDecoder, FlowBackend]:
    """What the process decodes with, and which backend that turned out to be.

    flow, vocoder: in float32 but for `torch`: the others keep what they need of them in half precision
    pool_bytes: memory for streams; 0 where each takes its own
    """
    if backend.name not in (GRAPHS, TENSORRT):
        return SpeechDecoder(flow, vocoder), backend
    recording = threading.Lock()
    runner: FlowRunner = FastFlow(
        flow, precision.compute, pool_bytes=pool_bytes, stream_dtype=precision.residual, recording=recording
    )
    if backend.name == TENSORRT:
        runner, backend = _with_tensorrt(flow, runner, backend)
    return SpeechDecoder(runner, FastHiFT(vocoder, precision.compute, recording=recording)), backend


def _with_tensorrt(flow: Flow, runner: FlowRunner, backend: FlowBackend) -> tuple[FlowRunner, FlowBackend]:
    """Whatever TensorRT objects to, the server starts."""
    try:
        estimator = load_engine(flow.decoder.estimator, torch.float16, flow.cfg.output_size)
    except Exception as error:
        logger.exception("there is no TensorRT engine")
        return runner, FlowBackend(GRAPHS, f"TensorRT: {type(error).__name__}: {str(error)[:200]}")
    return GuardedFlow(flow, estimator, runner, metrics().flow_fallbacks.inc), backend


def announce(backend: FlowBackend) -> None:
    """The one line in the log."""
    logger.info("flow estimator runs on %s: %s", backend.name, backend.reason)
