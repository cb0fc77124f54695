"""`light-tts bench`: load time, RTF, time to first audio, memory and stage shares of one model on this machine."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
import torch
from rich.console import Console
from rich.table import Table

from light_tts.encode.text import language_of
from light_tts.request import SynthesisRequest
from light_tts.say import Timing, speak
from light_tts.synthesizer import LightTTS

SENTENCES = {
    "en": "The morning train was almost empty, so I took a seat by the window and watched the fields go by.",
    "zh": "收到好友从远方寄来的生日礼物，那份意外的惊喜与深深的祝福让我心中充满了甜蜜的快乐。",
}


@dataclass(slots=True)
class Figures:
    """What one run measured. Times in seconds, memory in MiB; lists hold one value a run."""

    machine: str
    torch_version: str
    threads: int
    load_s: float
    load_rss_mib: float
    peak_rss_mib: float = 0.0
    first_request_s: float = 0.0
    voice_s: float = 0.0
    rtf_whole: dict[str, list[float]] = field(default_factory=dict)
    rtf_stream: dict[str, list[float]] = field(default_factory=dict)
    first_audio_s: dict[str, list[float]] = field(default_factory=dict)
    stage_share: dict[str, float] = field(default_factory=dict)
    operators: str = ""

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def measure(
    model_dir: Path | None,
    device: str,
    dtype: str,
    threads: int | None,
    repeats: int,
    *,
    profile: bool,
    text: str | None = None,
) -> Figures:
    """Load the model and speak each sentence `repeats` times, whole and streamed, with its default voice.

    text: speak this in place of the built-in sentences
    """
    sentences = SENTENCES if text is None else {language_of(text): text}
    process = psutil.Process()
    start = time.perf_counter()
    engine = LightTTS(model_dir, device, dtype=dtype, num_threads=threads)
    figures = Figures(
        machine=f"{psutil.cpu_count(logical=True)} cores, {torch.backends.cpu.get_cpu_capability()}",
        torch_version=torch.__version__,
        threads=torch.get_num_threads(),
        load_s=time.perf_counter() - start,
        load_rss_mib=process.memory_info().rss / 2**20,
    )
    start = time.perf_counter()
    _timing(engine, next(iter(sentences.values())), stream=False)
    figures.first_request_s = time.perf_counter() - start
    figures.voice_s = engine.times.seconds.get("voice", 0.0)
    engine.times.reset()
    for language, sentence in sentences.items():
        whole = [_timing(engine, sentence, stream=False, seed=k) for k in range(repeats)]
        figures.rtf_whole[language] = [round(t.rtf, 4) for t in whole]
    total = sum(engine.times.seconds.values())
    figures.stage_share = {name: round(s / total, 3) for name, s in engine.times.seconds.items()}
    for language, sentence in sentences.items():
        streamed = [_timing(engine, sentence, stream=True, seed=k) for k in range(repeats)]
        figures.rtf_stream[language] = [round(t.rtf, 4) for t in streamed]
        figures.first_audio_s[language] = [round(t.first_s, 4) for t in streamed]
    if profile:
        figures.operators = _operators(engine, next(iter(sentences.values())))
    figures.peak_rss_mib = process.memory_info().rss / 2**20
    return figures


def _timing(engine: LightTTS, text: str, *, stream: bool, seed: int = 0) -> Timing:
    return speak(engine, SynthesisRequest(text=text, seed=seed), stream=stream)[1]


def _operators(engine: LightTTS, text: str) -> str:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        _timing(engine, text, stream=False)
    return str(
        profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=15, max_name_column_width=40)
    )


def show(figures: Figures, console: Console) -> None:
    """Print the figures as a table of medians."""
    table = Table(
        "figure",
        "value",
        title=f"{figures.machine}, torch {figures.torch_version}, {figures.threads} threads",
    )
    table.add_row("load", f"{figures.load_s:.2f} s")
    table.add_row(
        "memory after load / at the end", f"{figures.load_rss_mib:.0f} / {figures.peak_rss_mib:.0f} MiB"
    )
    table.add_row(
        "first request (voice included)", f"{figures.first_request_s:.2f} s ({figures.voice_s:.2f} s)"
    )
    for language in figures.rtf_whole:
        table.add_row(f"RTF whole, {language}", f"{statistics.median(figures.rtf_whole[language]):.3f}")
        table.add_row(f"RTF streamed, {language}", f"{statistics.median(figures.rtf_stream[language]):.3f}")
        table.add_row(
            f"first audio, {language}", f"{statistics.median(figures.first_audio_s[language]) * 1000:.0f} ms"
        )
    for stage, share in figures.stage_share.items():
        table.add_row(f"share of {stage}", f"{share:.0%}")
    console.print(table)
    if figures.operators:
        console.print(figures.operators, markup=False, highlight=False)
