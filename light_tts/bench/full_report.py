"""A whole run as tables and as a plot."""

from __future__ import annotations

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from light_tts.bench.full_run import Report
from light_tts.bench.peers import beside
from light_tts.bench.random_model import SIZES
from light_tts.loadtest.figures import Figures
from light_tts.loadtest.report import as_table, can_plot, faults_of, write_plot

PEER_SECONDS = 10.0  # of the workload that peers' figures of single stages are for


def show(report: Report, console: Console) -> None:
    """Everything that was measured, peers' figures beside it, and what failed."""
    device, speech = report.machine["device"], report.settings["speech"]
    title = f"{report.size}, random weights, {report.settings['dtype']}, {device}, {speech}"
    console.print(title, markup=False, highlight=False)
    for part, figures in report.stages.items():
        table = Table(part, "", box=SIMPLE_HEAD)
        for name, value in figures.items():
            table.add_row(name, f"{value:.2f}")
        console.print(table)
    if report.ready_s is not None:
        console.print(f"server ready after {report.ready_s:.1f} s")
    if report.levels:
        console.print(as_table(report.levels, "the server over HTTP"))
        for line in faults_of(report.levels):
            console.print(line, style="red", markup=False)
    _show_peers(report, console)
    for part, text in report.failed.items():
        console.print(f"{part} failed: {text}", style="red", markup=False, highlight=False)


def _show_peers(report: Report, console: Console) -> None:
    """Only for the released sizes and an utterance as long as theirs: anything else is other work."""
    size = SIZES[report.size]
    if not size.released or not report.settings["speech"].endswith(f", {PEER_SECONDS:g} s"):
        return
    table = Table(
        "what", "ours", "theirs", "on", "source", title="beside what others publish", box=SIMPLE_HEAD
    )
    for peer, mine in beside(comparable(report), size.version):
        what = f"{peer.part}, {peer.callers}: {peer.metric}"
        source = f"{peer.source} ({peer.note})" if peer.note else peer.source
        table.add_row(what, f"{mine:.3g}", f"{peer.value:.3g}", peer.machine, source)
    if table.row_count:
        console.print(table)


def comparable(report: Report) -> dict[tuple[str, int, str], float]:
    """Our figures as `Peer` names them."""
    ours: dict[tuple[str, int, str], float] = {}
    for batch in (1, 64):
        _take(ours, report, ("llm", batch, "tokens/s"), f"tokens a second, batch {batch}")
    for part in ("flow", "vocoder"):
        _take(ours, report, (part, 1, "ms each"), "batch 1, ms each")
    for level in report.levels:
        if level.failures == 0:
            _take_level(ours, level)
    return ours


def _take(
    ours: dict[tuple[str, int, str], float], report: Report, key: tuple[str, int, str], name: str
) -> None:
    value = report.stages.get(key[0], {}).get(name)
    if value is not None:
        ours[key] = value


def _take_level(ours: dict[tuple[str, int, str], float], level: Figures) -> None:
    part = "stream" if level.stream else "buffered"
    ours[part, level.concurrency, "audio-s/s"] = level.audio_s_per_s
    if level.rtf is not None:
        ours[part, level.concurrency, "RTF"] = level.rtf.p50
    if level.ttfa_s is not None:
        ours[part, level.concurrency, "first audio, ms"] = 1000 * level.ttfa_s.p50


def plot(report: Report, target: Path) -> bool:
    """Draw the levels; False where there are none, or no matplotlib."""
    drawn = [level for level in report.levels if level.latency_s is not None]
    if not drawn or not can_plot():
        return False
    write_plot(drawn, target)
    return True
