"""`light-tts bench --random-weights`: its options, and from them to a run."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from rich.console import Console

from light_tts.errors import InvalidInput

NAMES = ("cosyvoice2-0.5b", "cosyvoice3-0.5b", "mini")
CALLERS = "1,2,4,8,16,32,64,100"


def add_random_options(bench: argparse.ArgumentParser) -> None:
    group = bench.add_argument_group("whole run on random weights: stages alone, then the server over HTTP")
    group.add_argument(
        "--random-weights", choices=NAMES, help="size of the model; mini is the bundled voice's"
    )
    group.add_argument(
        "--out", type=Path, default=Path("bench-out"), help="folder of bench.json, bench.png and logs"
    )
    group.add_argument(
        "--callers", default=CALLERS, help=f"levels of callers and batches (default {CALLERS})"
    )
    group.add_argument("--seconds", type=float, default=10.0, help="of speech of each utterance (default 10)")
    group.add_argument("--parts", help="some of llm,flow,vocoder,stream,server (default: all)")
    group.add_argument("--limit-s", type=float, default=540.0, help="for everything (default 540)")
    group.add_argument("--server-flags", default="", help="further flags of the server, as one argument")


def run_random(options: argparse.Namespace, console: Console) -> int:
    """Exit status: 0 all was measured, 1 a part or a request failed. Raises InvalidInput."""
    given = {
        "--model_dir": options.model_dir,
        "--text": options.text,
        "--json": options.json,
        "--profile": options.profile or None,
    }
    if unread := [flag for flag, value in given.items() if value is not None]:
        raise InvalidInput(f"{', '.join(unread)} cannot be used with --random-weights")
    if options.out.exists() and not options.out.is_dir():
        raise InvalidInput(f"--out {options.out} is a file, it must be a folder")
    from light_tts.bench.full_report import plot, show  # imports torch: only when it is needed
    from light_tts.bench.full_run import Job, parse_numbers, parts_of, run

    job = Job(
        size=options.random_weights,
        out=options.out,
        device=options.device,
        dtype=options.dtype,
        parts=tuple(parts_of(options.parts)),
        callers=parse_numbers(options.callers, "--callers"),
        seconds=options.seconds,
        limit_s=options.limit_s,
        flags=tuple(shlex.split(options.server_flags)),
    )
    report = run(job, console)
    show(report, console)
    if not plot(report, options.out / "bench.png"):
        console.print("no bench.png: there are no levels, or matplotlib (extra: plot) is not installed")
    return 1 if report.failed or any(level.failures for level in report.levels) else 0
