"""The command behind `scripts/monitor.py`."""

from __future__ import annotations

import argparse
import sys
import time

from rich.console import Console
from rich.live import Live

from light_tts.monitor.readings import Watcher
from light_tts.monitor.view import as_json, as_table


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 the server could be read, 1 it could not (with --once), 130 interrupted."""
    parser = argparse.ArgumentParser(
        description="Shows CPU, memory, GPUs, requests per second and queues until Ctrl-C."
    )
    parser.add_argument(
        "--url", default="http://localhost:8080", help="of the server (default http://localhost:8080)"
    )
    parser.add_argument("--interval", type=float, default=5.0, help="seconds between updates (default 5)")
    parser.add_argument("--once", action="store_true", help="one view of the next second, then end")
    parser.add_argument("--json", action="store_true", help="a line of JSON a view, for scripts")
    options = parser.parse_args(arguments)
    if not options.interval >= 0.1:
        parser.error(f"--interval is {options.interval}, it must be at least 0.1")
    watcher = Watcher(options.url)
    try:
        return _once(watcher, as_lines=options.json) if options.once else _live(watcher, options)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `monitor.py --json | head -1`
        sys.stderr.close()
        return 0


def _once(watcher: Watcher, *, as_lines: bool) -> int:
    watcher.server()
    time.sleep(1.0)  # rates need two readings
    machine, server = watcher.machine(), watcher.server()
    if as_lines:
        sys.stdout.write(as_json(machine, server) + "\n")
    else:
        Console().print(as_table(machine, server))
    return 0 if server.fault is None else 1


def _live(watcher: Watcher, options: argparse.Namespace) -> int:
    if options.json:
        while True:
            sys.stdout.write(as_json(watcher.machine(), watcher.server()) + "\n")
            sys.stdout.flush()
            time.sleep(options.interval)
    with Live(console=Console(), auto_refresh=False) as live:
        while True:
            live.update(as_table(watcher.machine(), watcher.server()), refresh=True)
            time.sleep(options.interval)
