"""Run every recorded case of a directory through this project's code: `./scripts/check-parity DIR`."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from test.parity.recording import Recording
from test.parity.report import Report

STAGES = ("frontend", "audio", "llm", "flow", "hift", "e2e", "about")


def run(folder: Path) -> Report:
    """Check all recordings in `folder`; a recording or a leaf that no stage covers is a failure."""
    report = Report()
    known: dict[str, list[Recording]] = {}
    for stage in STAGES:
        module = importlib.import_module(f"test.parity.{stage}")
        try:
            used: list[Recording] = module.check(folder, report)
        except Exception as error:  # one broken stage must not hide the others
            report.fail(stage, "-", f"{type(error).__name__}: {error}"[:300])
            continue
        for recording in used:
            known.setdefault(recording.name, []).append(recording)
    for path in sorted((folder / "fixtures").glob("*")):
        if path.suffix in (".json", ".safetensors") and path.stem not in known:
            report.fail(path.stem, path.name, "not covered by any check")
    for name, recordings in known.items():
        for disagreement in recordings[0].header_errors():
            report.fail(name, "shapes", disagreement)
        unused = set.intersection(*(set(recording.unused()) for recording in recordings))
        for leaf in sorted(unused):
            report.fail(name, leaf, "not covered by any check")
    if not report.rows:
        report.fail(str(folder), "-", "nothing found")
    return report


def show(report: Report, console: Console, only_failures: bool) -> None:
    table = Table("case", "tensor", "max abs difference", "tolerance", "")
    for row in report.failures if only_failures else report.rows:
        verdict = "[green]pass[/]" if row.passed else "[bold red]FAIL[/]"
        table.add_row(row.case, row.tensor, row.difference, row.tolerance, verdict)
    console.print(table)
    console.print(f"{len(report.rows) - len(report.failures)} passed, {len(report.failures)} failed")


def main() -> int:
    parser = argparse.ArgumentParser(prog="check-parity", description=__doc__)
    parser.add_argument("folder", type=Path, help="directory with cosyvoice2/, cosyvoice3/ and fixtures/")
    parser.add_argument("--failures", action="store_true", help="list failing rows only")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the recordings were made with one thread
    console = Console(width=None if sys.stdout.isatty() else 150)
    if not (arguments.folder / "fixtures").is_dir():
        console.print(f"no recordings: {arguments.folder}/fixtures is not a directory")
        return 2
    with torch.inference_mode():
        report = run(arguments.folder)
    show(report, console, arguments.failures)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
