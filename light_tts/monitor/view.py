"""One moment as a table for people, or as a line for scripts."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict

from rich.columns import Columns
from rich.console import Group
from rich.table import Table

from light_tts.monitor.readings import Machine, Server


def as_json(machine: Machine, server: Server) -> str:
    """One line for scripts. A utilization that the driver does not tell is null."""
    document = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **asdict(machine), "server": asdict(server)}
    for gpu in document["gpus"]:
        if math.isnan(gpu["utilization_percent"]):
            gpu["utilization_percent"] = None
    return json.dumps(document, ensure_ascii=False)


def as_table(machine: Machine, server: Server) -> Group:
    """Not higher than a terminal of 24 lines where there are few GPUs."""
    top = (
        [_machine_table(machine)] if server.fault is not None else [_machine_table(machine), _stages(server)]
    )
    return Group(Columns(top), _server_table(server))


def _machine_table(machine: Machine) -> Table:
    table = Table("machine", "busy", "memory", title=time.strftime("%Y-%m-%d %H:%M:%S"), title_justify="left")
    memory = f"{machine.memory_percent:.1f}% ({machine.memory_used_gb:.1f} GB)"
    table.add_row("CPU", f"{machine.cpu_percent:.1f}%", memory)
    for gpu in machine.gpus:
        used = f"{gpu.memory_used_gb:.1f}/{gpu.memory_total_gb:.1f} GB"
        table.add_row(f"GPU {gpu.index} {gpu.name}", f"{gpu.utilization_percent:.1f}%", used)
    return table


def _server_table(server: Server) -> Table:
    table = Table("server", server.url)
    if server.fault is not None:
        table.add_row("state", f"cannot be read: {server.fault}", style="red")
        return table
    table.add_row("state", server.health, style=None if server.health == "ok" else "red")
    table.add_row("TPS (requests/s)", f"{server.requests_per_s:.1f}")
    table.add_row("audio s/s", f"{server.audio_s_per_s:.1f}")
    table.add_row("first audio / latency", f"{_seconds(server.ttfa_s)} / {_seconds(server.latency_s)}")
    table.add_row("KV tokens", f"{server.kv_used:.0f} of {server.kv_total:.0f}")
    table.add_row("restarts", f"{server.restarts:.0f}")
    table.add_row("requests so far", ", ".join(f"{k} {v:.0f}" for k, v in server.requests.items()) or "none")
    return table


def _stages(server: Server) -> Table:
    table = Table("stage", "queued", "oldest", "running", title="queues", title_justify="left")
    for name, load in server.stages.items():
        table.add_row(name, f"{load.queued:.0f}", f"{load.oldest_s:.1f} s", f"{load.running:.0f}")
    return table


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"
