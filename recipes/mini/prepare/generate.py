"""`generate`: the teacher reads the jobs into shards of the corpus, in several processes; resumable."""

from __future__ import annotations

import logging
import multiprocessing
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file, save_file

from recipes.mini.corpus import Jobs, Utterance, write_shard
from recipes.mini.errors import RecipeError
from recipes.mini.prepare.kokoro import Kokoro
from recipes.mini.prepare.speakers import style_vector
from recipes.mini.prepare.teacher_weights import dequantise, read_teacher
from recipes.mini.prepare.utterance import on_cpu, teacher_speed, to_utterance
from recipes.mini.settings import SAMPLE_RATE, Settings
from recipes.mini.train.loop import TimeBudget
from recipes.mini.validate import validate

logger = logging.getLogger(__name__)

_MEMORY_SHARE = 0.4  # of the GPU, for all processes together
_SKIPS_TOLERATED = 20  # jobs of one process that fail with an error before it gives up
_LOG_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class Generated:
    """What was there and what was added."""

    utterances: int
    hours: float
    added_hours: float
    seconds: float


class Teacher:
    """The teacher with its voices and the table of jobs, in one process."""

    def __init__(self, settings: Settings, work: Path, device: torch.device) -> None:
        self._settings = settings
        self._jobs = Jobs(work / "text")
        self._voices = load_arrays(work / "text" / "voices.safetensors")["voices"]
        self._device = device
        self._model = Kokoro.load(load_file(weights_path(work)), device)

    @torch.inference_mode()
    def read(self, job: int) -> Utterance | None:
        """One job; None if what the teacher says cannot be used."""
        ids = self._jobs.teacher_ids(job)
        speaker = self._jobs.speakers[self._jobs.speaker[job]]
        style = style_vector(self._voices, speaker, int(self._jobs.language[job]), len(ids))
        speed = teacher_speed(float(self._jobs.speed[job]), speaker.warp)
        spoken = self._model(torch.from_numpy(ids), torch.from_numpy(style).to(self._device), speed)
        rng = np.random.default_rng((self._settings.seed, job))
        return to_utterance(job, ids, on_cpu(spoken), speaker.warp, self._settings.generate, rng)


def generate(
    settings: Settings, work: Path, device: torch.device, budget_s: float, num_jobs: int | None = None
) -> Generated:
    """Add to WORK/corpus until settings.generate.hours, the jobs' end or the budget.

    num_jobs: only that many of the jobs that are still to be read
    SIGTERM ends the budget: what was begun is written.
    Raises RecipeError if the jobs or the teacher cannot be used, or every process failed.
    """
    budget = TimeBudget(budget_s)
    corpus = work / "corpus"
    validate(settings, work)  # all of it, on the CPU, before any process touches the GPU
    done, samples = finished(corpus)
    jobs = range(settings.generate.first_job, len(Jobs(work / "text")))
    todo = [job for job in jobs if job not in done][:num_jobs]
    before = samples / SAMPLE_RATE / 3600
    logger.info("corpus: %d utterances, %.2f h; %d jobs to read", len(done), before, len(todo))
    if not todo or before >= settings.generate.hours:
        return Generated(len(done), before, 0.0, 0.0)
    prepare_weights(work)
    processes = min(settings.generate.processes, len(todo)) if device.type == "cuda" else 1
    context = multiprocessing.get_context("spawn")
    stop, reports = context.Event(), context.Queue()
    workers = [
        context.Process(
            target=_work,
            args=(number, todo[number::processes], settings, work, str(device), processes, stop, reports),
        )
        for number in range(processes)
    ]
    for worker in workers:
        worker.start()
    try:
        with budget.stopped_by_sigterm():
            added = _watch(workers, reports, settings.generate.hours - before, budget)
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    while not reports.empty():
        added += reports.get()
    failed = sum(worker.exitcode != 0 for worker in workers)
    if failed:
        logger.error("%d of %d processes failed; see their messages above", failed, processes)
    if failed == processes:
        raise RecipeError("the teacher failed in every process")
    done, samples = finished(corpus)
    rate = added / budget.elapsed
    logger.info("added %.2f h in %.0f s, %.1f times real time", added / 3600, budget.elapsed, rate)
    return Generated(len(done), samples / SAMPLE_RATE / 3600, added / 3600, budget.elapsed)


def finished(corpus: Path) -> tuple[set[int], int]:
    """The jobs that are in the shards, and their samples in all."""
    done: set[int] = set()
    samples = 0
    for path in sorted(corpus.glob("shard-*.safetensors")):
        with safe_open(path, "np") as shard:
            done.update(shard.get_tensor("job").tolist())
            samples += int(shard.get_tensor("length").sum())
    return done, samples


