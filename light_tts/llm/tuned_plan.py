"""Plans of the step's products as they were measured on a GPU, kept on disk."""

from __future__ import annotations

import os
from bisect import bisect_left
from pathlib import Path

import msgspec
import torch

from light_tts.llm.device_step import Plan
from light_tts.llm.step_plan import StepPlan, default_plan
from light_tts.models.speech_lm import SpeechLM


class TunedPlans(msgspec.Struct, frozen=True):
    """by_rows: for at most so many rows; None: the library's products"""

    by_rows: dict[int, StepPlan | None]

    def plan(self, num_rows: int) -> StepPlan | None:
        """For as many rows or the next more that were measured; beyond, the usual."""
        measured = sorted(self.by_rows)
        index = bisect_left(measured, num_rows)
        chosen = default_plan(num_rows) if index == len(measured) else self.by_rows[measured[index]]
        return chosen


def cache_file(device: torch.device, dtype: torch.dtype, hidden_size: int) -> Path:
    """Of this GPU, these versions, this type and size; below $XDG_CACHE_HOME or ~/.cache."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "light-tts"
    name = torch.cuda.get_device_name(device).replace(" ", "-").replace("/", "-")
    kind = str(dtype).removeprefix("torch.")
    return root / f"llm-step-{name}-torch-{torch.__version__}-{kind}-{hidden_size}.json"


def save(plans: TunedPlans, path: Path) -> None:
    """Whole or not at all: other processes may read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(msgspec.json.format(msgspec.json.encode(plans)))
    part.replace(path)


def load(path: Path) -> Plan | None:
    """None where there is no such file, or none that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=TunedPlans).plan
    except (OSError, msgspec.MsgspecError):
        return None


def measured_plan(model: SpeechLM) -> Plan:
    """The plan on disk for this GPU and model, else the usual."""
    return load(cache_file(model.device, model.dtype, model.cfg.qwen.hidden_size)) or default_plan
