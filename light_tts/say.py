"""`light-tts say`: speak a text, a batch of jobs, or a recording in another voice, into WAV files."""

from __future__ import annotations

import codecs
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from light_tts.audio import Audio
from light_tts.encode.text import language_of
from light_tts.errors import InvalidInput, LightTTSError
from light_tts.request import SynthesisRequest
from light_tts.synthesizer import LightTTS

_JOB_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,99}")
_JOB_FIELDS = {"id", "text", "lang", "voice", "prompt_wav", "prompt_text", "instruct_text", "seed", "speed"}


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a synthesis took: seconds until the first sample and until the last."""

    first_s: float
    total_s: float
    audio_s: float

    @property
    def rtf(self) -> float:
        """Seconds of work for a second of audio."""
        return self.total_s / self.audio_s if self.audio_s else 0.0


def speak(engine: LightTTS, request: SynthesisRequest, *, stream: bool) -> tuple[Audio, Timing]:
    """Synthesise one request, whole or chunk by chunk."""
    start = time.perf_counter()
    if not stream:
        audio = engine.run(request)
        total = time.perf_counter() - start
        return audio, Timing(total, total, audio.duration_s)
    chunks: list[np.ndarray] = []
    first = 0.0
    for chunk in engine.run_stream(request):
        first = first or time.perf_counter() - start
        chunks.append(chunk.samples)
    audio = Audio(np.concatenate(chunks), engine.sample_rate_hz)
    return audio, Timing(first, time.perf_counter() - start, audio.duration_s)


def read_jobs(path: Path) -> Iterator[tuple[int, dict[str, object] | LightTTSError]]:
    """(line number, job) for every non-empty line; a line that is no job gives the error instead."""
    # Not `splitlines`: JSON text may hold characters that it takes for ends of lines.
    for number, line in enumerate(path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            yield number, _parse_job(line)
        except InvalidInput as error:
            yield number, error


def _parse_job(line: bytes) -> dict[str, object]:
    try:
        job = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # also of encodings and of huge numbers
        raise InvalidInput(f"not JSON: {error}") from error
    if not isinstance(job, dict) or not isinstance(job.get("text"), str):
        raise InvalidInput('a job is a JSON object with a string "text"')
    if not _JOB_ID.fullmatch(str(job.get("id", ""))):
        raise InvalidInput(
            f'"id" is {job.get("id")!r}; it names a file: letters, digits, "_", "-" and "." only'
        )
    return job


def job_request(job: dict[str, object], folder: Path) -> SynthesisRequest:
    """The request of one job; `prompt_wav` is relative to `folder`, where the jobs file lies."""
    wav = job.get("prompt_wav")
    for name in ("lang", "voice", "prompt_wav", "prompt_text", "instruct_text"):
        if not isinstance(job.get(name), (str, type(None))):
            raise InvalidInput(f'"{name}" is {job[name]!r}, it must be a string')
    seed, speed = job.get("seed"), job.get("speed", 1.0)
    if not isinstance(seed, int | None) or not isinstance(speed, int | float):
        raise InvalidInput(f'"seed" must be an integer and "speed" a number, not {seed!r} and {speed!r}')
    return SynthesisRequest(
        text=str(job["text"]),
        voice=_text(job, "voice"),
        prompt_audio=folder / str(wav) if wav else None,
        prompt_text=_text(job, "prompt_text") if wav else None,
        instruct_text=_text(job, "instruct_text"),
        seed=seed,
        speed=speed,
    )


def _text(job: dict[str, object], name: str) -> str | None:
    value = job.get(name)
    return value if isinstance(value, str) else None


def run_batch(
    engine: LightTTS, jobs_file: Path, out: Path, *, stream: bool, seed: int | None, console: Console
) -> int:
    """Speak every job into `out`/ID.wav and write `out`/manifest.jsonl; returns how many jobs failed.

    A bad line is reported and skipped. The manifest has one line per written file: wav, text, lang, prompt_wav,
    gen_s (seconds of work), rtf, first_s (seconds to the first chunk).
    """
    jobs = list(read_jobs(jobs_file))
    if not jobs:
        raise InvalidInput(f"{jobs_file} holds no jobs, one JSON object a line")
    out.mkdir(parents=True, exist_ok=True)
    failed = 0
    used: set[str] = set()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        (out / "manifest.jsonl").open("w", encoding="utf-8") as manifest,
        Progress(*columns, console=console) as bar,
    ):
        task = bar.add_task("speaking", total=len(jobs))
        for number, job in jobs:
            try:
                if isinstance(job, LightTTSError):
                    raise job
                _take_id(str(job["id"]), used)
                line = _run_job(engine, job, jobs_file.parent, out, stream=stream, seed=seed)
                manifest.write(json.dumps(line, ensure_ascii=False) + "\n")
                manifest.flush()
            except LightTTSError as error:
                failed += 1
                text = f"{jobs_file.name}:{number}: {error.code}: {error}"
                console.print(text, style="red", markup=False, highlight=False, soft_wrap=True)
            bar.advance(task)
    return failed


def _take_id(job_id: str, used: set[str]) -> None:
    """Raises InvalidInput for an id that an earlier line has: its file would be overwritten."""
    if job_id.lower() in used:  # some file systems do not tell case
        raise InvalidInput(f'"id" is {job_id!r}, which an earlier line has')
    used.add(job_id.lower())


def _run_job(
    engine: LightTTS, job: dict[str, object], folder: Path, out: Path, *, stream: bool, seed: int | None
) -> dict[str, object]:
    unknown = sorted(set(job) - _JOB_FIELDS)
    if job.get("seed") is None and seed is not None:
        job = {**job, "seed": seed}
    request = job_request(job, folder)
    audio, timing = speak(engine, request, stream=stream)
    name = f"{job['id']}.wav"
    audio.save(out / name)
    line: dict[str, object] = {
        "wav": name,
        "text": job["text"],
        "lang": job.get("lang") or language_of(request.text),
    }
    if isinstance(request.prompt_audio, Path):
        line["prompt_wav"] = str(request.prompt_audio.resolve())
    line |= {
        "gen_s": round(timing.total_s, 4),
        "rtf": round(timing.rtf, 4),
        "first_s": round(timing.first_s, 4),
    }
    return line | ({"ignored_fields": unknown} if unknown else {})
