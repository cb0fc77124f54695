"""`light-tts logs`: how long requests and their stages took, from the server's log."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from rich.table import Table

ALL = "all lines"
REQUEST = "request"
_COST = re.compile(r"(?:\bstage (?P<stage>\w+) )?cost_time (?P<ms>\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)ms$")


@dataclass(frozen=True, slots=True)
class Summary:
    """Times in milliseconds; percentiles are measured values, never in between."""

    count: int
    avg_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float


def read_costs(lines: Iterable[str]) -> dict[str, list[float]]:
    """Times in milliseconds by stage, `REQUEST` for whole requests, `ALL` for everything; first seen comes first."""
    costs: dict[str, list[float]] = {ALL: []}
    for line in lines:
        found = _COST.search(line.rstrip())
        if found is None:
            continue
        cost = float(found["ms"])
        costs.setdefault(found["stage"] or REQUEST, []).append(cost)
        costs[ALL].append(cost)
    return costs


def summarize(costs: list[float]) -> Summary | None:
    """As the deployment guide's `sort -n | awk` does it: P50 is value number int(0.5 * count), counted from 1."""
    if not costs:
        return None
    ordered = sorted(costs)

    def percentile(share: float) -> float:
        return ordered[max(1, int(len(ordered) * share)) - 1]

    average = sum(costs) / len(costs)
    return Summary(len(costs), average, percentile(0.5), percentile(0.9), percentile(0.99))


def report(lines: Iterable[str]) -> dict[str, Summary]:
    """Summaries by stage, `ALL` last. Empty if no line tells a time."""
    costs = read_costs(lines)
    whole = costs.pop(ALL)
    summaries = {name: summarize(values) for name, values in sorted(costs.items())}
    summaries[ALL] = summarize(whole)
    return {name: summary for name, summary in summaries.items() if summary is not None}


def report_of(source: Path | TextIO) -> dict[str, Summary]:
    """Raises OSError. Bytes that are no UTF-8 do not stop it: a log may end in the middle of a character."""
    if not isinstance(source, Path):
        return report(source)
    with source.open(encoding="utf-8", errors="replace") as file:
        return report(file)


def as_table(summaries: dict[str, Summary]) -> Table:
    table = Table("stage", "count", "avg", "P50", "P90", "P99")
    for name, summary in summaries.items():
        times = (summary.avg_ms, summary.p50_ms, summary.p90_ms, summary.p99_ms)
        table.add_row(name, str(summary.count), *(f"{ms:.1f} ms" for ms in times))
    return table


def as_json(summaries: dict[str, Summary]) -> str:
    return json.dumps({name: asdict(summary) for name, summary in summaries.items()}, indent=1)
