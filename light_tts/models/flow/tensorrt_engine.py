"""The flow estimator as a TensorRT engine: built once per GPU type, TensorRT version and weights, kept on disk."""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import logging
import os
import re
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from light_tts.models.flow.dit import DiT
from light_tts.models.flow.estimator_state import EstimatorState, Velocity
from light_tts.models.flow.export import INPUTS, OUTPUT, export_estimator
from light_tts.models.flow.unet import ConditionalUNet
from light_tts.models.layers.ragged import Frames

logger = logging.getLogger(__name__)

# Rows (two of an utterance, with guidance) and frames: the least, the most frequent and the most.
ROWS, FRAMES = (1, 2, 16), (4, 500, 3000)
WORKSPACE_BYTES = 4 << 30


class EngineNotBuilt(RuntimeError):
    """TensorRT refused the network; the server goes on without it."""


def cache_folder() -> Path:
    """Below $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "light-tts" / "tensorrt"


def plan_name(network: bytes, gpu: str, version: str) -> str:
    """File name of a plan: another network, profile, GPU type or TensorRT version is another plan."""
    kind = re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")  # "Quadro RTX 6000/8000" is one
    digest = hashlib.sha256(network)
    digest.update(repr((ROWS, FRAMES)).encode())
    return f"estimator-{digest.hexdigest()[:16]}-{kind}-{version}.plan"


def cached_plan(path: Path, build: Callable[[], bytes]) -> bytes:
    """The plan in `path`, built if there is none. Of several processes one builds, the others wait for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return path.read_bytes()
        plan = build()
        partial_file = path.with_suffix(".part")
        partial_file.write_bytes(plan)
        partial_file.rename(path)  # a crash leaves no half plan
        return plan


def build_plan(network_file: Path, mel: int) -> bytes:
    """Minutes. Raises EngineNotBuilt with TensorRT's reason."""
    trt: Any = importlib.import_module("tensorrt")
    log = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(log)
    # Strongly typed: the file says what is half precision and what is not.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(network_file)):
        raise EngineNotBuilt("; ".join(str(parser.get_error(index)) for index in range(parser.num_errors)))
    settings = builder.create_builder_config()
    settings.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    profile = builder.create_optimization_profile()
    for name in INPUTS:
        sizes = (_shape(name, rows, frames, mel) for rows, frames in zip(ROWS, FRAMES, strict=True))
        profile.set_shape(name, *sizes)
    settings.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, settings)
    if plan is None:
        raise EngineNotBuilt("TensorRT built no engine; its log says why")
    return bytes(plan)


def _shape(name: str, rows: int, frames: int, mel: int) -> tuple[int, ...]:
    match name:
        case "t":
            return (rows,)
        case "spks":
            return (rows, mel)
        case "mask":
            return (rows, 1, frames)
    return (rows, mel, frames)


class Engine:
    """A loaded plan. One call at a time, the device's part of it included. Call it with INPUTS in order, on the
    current stream. Raises EngineNotBuilt for a plan that cannot be loaded.
    """

    def __init__(self, plan: bytes, dtype: torch.dtype) -> None:
        trt: Any = importlib.import_module("tensorrt")
        self._dtype = dtype
        self._log = trt.Logger(trt.Logger.WARNING)
        self._runtime = trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineNotBuilt("TensorRT cannot load the plan; its log says why")
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise EngineNotBuilt("TensorRT has no memory to run the engine; its log says why")

    def __call__(self, *inputs: Tensor) -> Tensor:
        """(B, mel, T) in the engine's type"""
        held = [value.to(self._dtype).contiguous() for value in inputs]
        for name, value in zip(INPUTS, held, strict=True):
            self._context.set_input_shape(name, tuple(value.shape))
            self._context.set_tensor_address(name, value.data_ptr())
        out = torch.empty_like(held[0])
        self._context.set_tensor_address(OUTPUT, out.data_ptr())
        stream = torch.cuda.current_stream(out.device)
        if not self._context.execute_async_v3(stream.cuda_stream):
            raise RuntimeError("TensorRT refused to run the estimator")
        return out


class EngineEstimator:
    """`Estimator` of whole utterances, by an engine. run: as `Engine`

    What an engine cannot do (a past, states to keep, batches or lengths beyond its profile) the oracle does.
    """

    def __init__(self, oracle: ConditionalUNet | DiT, run: Callable[..., Tensor]) -> None:
        self._oracle, self._run = oracle, run

    def embed_times(self, t: Tensor) -> Tensor:
        return t  # the engine embeds them itself

    def bind(
        self, mu: Tensor, spks: Tensor, cond: Tensor, frames: Frames, state: EstimatorState | None
    ) -> Velocity:
        """As `Estimator.bind`."""
        rows, _, length = mu.shape
        fits = ROWS[0] <= rows <= ROWS[-1] and FRAMES[0] <= length <= FRAMES[-1]
        if state is not None or frames.chunk or frames.max_past or not fits:
            return partial(self._by_oracle, self._oracle.bind(mu, spks, cond, frames, state))
        mask = frames.valid(mu.device)[:, None].to(mu.dtype)
        return partial(self._by_engine, (mu, spks, cond, mask))

    def _by_oracle(
        self, velocity: Velocity, x: Tensor, time: Tensor, state: EstimatorState | None, keep_state: bool
    ) -> tuple[Tensor, EstimatorState | None]:
        return velocity(x, self._oracle.embed_times(time), state, keep_state)

    def _by_engine(
        self,
        fixed: tuple[Tensor, Tensor, Tensor, Tensor],
        x: Tensor,
        time: Tensor,
        state: EstimatorState | None,
        keep_state: bool,
    ) -> tuple[Tensor, EstimatorState | None]:
        assert state is None
        assert not keep_state
        mu, spks, cond, mask = fixed
        velocity = self._run(x.transpose(1, 2), mask, mu, time.expand(len(x)), spks, cond)
        return velocity.to(x.dtype).transpose(1, 2), None


def load_engine(estimator: ConditionalUNet | DiT, dtype: torch.dtype, mel: int) -> EngineEstimator:
    """The estimator in `dtype` as an engine of this GPU, from the cache or built now.

    Raises ImportError without TensorRT, EngineNotBuilt where it refuses the network or the plan on disk.
    """
    trt: Any = importlib.import_module("tensorrt")
    device = next(estimator.parameters()).device
    with TemporaryDirectory() as folder:
        network = Path(folder) / "estimator.onnx"
        export_estimator(deepcopy(estimator).to(dtype), network, mel)
        name = plan_name(network.read_bytes(), torch.cuda.get_device_name(device), trt.__version__)
        logger.info("TensorRT engine of the flow estimator: %s", cache_folder() / name)
        plan = cached_plan(cache_folder() / name, lambda: build_plan(network, mel))
    return EngineEstimator(estimator, Engine(plan, dtype))
