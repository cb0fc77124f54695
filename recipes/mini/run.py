"""run: everything side by side on one GPU, under a budget of seconds, to be continued by the next run.

Each stage is a process of its own: one that crashes is started again, one that fails for good is reported, and the
others go on. Every few seconds CHECKPOINTS/status.json and status.txt say how far all are.
"""

from __future__ import annotations

import json
import logging
import signal
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType

from recipes.mini.children import Child, State, stop_all
from recipes.mini.collect import LOGS, SETTINGS, STAGES, STATUS, collect
from recipes.mini.settings import Settings
from recipes.mini.tasks import Pipeline, progress
from recipes.mini.train.loss_log import LOG_NAME
from recipes.mini.travel import Places, replace_file
from recipes.mini.validate import validate

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.5
_SHORTEST_S = 10.0  # with less time left nothing is started any more
_SHOWN = (
    "loss",
    "accuracy",
    "valid_loss",
    "valid_mel",
    "mel",
    "lr_factor",
    "skipped",
)  # figures of a status line


@dataclass(frozen=True, slots=True)
class StageStatus:
    """A line of the status; step, seconds, share: see tasks.Progress; figures: the newest of the loss log."""

    name: str
    state: str
    waits_for: str | None
    crashes: int
    exit_code: int | None
    step: int = 0
    seconds: float = 0.0
    share: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)


def run(settings: Settings, places: Places, out: Path | None, budget_s: float) -> int:
    """Train for at most budget_s; returns the exit status: 0 unless a stage failed for good.

    out: volumes of what matters most are left here, while it runs and at its end
    Raises RecipeError if what it starts from holds an index that is out of range.
    """
    start = time.monotonic()
    validate(settings, places.work)
    places.checkpoints.mkdir(parents=True, exist_ok=True)
    settings_file = (places.checkpoints / SETTINGS).resolve()
    settings.save(settings_file)
    pipeline = Pipeline(settings, settings_file, Places(places.work.resolve(), places.checkpoints.resolve()))
    return _Run(pipeline, out, start, budget_s).go()


class _Run:
    def __init__(self, pipeline: Pipeline, out: Path | None, start: float, budget_s: float) -> None:
        settings, root = pipeline.settings.run, pipeline.places.checkpoints
        self._pipeline = pipeline
        self._out = out
        self._start = start
        self._end = start + budget_s
        self._last_call = self._end - settings.finish_s  # then all are asked to stop
        self._children = [
            Child(task, root / LOGS / f"{task.name}.log", settings.restarts) for task in pipeline.tasks()
        ]
        self._stop = threading.Event()
        self._next_status = self._next_collection = start

    def go(self) -> int:
        before = signal.signal(signal.SIGTERM, self._on_signal)
        try:
            while not self._stop.is_set() and time.monotonic() < self._last_call and self._look():
                self._stop.wait(_LOOK_EVERY_S)
        finally:
            # Half of what is left is for the trainers, half for writing volumes.
            now = time.monotonic()
            stop_all(self._children, now + max(1.0, (self._end - now) / 2))
            self._report()
            self._collect()
            signal.signal(signal.SIGTERM, before)
        return 1 if any(child.state is State.FAILED for child in self._children) else 0

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stop.set()

    def _look(self) -> bool:
        """Look after all children once; False when nothing runs and nothing can."""
        now = time.monotonic()
        left_s = self._last_call - now
        left_s = left_s if left_s > _SHORTEST_S else 0.0
        changes = 0
        for child in self._children:
            over = {other.task.name for other in self._children if other.state in (State.DONE, State.FAILED)}
            if change := child.advance(now, left_s, over):
                changes += 1
                logger.info(change)
        settings = self._pipeline.settings.run
        if now >= self._next_status:
            self._next_status = now + settings.status_every_s
            self._report()
        if now >= self._next_collection + settings.collect_every_s:
            self._next_collection = now
            self._collect()
        return changes > 0 or any(child.is_busy(now) for child in self._children)

    def _report(self) -> None:
        """Replace the status files."""
        now, root = time.monotonic(), self._pipeline.places.checkpoints
        stages = [self._status(child) for child in self._children]
        hours = round(self._pipeline.spoken_hours(), 2)
        document = {
            "elapsed_s": round(now - self._start, 1),
            "budget_s": round(self._end - self._start, 1),
            "corpus_hours": hours,
            "stages": [asdict(stage) for stage in stages],
        }
        replace_file(root / STATUS, (json.dumps(document, indent=1) + "\n").encode())
        head = f"{now - self._start:.0f} of {self._end - self._start:.0f} s, {hours:.1f} h of speech"
        lines = [head, *(status_line(stage) for stage in stages)]
        replace_file(root / "status.txt", ("\n".join(lines) + "\n").encode())

    def _status(self, child: Child) -> StageStatus:
        name = child.task.name
        status = StageStatus(name, child.state.value, child.waits_for, child.crashes, child.exit_code)
        if name not in STAGES:
            return status
        root = self._pipeline.places.checkpoints
        at = progress(self._pipeline.settings, root, name)
        figures = newest_figures(root / name / LOG_NAME)
        step = int(figures.pop("step", at.step))
        return StageStatus(
            name, child.state.value, child.waits_for, child.crashes, child.exit_code,
            max(step, at.step), at.seconds, at.share, figures,
        )  # fmt: skip

    def _collect(self) -> None:
        if self._out is None:
            return
        try:
            collect(self._pipeline.places, self._pipeline.finished, self._out)
        except OSError as error:  # a full disk must not end the training
            logger.warning("nothing was collected: %s", error)


def status_line(stage: StageStatus) -> str:
    """One line for people."""
    parts = [f"{stage.name:10} {stage.state:8}"]
    if stage.name in STAGES:
        parts.append(f"step {stage.step}, {stage.share:.0%}")
    if stage.state == State.WAITING.value and stage.waits_for:
        parts.append(f"waits: {stage.waits_for}")
    if stage.crashes:
        parts.append(f"{stage.crashes} crashes, exit code {stage.exit_code}")
    parts += [f"{name} {stage.figures[name]:.4g}" for name in _SHOWN if name in stage.figures]
    return "  ".join(parts)


def newest_figures(log: Path) -> dict[str, float]:
    """The last whole line of a loss log; nothing if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return {}
    for line in reversed(lines):
        try:
            return {str(name): float(value) for name, value in json.loads(line).items()}
        except (ValueError, AttributeError, TypeError):
            continue
    return {}
