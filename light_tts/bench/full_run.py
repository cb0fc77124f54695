"""A whole run on random weights: stages alone, then the real server. Each part in its own time; what fails is told."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from rich.console import Console

from light_tts.bench.random_model import SIZES, write_random_model
from light_tts.bench.server_load import Load, fixed_length, measure_levels, running_server
from light_tts.bench.stages import PARTS
from light_tts.errors import InvalidInput, Unavailable
from light_tts.loadtest.figures import Figures
from light_tts.models.loader import device_of

SERVER = "server"
ALL_PARTS = (*PARTS, SERVER)
STAGE_S = {"llm": 100.0, "flow": 70.0, "vocoder": 50.0, "stream": 50.0}
START_S, LEVEL_S, REQUEST_S = 120.0, 12.0, 60.0
MIN_S = 5.0  # a part for which less is left is not begun


@dataclass(frozen=True, slots=True)
class Job:
    """size: of random_model.SIZES; out: folder of figures and logs; dtype: "auto" is float16 on a GPU

    callers: also the sizes of the language model's batch; seconds: of speech of each utterance
    limit_s: for everything together
    """

    size: str
    out: Path
    device: str
    dtype: str
    parts: tuple[str, ...]
    callers: tuple[int, ...]
    seconds: float
    limit_s: float
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.parts) - set(ALL_PARTS)):
            raise InvalidInput(f"--parts names {', '.join(unknown)}, known are {', '.join(ALL_PARTS)}")
        if not self.callers or not 1 <= min(self.callers) <= max(self.callers) <= 1000:
            raise InvalidInput(f"--callers is {self.callers}, each must be 1 to 1000")
        if not 1 <= self.seconds <= 30:
            raise InvalidInput(f"--seconds is {self.seconds:g}, must be 1 to 30")
        if not 10 <= self.limit_s <= 86_400:
            raise InvalidInput(f"--limit-s is {self.limit_s:g}, must be 10 to 86400")

    @property
    def num_tokens(self) -> int:
        return round(25 * self.seconds)


@dataclass(slots=True)
class Report:
    """stages: figures by part and name; failed: what went wrong, by part; took_s: seconds by part"""

    size: str
    machine: dict[str, str]
    settings: dict[str, str]
    stages: dict[str, dict[str, float]] = field(default_factory=dict)
    levels: list[Figures] = field(default_factory=list)
    ready_s: float | None = None
    failed: dict[str, str] = field(default_factory=dict)
    took_s: dict[str, float] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", "utf-8")


class _Clock:
    def __init__(self, limit_s: float) -> None:
        self._end = time.monotonic() + limit_s

    def left_s(self) -> float:
        return self._end - time.monotonic()


def run(job: Job, console: Console) -> Report:
    """Measure; after each part the figures so far are in `job.out`/bench.json.

    A part that fails or runs out of time is in `Report.failed`, and the others go on.
    """
    job.out.mkdir(parents=True, exist_ok=True)
    device = device_of(job.device)
    dtype = job.dtype if job.dtype != "auto" else "float32" if device.type == "cpu" else "float16"
    report = Report(job.size, machine(device), settings(job, str(device), dtype))
    clock = _Clock(job.limit_s)
    with tempfile.TemporaryDirectory(prefix="light-tts-bench-") as folder:
        start = time.monotonic()
        model_dir = write_random_model(Path(folder), job.size, device)
        report.took_s["weights"] = time.monotonic() - start
        if device.type == "cuda":
            torch.cuda.empty_cache()
        for part in job.parts:
            _part(part, job, report, model_dir, str(device), dtype, clock)
            console.print(
                f"{part}: {report.failed.get(part, 'done')}, {report.took_s[part]:.0f} s", markup=False
            )
            report.write(job.out / "bench.json")
    return report


def _part(
    part: str, job: Job, report: Report, model_dir: Path, device: str, dtype: str, clock: _Clock
) -> None:
    start = time.monotonic()
    try:
        if clock.left_s() < MIN_S:
            raise Unavailable("no time left")
        if part == SERVER:
            _server(job, report, model_dir, device, dtype, clock)
        else:
            _stage(part, job, report, model_dir, device, dtype, clock)
    except Exception as error:  # the edge of a part: told in the report, and the others go on
        report.failed[part] = f"{type(error).__name__}: {error}"[:500]
    report.took_s[part] = round(time.monotonic() - start, 1)


def _stage(
    part: str, job: Job, report: Report, model_dir: Path, device: str, dtype: str, clock: _Clock
) -> None:
    """Raises Unavailable where the part's process fails; its figures up to there are kept."""
    figures, log_path = model_dir / f"{part}.json", job.out / f"{part}.log"
    command = [sys.executable, "-m", "light_tts.bench.stages", part, "--model_dir", str(model_dir)]
    command += ["--device", device, "--dtype", dtype, "--batches", ",".join(map(str, job.callers))]
    command += ["--tokens", str(job.num_tokens), "--repeats", "2" if device == "cpu" else "10"]
    command += ["--out", str(figures)]
    failure = ""
    with log_path.open("w", encoding="utf-8") as log:
        try:
            limit_s = min(STAGE_S[part], clock.left_s())
            status = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, timeout=limit_s).returncode
            failure = f"exit status {status}" if status else ""
        except subprocess.TimeoutExpired:
            failure = f"not done within {limit_s:.0f} s"
    if figures.exists():
        report.stages[part] = json.loads(figures.read_text("utf-8"))
    if failure:
        lines = log_path.read_text("utf-8", "replace").strip().splitlines()
        raise Unavailable(f"{failure}: {lines[-1][:300] if lines else 'no output'}")


def _server(job: Job, report: Report, model_dir: Path, device: str, dtype: str, clock: _Clock) -> None:
    load = Load(job.callers, job.seconds, min(START_S, clock.left_s()), LEVEL_S, REQUEST_S, job.flags)
    fields = fixed_length(model_dir, SIZES[job.size].version, load.num_tokens)
    most = max(job.callers)
    flags = ["--gpt_paral_num", str(most), "--dtype", dtype, "--max_pending", str(4 * most)]
    # by itself the decode stage takes one chunk at a time, and the server all GPUs
    flags += ["--num_gpus", "0"] if device == "cpu" else ["--num_gpus", "1", "--decode_max_batch_size", "16"]
    with running_server(model_dir, load, flags, job.out / "server.log") as (url, ready_s):
        report.ready_s = round(ready_s, 2)

        def tell(figures: Figures) -> None:
            report.levels.append(figures)
            report.write(job.out / "bench.json")

        measure_levels(url, load, fields, tell, clock.left_s)


def machine(device: torch.device) -> dict[str, str]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU"
    return {
        "device": name,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def settings(job: Job, device: str, dtype: str) -> dict[str, str]:
    return {
        "device": device,
        "dtype": dtype,
        "speech": f"{job.num_tokens} tokens, {job.seconds:g} s",
        "prompt": "75 tokens, a registered voice",
        "server flags": " ".join(job.flags),
    }


def parse_numbers(text: str, flag: str) -> tuple[int, ...]:
    """ "1,2,4". Raises InvalidInput."""
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise InvalidInput(f"{flag} is {text!r}, must be whole numbers with commas between") from None


def parts_of(text: str | None) -> Sequence[str]:
    return ALL_PARTS if text is None else text.split(",")
