"""The course of a training: averages as JSON lines, and a picture of them."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import torch
from torch import Tensor

from recipes.mini.errors import RecipeError

logger = logging.getLogger(__name__)

LOG_NAME = "losses.jsonl"
PLOT_NAME = "losses.png"


class LossLog:
    """Keeps losses on their device; only `flush` waits for it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOG_NAME
        self._pending: dict[tuple[str, ...], list[Tensor]] = {}  # names -> one vector a step

    @property
    def pending(self) -> bool:
        return bool(self._pending)

    def rewind(self, step: int) -> None:
        """Forget what was written after `step`, where training now goes on from."""
        if self.path.exists():
            kept = [line for line in read_log(self.path) if line["step"] <= step]
            self.path.write_text("".join(json.dumps(line) + "\n" for line in kept), "utf-8")

    def add(self, losses: dict[str, Tensor]) -> None:
        """Scalars of one step; the names may differ from step to step."""
        vector = torch.stack([value.detach().float() for value in losses.values()])
        self._pending.setdefault(tuple(losses), []).append(vector)

    def flush(self, step: int, **figures: float) -> dict[str, float]:
        """Write one line: step, `figures`, and each loss's average since the last line over its finite values."""
        values: dict[str, list[float]] = {}
        for names, vectors in self._pending.items():
            columns = torch.stack(vectors).T.tolist()
            for name, column in zip(names, columns, strict=True):
                values.setdefault(name, []).extend(value for value in column if math.isfinite(value))
        self._pending = {}
        averages = {name: sum(column) / len(column) for name, column in values.items() if column}
        line = {"step": step, **figures, **averages}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        return line


def read_log(path: Path) -> list[dict[str, float]]:
    """All lines, oldest first. A last line that was cut off by a kill is left out."""
    lines = []
    for text in path.read_text("utf-8").splitlines():
        try:
            lines.append({str(name): float(value) for name, value in json.loads(text).items()})
        except ValueError:
            logger.warning("%s: left out the line %r", path, text[:80])
    return lines


def plot_losses(folder: Path) -> Path | None:
    """Draw every figure of a stage over its steps into FOLDER/losses.png.

    Returns None if there is nothing to draw or matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # optional: training does without
    except ImportError:
        logger.warning("no loss curves: matplotlib is not installed")
        return None
    path = folder / LOG_NAME
    lines = read_log(path) if path.exists() else []
    names = list(dict.fromkeys(name for line in lines for name in line if name not in ("step", "seconds")))
    if not names:
        return None
    columns = min(4, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(4.2 * columns, 2.8 * rows), layout="constrained")
    for number, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, number + 1)
        points = [(line["step"], line[name]) for line in lines if name in line]
        axes.plot([step for step, _ in points], [value for _, value in points], linewidth=0.9)
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    target = folder / PLOT_NAME
    partial = folder / f".{PLOT_NAME}.tmp"
    try:
        figure.savefig(partial, format="png", dpi=110)
    except OSError as error:
        raise RecipeError(f"{target} cannot be written: {error}") from error
    partial.replace(target)
    return target
