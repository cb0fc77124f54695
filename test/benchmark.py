#!/usr/bin/env python
"""Load test of a running server: `python test/benchmark.py --help`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from light_tts.loadtest.client import Plan, Shape, measure
from light_tts.loadtest.figures import Figures, figures_of
from light_tts.loadtest.report import as_json, as_table, can_plot, faults_of, write_plot

PROMPT_WAV = Path(__file__).parent / "golden/fixtures/prompt_24k.wav"
PROMPT_TEXT = "请用自然的声音朗读"
TEXTS = (  # short and long, both languages
    "这是一个性能测试",
    "The morning train was almost empty, so I took a seat by the window and watched the fields go by.",
    "收到好友从远方寄来的生日礼物，那份意外的惊喜与深深的祝福让我心中充满了甜蜜的快乐。",
    "Thank you, goodbye.",
)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 all requests answered, 1 some failed, 2 wrong usage, 130 interrupted."""
    parser = _parser()
    options = parser.parse_args(arguments)
    console = Console()
    try:
        plan = _plan(options)
        levels = [int(number) for number in options.concurrency.split(",")]
        modes = [{"stream": True, "buffered": False}[mode] for mode in options.mode.split(",")]
    except (OSError, ValueError, KeyError) as error:
        parser.error(str(error))
    if min(levels) < 1 or options.requests < 1:
        parser.error("--concurrency and --requests must be at least 1")
    if options.png is not None and not can_plot():  # said before an hour of measuring, not after it
        parser.error(
            "--png needs matplotlib, which is not installed: pip install -c constraints.txt matplotlib"
        )
    try:
        figures = asyncio.run(_run(plan, modes, levels, options, console))
    except KeyboardInterrupt:
        return 130
    console.print(as_table(figures, f"{options.url}, {plan.shape.value} requests"))
    for line in faults_of(figures):
        console.print(line, style="red", markup=False)
    _write(figures, plan, options, console)
    return 1 if any(level.failures for level in figures) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Load test of a running server, as its clients see it.")
    parser.add_argument("--url", default="http://localhost:8080", help="default http://localhost:8080")
    parser.add_argument("--requests", type=int, default=100, help="at each level (default 100)")
    parser.add_argument("--concurrency", default="1,2,4,8", help="clients at once, levels (default 1,2,4,8)")
    parser.add_argument("--mode", default="stream,buffered", help="stream, buffered or both (default)")
    parser.add_argument("--warmup", type=int, default=3, help="requests before each level that do not count")
    parser.add_argument("--shape", default="json", choices=[*Shape], help="json (the guide's) or multipart")
    parser.add_argument("--text", action="append", help="say this, may be repeated (default: four sentences)")
    parser.add_argument("--prompt-wav", type=Path, default=PROMPT_WAV, help="recording of the voice")
    parser.add_argument("--prompt-text", default=PROMPT_TEXT, help="what it says")
    parser.add_argument("--voice", help="a voice of the server, in place of a recording; '' is its default")
    parser.add_argument(
        "--field", action="append", default=[], metavar="NAME=VALUE", help="a further field of the request"
    )
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for a request (default 300)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--png", type=Path, help="also draw them into this file (extra: plot)")
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    fields = dict(field.split("=", 1) for field in options.field)
    cloned = options.voice is None
    return Plan(
        url=options.url,
        texts=tuple(options.text or TEXTS),
        prompt_wav=options.prompt_wav.read_bytes() if cloned else None,
        prompt_text=options.prompt_text,
        voice=options.voice or None,
        shape=Shape(options.shape),
        fields=fields,
        timeout_s=options.timeout,
    )


async def _run(
    plan: Plan, modes: list[bool], levels: list[int], options: argparse.Namespace, console: Console
) -> list[Figures]:
    figures = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        for stream in modes:
            for clients in levels:
                name = f"{'stream' if stream else 'buffered'}, {clients} clients"
                task = progress.add_task(name, total=options.requests)
                if options.warmup > 0:
                    progress.update(task, description=f"{name}: warm-up")
                    await measure(
                        plan, stream=stream, concurrency=clients, requests=options.warmup, done=lambda: None
                    )
                    progress.update(task, description=name)
                level = await measure(
                    plan,
                    stream=stream,
                    concurrency=clients,
                    requests=options.requests,
                    done=partial(progress.advance, task),
                )
                figures.append(figures_of(level))
    return figures


def _write(figures: list[Figures], plan: Plan, options: argparse.Namespace, console: Console) -> None:
    if options.json is not None:
        settings = {
            "url": plan.url,
            "shape": plan.shape.value,
            "voice": "recording" if plan.prompt_wav is not None else plan.voice or "default",
            "warmup": str(options.warmup),
            "texts": " | ".join(plan.texts),
            **plan.fields,
        }
        options.json.write_text(as_json(figures, settings), encoding="utf-8")
    if options.png is not None:
        write_plot(figures, options.png)


if __name__ == "__main__":
    sys.exit(main())
