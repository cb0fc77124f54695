"""The diagnosis on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from light_tts.doctor.findings import Diagnosis, Finding, Level

STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.ERROR: "bold red"}


def print_diagnosis(diagnosis: Diagnosis, console: Console) -> None:
    """One row per finding, then a line with the verdict."""
    table = Table(show_header=False, box=None, padding=(0, 1))
    previous = ""
    for finding in diagnosis.findings:
        part = finding.part if finding.part != previous else ""
        table.add_row(Text(finding.level.value, STYLES[finding.level]), Text(part, "bold"), _message(finding))
        previous = finding.part
    console.print(table)
    verdict = "no errors" if diagnosis.healthy else f"{diagnosis.num_errors} errors"
    style = "green" if diagnosis.healthy else "bold red"
    console.print(Text(f"{verdict}, {diagnosis.num_warnings} warnings", style))


def _message(finding: Finding) -> Text:
    """Plain text: names from a file may hold what rich would read as markup."""
    return Text("\n".join([finding.message, *finding.details]))
