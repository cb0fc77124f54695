"""Checkpoints in parts that are small enough to travel: complete or absent, and checked when they are read.

CKPT/STAGE/step-00001200/ holds state.json (facts, sizes and hashes) and part-000.bin, part-001.bin, ...; the parts
joined are one safetensors file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from recipes.mini.errors import RecipeError

logger = logging.getLogger(__name__)

PART_BYTES = 15 * 2**20
KEPT = 2  # checkpoints of a stage: the newest, and one in case its disk dies half-way

Facts = dict[str, object]  # what JSON can hold

_STATE = "state.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """step: finished so far; tensors: by name, on any device; facts: everything else, as JSON holds it."""

    step: int
    tensors: dict[str, Tensor]
    facts: Facts


def save_checkpoint(folder: Path, checkpoint: Checkpoint, part_bytes: int = PART_BYTES) -> Path:
    """Write one more checkpoint of a stage and forget the oldest. A reader never sees half of it.

    Returns the new folder.
    """
    # copies, since safetensors refuses tensors that share memory, as tied weights do
    tensors = {
        name: value.detach().to("cpu", copy=True).contiguous() for name, value in checkpoint.tensors.items()
    }
    data = save(tensors)
    parts = [data[start : start + part_bytes] for start in range(0, len(data), part_bytes)]
    state = {
        "step": checkpoint.step,
        "parts": [{"bytes": len(part), "sha256": hashlib.sha256(part).hexdigest()} for part in parts],
        "facts": checkpoint.facts,
    }
    target = folder / f"step-{checkpoint.step:08d}"
    partial = folder / f".{target.name}.tmp"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for number, part in enumerate(parts):
        _write(partial / _part_name(number), part)
    _write(partial / _STATE, (json.dumps(state, indent=1) + "\n").encode())
    shutil.rmtree(target, ignore_errors=True)  # the same step again: nothing was trained in between
    partial.replace(target)
    for old in checkpoints(folder)[:-KEPT]:
        shutil.rmtree(old)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """Folders of a stage's checkpoints, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def load_latest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint of a stage that is whole; None if there never was one.

    Raises RecipeError if there are some but none can be used: starting again must be somebody's decision.
    """
    damaged: list[str] = []
    for path in reversed(checkpoints(folder)):
        try:
            return load_checkpoint(path)
        except RecipeError as error:
            logger.warning("skipping a checkpoint: %s", error)
            damaged.append(str(error))
    if damaged:
        raise RecipeError(f"no checkpoint in {folder} can be used (delete them to start again): {damaged[0]}")
    return None


def load_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint of one folder, on the CPU. Raises RecipeError if it is damaged."""
    try:
        state = json.loads((path / _STATE).read_text("utf-8"))
        described = [(str(part["sha256"]), path / _part_name(k)) for k, part in enumerate(state["parts"])]
        parts = [(digest, part, part.read_bytes()) for digest, part in described]
        for digest, part, content in parts:
            if hashlib.sha256(content).hexdigest() != digest:
                raise RecipeError(f"{part} is not what was written")
        tensors = load(b"".join(content for _, _, content in parts))
        return Checkpoint(int(state["step"]), tensors, dict(state["facts"]))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise RecipeError(f"{path} is no whole checkpoint: {error!r}") from error


def compact(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Half the bytes where it is harmless: optimizers' moments in bfloat16, averaged weights in float16.

    The weights that training goes on from stay as they are, and so does every small tensor.
    """
    kinds = {"optimizer.": torch.bfloat16, "ema.": torch.float16}
    small = dict(tensors)
    for name, value in tensors.items():
        for prefix, kind in kinds.items():
            if name.startswith(prefix) and value.dtype == torch.float32 and value.numel() > 1024:
                small[name] = value.to(kind)
    return small


def subset(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose name begins with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _part_name(number: int) -> str:
    return f"part-{number:03d}.bin"


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # the rename must not overtake the content
