"""What all stages of training share.

`train_stage` runs a plain stage. A stage with a loop of its own (a GAN) uses the same `Trainer`:

    with Trainer(folder, plan, parts, device, budget) as trainer:  # resumes if there is a checkpoint
        while trainer.goes_on():
            ...
            trainer.update("generator", loss)       # backward, clip, step unless a gradient is not finite
            trainer.update("discriminator", other)
            trainer.end_step({"mel": mel, "adversarial": adversarial})  # averages, log, checkpoint
"""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
import zlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from types import FrameType, TracebackType
from typing import Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from recipes.mini.train.checkpoint import compact, load_latest, save_checkpoint
from recipes.mini.train.loss_log import LossLog, plot_losses, read_log
from recipes.mini.train.recorded import Gradients, Losses
from recipes.mini.train.train_state import Ema, Parts, TrainState

__all__ = [
    "Ema",
    "Parts",
    "Plan",
    "Stage",
    "TimeBudget",
    "Trainer",
    "adamw",
    "autocast",
    "cosine",
    "fast_matmul",
    "plot_losses",
    "read_log",
    "seed_stage",
    "train_stage",
]

logger = logging.getLogger(__name__)

Batch = TypeVar("Batch")


@dataclass(frozen=True, slots=True)
class Plan:
    """How long a stage trains, and how.

    Progress is the finished share of max_steps, or of max_seconds if that is further: both count over every
    resumed piece. The plan may change between pieces; training then goes on at its new place in the schedule.
    """

    max_steps: int
    max_seconds: float = math.inf
    warmup_steps: int = 100
    decay_from: float = 0.0  # progress at which the cosine begins to fall
    final_lr: float = 0.02  # share of the learning rate at progress 1
    clip_norm: float = 1.0
    log_every: int = 50  # steps; the only time at which the host waits for the device
    save_every_s: float = 90.0
    compact: bool = True  # checkpoints with averages and moments in 16 bits


