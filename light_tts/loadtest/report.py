"""Figures as a table, as JSON and as a plot."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from light_tts.loadtest.figures import Figures, Percentiles


def as_table(figures: Sequence[Figures], title: str) -> Table:
    columns = ("clients", "failed", "req/s", "audio-s/s", "TTFA s", "latency s", "RTF", "dry")
    table = Table(*columns, title=title, box=SIMPLE_HEAD, padding=0, pad_edge=False)  # 80 columns wide
    table.caption = "TTFA and latency: P50/P90/P99; RTF: P50; dry: answers whose player ran out of audio"
    for level in figures:
        table.add_row(
            f"{level.concurrency} {_mode(level)}",
            f"{level.failures}/{level.requests}",
            f"{level.requests_per_s:.2f}",
            f"{level.audio_s_per_s:.2f}",
            _times(level.ttfa_s) if level.stream else "-",
            _times(level.latency_s),
            "-" if level.rtf is None else f"{level.rtf.p50:.2f}",
            f"{level.underruns}",
            style="red" if level.failures else None,
        )
    return table


def faults_of(figures: Sequence[Figures]) -> list[str]:
    """A line for each kind of failure."""
    return [
        f"{_mode(level)}, {level.concurrency} clients: {number}x {fault}"
        for level in figures
        for fault, number in level.faults.items()
    ]


def as_json(figures: Sequence[Figures], settings: dict[str, str]) -> str:
    document = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "client": platform.platform(),
        "settings": settings,
        "levels": [asdict(level) for level in figures],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def can_plot() -> bool:
    """Whether matplotlib is there: it is in the extra `plot`, which a server has no need of."""
    return find_spec("matplotlib") is not None


def write_plot(figures: Sequence[Figures], target: Path) -> None:
    """Latency, time to first audio and throughput over the number of clients. Raises ImportError unless `can_plot`."""
    from matplotlib.figure import Figure

    plot = Figure(figsize=(12, 4), layout="constrained")
    titles = ("time to first audio, s", "latency, s", "audio seconds a second")
    for axes, title in zip(plot.subplots(1, 3), titles, strict=True):
        axes.set(title=title, xlabel="clients")
        for stream in sorted({level.stream for level in figures}):
            levels = [
                level for level in figures if level.stream is stream and level.latency_s and level.ttfa_s
            ]
            clients, name = [level.concurrency for level in levels], "stream" if stream else "buffered"
            if title.startswith("audio"):
                axes.plot(clients, [level.audio_s_per_s for level in levels], marker="o", label=name)
                continue
            times = [level.ttfa_s if title.startswith("time") else level.latency_s for level in levels]
            for percentile, style in (("p50", "-"), ("p99", ":")):
                values = [getattr(one, percentile) for one in times]
                axes.plot(clients, values, style, marker="o", label=f"{name} {percentile.upper()}")
        axes.set_xticks(sorted({level.concurrency for level in figures}))
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend()
    plot.savefig(target, dpi=120, format="png")


def _mode(level: Figures) -> str:
    return "stream" if level.stream else "buffered"


def _times(values: Percentiles | None) -> str:
    if values is None:
        return "-"
    return "/".join(f"{value:.{2 if value < 10 else 1}f}" for value in (values.p50, values.p90, values.p99))