def weights_path(work: Path) -> Path:
    return work / "cache" / "teacher.safetensors"


def prepare_weights(work: Path) -> None:
    """Join and dequantise the parts of WORK/teacher once, for all processes."""
    path = weights_path(work)
    if path.is_file():
        return
    weights = dequantise(read_teacher(work / "teacher"))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".tmp")
    save_file(weights, partial)
    partial.replace(path)


class Reader(Protocol):
    """The teacher, or what stands for it in a test."""

    def read(self, job: int) -> Utterance | None: ...


class Stop(Protocol):
    """multiprocessing's event."""

    def is_set(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class _StopOrOrphaned:
    """Set too when the parent was killed: nobody else would end this process."""

    stop: Event

    def is_set(self) -> bool:
        parent = multiprocessing.parent_process()
        return self.stop.is_set() or (parent is not None and not parent.is_alive())


class Reports(Protocol):
    """Seconds of speech that were written, from the processes to the parent."""

    def put(self, seconds: float) -> None: ...

    def get(self, block: bool = True, timeout: float | None = None) -> float: ...


def read_jobs(
    reader: Reader, jobs: Sequence[int], paths: Iterator[Path], per_shard: int, stop: Stop, reports: Reports
) -> None:
    """Write the utterances of `jobs` to shards until the last one or `stop`; what is begun is written.

    A job that fails is skipped, with its traceback in the log; after too many of them the error is raised.
    """
    pending: list[Utterance] = []
    failures = 0
    for job in jobs:
        if stop.is_set():
            break
        try:
            utterance = reader.read(job)
        except (RecipeError, RuntimeError):
            failures += 1
            logger.exception("job %d cannot be read", job)
            if failures > _SKIPS_TOLERATED:
                raise
            continue
        if utterance is not None:
            pending.append(utterance)
        if len(pending) >= per_shard:
            _flush(pending, paths, reports)
    _flush(pending, paths, reports)


def _flush(pending: list[Utterance], paths: Iterator[Path], reports: Reports) -> None:
    if pending:
        write_shard(next(paths), pending)
        reports.put(sum(len(item.wav) for item in pending) / SAMPLE_RATE)
        pending.clear()


def shard_paths(corpus: Path, process: int) -> Iterator[Path]:
    """Free names shard-KKK-NNN, after those that an earlier run left."""
    taken = {path.name for path in corpus.glob(f"shard-{process:03d}-*.safetensors")}
    number = 0
    while True:
        name = f"shard-{process:03d}-{number:03d}.safetensors"
        if name not in taken:
            yield corpus / name
        number += 1


def _work(
    number: int,
    jobs: Sequence[int],
    settings: Settings,
    work: Path,
    device_name: str,
    processes: int,
    stop: Event,
    reports: Reports,
) -> None:
    logging.basicConfig(level=logging.INFO, format=f"teacher {number}: %(message)s")
    torch.set_num_threads(1)
    device = torch.device(device_name)
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(_MEMORY_SHARE / processes, device.index or 0)
        torch.backends.cuda.matmul.allow_tf32 = True
    teacher = Teacher(settings, work, device)
    paths = shard_paths(work / "corpus", number)
    per_shard = settings.generate.utterances_per_shard
    read_jobs(teacher, jobs, paths, per_shard, _StopOrOrphaned(stop), reports)


def _watch(
    workers: Sequence[multiprocessing.process.BaseProcess],
    reports: Reports,
    hours: float,
    budget: TimeBudget,
) -> float:
    """Show progress until there are so many hours, the budget or all workers are at an end; seconds of speech."""
    added, begin = 0.0, budget.elapsed
    with _shown(hours) as show:
        while any(worker.is_alive() for worker in workers) and budget.left > 0 and added / 3600 < hours:
            try:
                added += reports.get(timeout=0.5)
            except queue.Empty:
                continue
            rate = added / max(1e-3, budget.elapsed - begin)
            show(added / 3600, f"{added / 3600:.2f} of {hours:.1f} h, {rate:.0f} times real time")
    return added


@contextmanager
def _shown(hours: float) -> Iterator[Callable[[float, str], None]]:
    """A progress bar on a terminal; elsewhere, or without rich, as training machines may be, lines in the log."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    except ImportError:
        yield _logged()
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _logged()
        return
    columns = (TextColumn("speech"), BarColumn(), TextColumn("{task.fields[state]}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("speech", total=hours, state="")
        yield lambda done, state: progress.update(task, completed=done, state=state)


def _logged() -> Callable[[float, str], None]:
    last = -_LOG_EVERY_S

    def show(_done: float, state: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _LOG_EVERY_S:
            logger.info("%s", state)
            last = time.monotonic()

    return show