class TimeBudget:
    """Seconds that a run may take from now on. `stop` ends them."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start = clock()
        self._seconds = seconds

    @property
    def elapsed(self) -> float:
        return self._clock() - self._start

    @property
    def left(self) -> float:
        return max(0.0, self._seconds - self.elapsed)

    def stop(self) -> None:
        self._seconds = 0.0

    @contextmanager
    def stopped_by_sigterm(self) -> Iterator[None]:
        """While entered, SIGTERM ends the budget instead of the process. Python allows it in the main thread only."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(_signal: int, _frame: FrameType | None) -> None:
            self.stop()

        before = signal.signal(signal.SIGTERM, handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


def cosine(plan: Plan, step: int, progress: float) -> float:
    """The learning rate's factor: a linear warm-up by steps, then flat to decay_from, then half a cosine down."""
    warmup = min(1.0, (step + 1) / max(1, plan.warmup_steps))
    falling = (min(1.0, progress) - plan.decay_from) / max(1e-9, 1.0 - plan.decay_from)
    fall = 0.5 + 0.5 * math.cos(math.pi * max(0.0, falling))
    return warmup * (plan.final_lr + (1.0 - plan.final_lr) * fall)


def adamw(
    modules: Iterable[nn.Module],
    lr: float,
    betas: tuple[float, float] = (0.9, 0.98),
    weight_decay: float = 0.01,
) -> torch.optim.AdamW:
    """The optimizer that `Trainer` can skip a step of without asking the device; matrices alone decay."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr, betas, fused=True)


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 where it is fast; the CPU computes in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def fast_matmul() -> None:
    """Let float32 matrix products on the GPU round their inputs (TF32): training does not need more."""
    torch.set_float32_matmul_precision("high")


def seed_stage(seed: int, stage: str) -> np.random.Generator:
    """Seed torch for a stage, before its modules are made, and return its generator for everything else."""
    own = [seed, zlib.crc32(stage.encode())]
    torch.manual_seed(int(np.random.SeedSequence(own).generate_state(1)[0]))
    return np.random.default_rng(own)


class Trainer:
    """One stage's state and its course: resumes on entry, saves on the way and at the end.

    step: finished steps; progress: 0 to 1
    """

    def __init__(
        self, folder: Path, plan: Plan, parts: Parts, device: torch.device, budget: TimeBudget
    ) -> None:
        self.folder = folder
        self.plan = plan
        self.device = device
        self.budget = budget
        self.state = TrainState(parts, device)
        self.log = LossLog(folder)
        self._bad = torch.zeros((), dtype=torch.bool, device=device)  # this step, any optimizer
        self._norms: dict[str, Tensor] = {}
        self._saved_at = 0.0
        self._saved_step: int | None = None
        self._started_from_s = 0.0
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        checkpoint = load_latest(self.folder)
        if checkpoint is not None:
            self.state.restore(checkpoint)
            self._saved_step = self.step
            logger.info("%s: resumed at step %d", self.folder.name, self.step)
        self.log.rewind(self.step)
        self._started_from_s = self.state.seconds - self.budget.elapsed
        self._saved_at = self.budget.elapsed
        self._open.enter_context(self.budget.stopped_by_sigterm())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._open:
            # After an error the state may be half a step; the last whole checkpoint is the better one.
            if kind is None:
                self._flush()
                if self.step != self._saved_step:
                    self.save()
                plot_losses(self.folder)

    @property
    def step(self) -> int:
        return self.state.step

    @property
    def progress(self) -> float:
        return min(1.0, max(self.step / self.plan.max_steps, self.state.seconds / self.plan.max_seconds))

    def ema(self, name: str) -> Ema:
        """The running average of a module that `Parts.averaged` names."""
        return self.state.averages[name]

    def goes_on(self) -> bool:
        """Whether there is another step to make; sets its learning rates."""
        self.state.seconds = self._started_from_s + self.budget.elapsed
        if self.progress >= 1.0 or self.budget.left <= 0.0:
            return False
        factor = cosine(self.plan, self.step, self.progress)
        for optimizer in self.state.parts.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
        return True

    def update(self, name: str, loss: Tensor) -> None:
        """One step of an optimizer down the gradient of `loss`. Skipped, and counted, if that is not finite."""
        self.state.parts.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.descend(name, loss)

    def descend(self, name: str, loss: Tensor) -> None:
        """`update` for gradients that are on the parameters already."""
        optimizer = self.state.parts.optimizers[name]
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = nn.utils.clip_grad_norm_(parameters, self.plan.clip_norm)
        bad = ~(norm.isfinite() & loss.detach().isfinite())
        # A fused optimizer leaves weights and moments alone where this is 1, as under torch.amp.GradScaler.
        optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
        optimizer.step()
        self._bad = self._bad | bad
        self._norms[f"norm_{name}"] = norm

    def end_step(self, losses: Mapping[str, Tensor]) -> None:
        """Average the weights, count the step, and log or save if it is time."""
        self.state.end_step(self._bad)
        self.log.add({**losses, **self._norms})
        self._bad = torch.zeros_like(self._bad)
        if self.step % self.plan.log_every == 0 or self.progress >= 1.0:
            self._flush()
        if self.budget.elapsed - self._saved_at > self.plan.save_every_s:
            self.save()

    def save(self) -> None:
        """Leave a checkpoint that training goes on from exactly (with Plan.compact: but for rounded moments)."""
        checkpoint = self.state.snapshot()
        if self.plan.compact:
            checkpoint.tensors.update(compact(checkpoint.tensors))
        save_checkpoint(self.folder, checkpoint)
        self._saved_at = self.budget.elapsed
        self._saved_step = self.step

    def _flush(self) -> None:
        if not self.log.pending:
            return
        seconds = self._started_from_s + self.budget.elapsed
        factor = cosine(self.plan, self.step, self.progress)
        line = self.log.flush(
            self.step, seconds=round(seconds, 1), lr_factor=factor, skipped=float(self.state.skipped)
        )
        figures = " ".join(f"{name} {value:.4g}" for name, value in line.items() if name != "step")
        logger.info("%s: step %d %s", self.folder.name, self.step, figures)


class Stage(Protocol[Batch]):
    """A stage with one optimizer and one loss."""

    def parts(self) -> Parts:
        """Modules, the optimizer (named "main"), averages and generators."""

    def next_batch(self) -> Batch:
        """A batch on the device, features and all: a tensor, or a dataclass of tensors; runs without gradients."""

    def loss(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        """Scalars to log; the one named "loss" is minimised. See `recorded.Objective` for what it must not do.

        progress: () on the device
        """


def train_stage(
    stage: Stage[Batch],
    folder: Path,
    plan: Plan,
    device: torch.device,
    budget: TimeBudget,
    cuda_graphs: bool = False,
) -> int:
    """Train until the plan or the budget ends; resumes, and leaves a checkpoint. Returns the steps done in all.

    cuda_graphs: on CUDA, replay a step as one launch for each set of shapes that the batches come in
    """
    parts = stage.parts()
    kinds: dict[Hashable, type] = {}

    def objective(kind: Hashable, inputs: Sequence[Tensor]) -> Losses:
        *tensors, progress = inputs
        whole: Batch = tensors[0] if kinds[kind] is Tensor else kinds[kind](*tensors)
        return stage.loss(whole, progress)

    parameters = [parameter for module in parts.modules.values() for parameter in module.parameters()]
    gradients = Gradients(objective, parameters, record=cuda_graphs)
    with Trainer(folder, plan, parts, device, budget) as trainer:
        while trainer.goes_on():
            with torch.no_grad():
                batch = stage.next_batch()
                inputs = _tensors(batch)
                inputs.append(torch.full((), trainer.progress, device=device))
            kind = tuple(tensor.shape for tensor in inputs)
            kinds[kind] = type(batch)
            losses = gradients(kind, inputs)
            trainer.descend("main", losses["loss"])
            trainer.end_step(losses)
        return trainer.step


def _tensors(batch: object) -> list[Tensor]:
    return [batch] if isinstance(batch, Tensor) else [getattr(batch, field.name) for field in fields(batch)]  # type: ignore[arg-type]
