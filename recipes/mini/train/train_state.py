"""All that a stage must remember in order to go on as if it had never stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from recipes.mini.errors import RecipeError
from recipes.mini.train.checkpoint import Checkpoint, Facts, subset


@dataclass(frozen=True, slots=True)
class Parts:
    """What a stage is made of.

    modules: trained or not, everything whose weights change
    optimizers: fused ones (see `loop.adamw`)
    averaged: names of modules of which a running average is kept, with its decay
    generators: numpy's, e.g. the corpus's; torch's own are always remembered
    """

    modules: Mapping[str, nn.Module]
    optimizers: Mapping[str, Optimizer]
    averaged: Mapping[str, float] = field(default_factory=dict)
    generators: Mapping[str, np.random.Generator] = field(default_factory=dict)


class Ema:
    """A running average of a module's weights and buffers.

    The decay grows from 0.1 to its final value, so that the average of a short training is not its beginning.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self._live = _floats(module)
        self.weights = {name: value.detach().clone() for name, value in self._live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """step: updates so far, without this one"""
        weight = 1.0 - min(self._decay, (1.0 + step) / (10.0 + step))
        torch._foreach_lerp_(list(self.weights.values()), list(self._live.values()), weight)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Give a module of the same kind the averaged weights."""
        for name, value in _floats(module).items():
            value.copy_(self.weights[name])


class TrainState:
    """The parts, their averages, and how far they are. step, seconds: of training, over every piece."""

    def __init__(self, parts: Parts, device: torch.device) -> None:
        for name, optimizer in parts.optimizers.items():
            if not optimizer.defaults.get("fused"):
                raise TypeError(f"optimizer {name} is not fused: it could not skip a step (use loop.adamw)")
        self.parts = parts
        self.device = device
        self.step = 0
        self.seconds = 0.0
        self._skipped = torch.zeros((), dtype=torch.int64, device=device)
        self.averages = {name: Ema(parts.modules[name], decay) for name, decay in parts.averaged.items()}
        # Statistics of batch norm change in the forward pass, before anybody knows that a batch is bad.
        self._statistics = [
            buffer
            for module in parts.modules.values()
            for buffer in module.buffers()
            if buffer.is_floating_point()
        ]
        self._good = [buffer.clone() for buffer in self._statistics]

    @property
    def skipped(self) -> int:
        """Steps with a gradient that was not finite. Waits for the device."""
        return int(self._skipped)

    @torch.no_grad()
    def end_step(self, bad: Tensor) -> None:
        """bad: () bool, whether an optimizer skipped"""
        for buffer, good in zip(self._statistics, self._good, strict=True):
            good.copy_(torch.where(bad, good, buffer))
            buffer.copy_(good)
        for average in self.averages.values():
            average.update(self.step)
        self._skipped += bad
        self.step += 1

    def snapshot(self) -> Checkpoint:
        """Everything, as it is now."""
        tensors: dict[str, Tensor] = {"rng.torch": torch.get_rng_state()}
        if self.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.device)
        for name, module in self.parts.modules.items():
            tensors |= {f"model.{name}.{key}": value for key, value in module.state_dict().items()}
        for name, average in self.averages.items():
            tensors |= {f"ema.{name}.{key}": value for key, value in average.weights.items()}
        for name, optimizer in self.parts.optimizers.items():
            tensors |= {f"optimizer.{name}.{key}": value for key, value in _moments(optimizer).items()}
        generators = {name: rng.bit_generator.state for name, rng in self.parts.generators.items()}
        facts: Facts = {"seconds": self.seconds, "skipped": self.skipped, "generators": generators}
        return Checkpoint(self.step, tensors, facts)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a snapshot. Raises RecipeError if it is of other modules or sizes."""
        tensors, facts = checkpoint.tensors, checkpoint.facts
        try:
            for name, module in self.parts.modules.items():
                module.load_state_dict(subset(tensors, f"model.{name}."))
            for name, average in self.averages.items():
                _copy_all(average.weights, subset(tensors, f"ema.{name}."))
            for name, optimizer in self.parts.optimizers.items():
                _set_moments(optimizer, subset(tensors, f"optimizer.{name}."))
            for name, rng in self.parts.generators.items():
                rng.bit_generator.state = facts["generators"][name]  # type: ignore[index]
            torch.set_rng_state(tensors["rng.torch"])
            if self.device.type == "cuda" and "rng.cuda" in tensors:
                torch.cuda.set_rng_state(tensors["rng.cuda"], self.device)
            self.seconds = float(str(facts["seconds"]))
            self._skipped.fill_(int(str(facts["skipped"])))
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise RecipeError(f"the checkpoint is not of this stage with these settings: {error}") from error
        self.step = checkpoint.step
        for good, buffer in zip(self._good, self._statistics, strict=True):
            good.copy_(buffer)


def averaged_weights(checkpoint: Checkpoint, name: str) -> dict[str, Tensor]:
    """The averaged weights of one module, float32: what is exported. Raises RecipeError if there are none."""
    weights = subset(checkpoint.tensors, f"ema.{name}.")
    if not weights:
        raise RecipeError(f"the checkpoint holds no average of {name!r}")
    return {key: value.float() for key, value in weights.items()}


def _floats(module: nn.Module) -> dict[str, Tensor]:
    """Live weights and buffers; counters, which cannot be averaged, are left out."""
    return {name: value for name, value in module.state_dict().items() if value.is_floating_point()}


@torch.no_grad()
def _copy_all(into: dict[str, Tensor], source: dict[str, Tensor]) -> None:
    for name, value in into.items():
        value.copy_(source[name])


def _moments(optimizer: Optimizer) -> dict[str, Tensor]:
    """`PARAMETER.KEY` -> state of that parameter, e.g. "17.exp_avg"."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{key}": value for number, held in state.items() for key, value in held.items()}


def _set_moments(optimizer: Optimizer, moments: dict[str, Tensor]) -> None:
    """Sizes are checked here: torch would only notice in the next step, or not at all."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in moments.items():
        number, key = name.split(".", 1)
        if key != "step" and value.shape != parameters[int(number)].shape:
            raise ValueError(f"moment {name} has shape {list(value.shape)}")
        state.setdefault(int(number), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
