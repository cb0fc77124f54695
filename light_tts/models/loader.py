"""From a model directory to modules that are ready to run; weights must fit exactly."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from light_tts.errors import InvalidInput, WeightMismatch
from light_tts.models.checkpoint import Part, find_checkpoint, read_weights
from light_tts.models.config import FlowConfig, HiFTConfig, ModelConfig, SpeechLMConfig
from light_tts.models.flow.token_to_mel import Flow
from light_tts.models.model_yaml import read_model_config
from light_tts.models.speech_lm import SpeechLM
from light_tts.models.vocoder.hift import HiFT

MAX_SHOWN = 10
DTYPES = {
    "auto": torch.float32,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
Module = TypeVar("Module", bound=nn.Module)

FILLING = {
    Tensor.fill_,
    Tensor.normal_,
    Tensor.uniform_,
    Tensor.zero_,
    nn.init.constant_,
    nn.init.kaiming_uniform_,
    nn.init.normal_,
    nn.init.ones_,
    nn.init.uniform_,
    nn.init.zeros_,
}


@dataclass(frozen=True, slots=True)
class WeightDifference:
    """How a checkpoint differs from the module that its yaml describes; `misshapen` names both shapes."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshapen)

    def lines(self, limit: int | None = MAX_SHOWN) -> list[str]:
        """One line per key, the first `limit` of each kind, after a line with the count."""
        lines = []
        for kind, keys in (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("misshapen", self.misshapen),
        ):
            if keys:
                lines.append(f"{len(keys)} {kind}:")
                lines += [f"  {key}" for key in keys[:limit]]
            if limit is not None and len(keys) > limit:
                lines.append(f"  ... and {len(keys) - limit} more")
        return lines


@dataclass(frozen=True, slots=True)
class LoadedModels:
    """One model directory, loaded."""

    config: ModelConfig
    speech_lm: SpeechLM
    flow: Flow
    vocoder: HiFT


class _CheapMeta(TorchFunctionMode):
    """Keeps arithmetic off the meta device, for which torch would import 800 modules, 70 MB, of sympy.

    Parameters are not filled with initial values; small tables are computed on the CPU.
    """

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Collection[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        if func in FILLING:
            return args[0] if args else kwargs["tensor"]
        if func is torch.arange:
            kwargs["device"] = "cpu"
        return func(*args, **kwargs)


def build(part: Part, config: ModelConfig) -> nn.Module:
    """The module of `part` with shapes but without memory."""
    match part:
        case "llm":
            return _on_meta(lambda: SpeechLM(config.llm))
        case "flow":
            return _on_meta(lambda: Flow(config.flow))
        case "hift":
            return _on_meta(lambda: HiFT(config.hift))


def _on_meta(make: Callable[[], Module]) -> Module:
    with _CheapMeta(), torch.device("meta"):
        return make()


def compare(module: nn.Module, weights: Mapping[str, Tensor]) -> WeightDifference:
    """Which keys and shapes of `weights` are not those of `module`."""
    expected = module.state_dict()
    return WeightDifference(
        tuple(name for name in expected if name not in weights),
        tuple(name for name in weights if name not in expected),
        tuple(
            f"{name}: {list(weights[name].shape)}, must be {list(value.shape)}"
            for name, value in expected.items()
            if name in weights and weights[name].shape != value.shape
        ),
    )


def load_models(model_dir: Path, device: torch.device, dtype: torch.dtype) -> LoadedModels:
    """Everything of a model directory.

    Weights that already have `dtype` on a CPU stay mapped from the file: nothing is copied, and several
    processes share the memory. Raises the errors of `read_model_config` and `read_weights`, and
    WeightMismatch with the keys.
    """
    config = read_model_config(model_dir)
    return LoadedModels(
        config,
        load_speech_lm(model_dir, config.llm, device, dtype),
        load_flow(model_dir, config.flow, device, dtype),
        load_vocoder(model_dir, config.hift, device, dtype),
    )


def load_speech_lm(
    model_dir: Path, cfg: SpeechLMConfig, device: torch.device, dtype: torch.dtype
) -> SpeechLM:
    """The language model, in `dtype` on `device`."""
    return _filled(lambda: SpeechLM(cfg), model_dir, "llm").to(device=device, dtype=dtype)


def load_flow(model_dir: Path, cfg: FlowConfig, device: torch.device, dtype: torch.dtype) -> Flow:
    """Speech tokens to mel, in `dtype` on `device`."""
    return _filled(lambda: Flow(cfg), model_dir, "flow").to(device=device, dtype=dtype)


def load_vocoder(model_dir: Path, cfg: HiFTConfig, device: torch.device, dtype: torch.dtype) -> HiFT:
    """The vocoder on `device`; it chooses itself what can run in `dtype`."""
    return _filled(lambda: HiFT(cfg), model_dir, "hift").float().to(device).to_precision(dtype)


def _filled(make: Callable[[], Module], model_dir: Path, part: Part) -> Module:
    """The module with the weights of its checkpoint, for inference. Raises WeightMismatch."""
    module = _on_meta(make)
    weights = read_weights(model_dir, part)
    if difference := compare(module, weights):
        lines = "\n".join(difference.lines())
        raise WeightMismatch(f"{find_checkpoint(model_dir, part)} does not fit the model's yaml\n{lines}")
    for name, buffer in module.named_buffers():
        # Unlike parameters, tables keep their own precision; a mapped one would keep the whole file mapped.
        weights[name] = weights[name].to(buffer.dtype, copy=True)
    module.load_state_dict(weights, strict=True, assign=True)
    return module.eval().requires_grad_(False)


def device_of(name: str) -> torch.device:
    """ "auto", "cpu", "cuda" or "cuda:N". Raises InvalidInput for another name, or a GPU that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    match = re.fullmatch(r"cpu|cuda(?::([0-9]+))?", name)
    if match is None:
        raise InvalidInput(f"device is {name!r}, allowed are auto, cpu, cuda and cuda:N")
    # Before torch sees it: torch.device keeps a number in 8 bits.
    if name != "cpu" and int(match[1] or 0) >= torch.cuda.device_count():
        raise InvalidInput(f"device is {name!r}, but PyTorch finds {torch.cuda.device_count()} GPUs here")
    return torch.device(name)


def dtype_of(name: str) -> torch.dtype:
    """ "auto" is float32. Raises InvalidInput for what is none of `DTYPES`."""
    if name not in DTYPES:
        raise InvalidInput(f"dtype is {name!r}, allowed are {', '.join(DTYPES)}")
    return DTYPES[name]
