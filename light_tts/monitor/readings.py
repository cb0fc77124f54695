"""What there is to watch: this machine, its GPUs, and the server behind a URL."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

import psutil
import pynvml
from prometheus_client.parser import text_string_to_metric_families

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Gpu:
    index: int
    name: str
    utilization_percent: float
    memory_used_gb: float
    memory_total_gb: float


@dataclass(frozen=True, slots=True)
class Machine:
    cpu_percent: float
    memory_percent: float
    memory_used_gb: float
    gpus: tuple[Gpu, ...]


@dataclass(slots=True)
class StageLoad:
    """One stage's processes together."""

    queued: float = 0.0
    oldest_s: float = 0.0
    running: float = 0.0


@dataclass(slots=True)
class Counters:
    """The parts of /metrics that only grow."""

    outcomes: dict[str, float] = field(default_factory=dict)
    audio_s: float = 0.0
    latency_sum_s: float = 0.0
    latency_count: float = 0.0
    ttfa_sum_s: float = 0.0
    ttfa_count: float = 0.0

    @property
    def requests(self) -> float:
        return sum(self.outcomes.values())


@dataclass(slots=True)
class Reading:
    """/metrics at one moment."""

    at_s: float
    counters: Counters = field(default_factory=Counters)
    stages: dict[str, StageLoad] = field(default_factory=dict)
    kv_used: float = 0.0
    kv_total: float = 0.0
    restarts: float = 0.0


@dataclass(frozen=True, slots=True)
class Server:
    """The server between two readings. fault: why it cannot be read; the rest is then empty

    ttfa_s, latency_s: means of the requests that ended since the last reading; None if none did
    """

    url: str
    fault: str | None = None
    health: str = ""
    requests_per_s: float = 0.0
    audio_s_per_s: float = 0.0
    requests: dict[str, float] = field(default_factory=dict)
    ttfa_s: float | None = None
    latency_s: float | None = None
    stages: dict[str, StageLoad] = field(default_factory=dict)
    kv_used: float = 0.0
    kv_total: float = 0.0
    restarts: float = 0.0


def parse_metrics(text: str, at_s: float) -> Reading:
    """Raises ValueError for what is no Prometheus text."""
    reading = Reading(at_s)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            _take(reading, sample.name, sample.labels, sample.value)
    return reading


def _take(reading: Reading, name: str, labels: dict[str, str], value: float) -> None:
    counters = reading.counters
    stage = reading.stages.setdefault(labels["stage"], StageLoad()) if _is_load(name, labels) else StageLoad()
    match name.removeprefix("light_tts_"):
        case "requests_total":
            outcome = labels.get("outcome", "")
            counters.outcomes[outcome] = counters.outcomes.get(outcome, 0.0) + value
        case "audio_seconds_total":
            counters.audio_s += value
        case "request_latency_seconds_sum":
            counters.latency_sum_s += value
        case "request_latency_seconds_count":
            counters.latency_count += value
        case "ttfa_seconds_sum":
            counters.ttfa_sum_s += value
        case "ttfa_seconds_count":
            counters.ttfa_count += value
        case "queue_size":
            stage.queued += value
        case "queue_oldest_seconds":
            stage.oldest_s = max(stage.oldest_s, value)
        case "running":
            stage.running += value
        case "kv_tokens" if labels.get("state") == "used":
            reading.kv_used += value
        case "kv_tokens" if labels.get("state") == "total":
            reading.kv_total += value
        case "restarts_total":
            reading.restarts += value
        case _:
            pass


def _is_load(name: str, labels: dict[str, str]) -> bool:
    gauges = ("light_tts_queue_size", "light_tts_queue_oldest_seconds", "light_tts_running")
    return name in gauges and "stage" in labels


def between(before: Reading, now: Reading, url: str, health: str) -> Server:
    """Rates and means from two readings. Counters that shrank belong to a server that was started anew."""
    old = before.counters if now.counters.requests >= before.counters.requests else Counters()
    new, seconds = now.counters, max(now.at_s - before.at_s, 1e-9)
    return Server(
        url=url,
        health=health,
        requests_per_s=(new.requests - old.requests) / seconds,
        audio_s_per_s=max(0.0, new.audio_s - old.audio_s) / seconds,
        requests=dict(sorted(new.outcomes.items())),
        ttfa_s=_mean(new.ttfa_sum_s - old.ttfa_sum_s, new.ttfa_count - old.ttfa_count),
        latency_s=_mean(new.latency_sum_s - old.latency_sum_s, new.latency_count - old.latency_count),
        stages=dict(sorted(now.stages.items())),
        kv_used=now.kv_used,
        kv_total=now.kv_total,
        restarts=now.restarts,
    )


def _mean(total: float, count: float) -> float | None:
    return total / count if count > 0 else None


class Watcher:
    """Reads machine and server again and again."""

    def __init__(self, url: str, timeout_s: float = 5.0) -> None:
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._opener = build_opener(ProxyHandler({}))
        self._last: Reading | None = None
        psutil.cpu_percent()  # the first call has nothing to compare with

    def machine(self) -> Machine:
        memory = psutil.virtual_memory()
        return Machine(psutil.cpu_percent(), memory.percent, memory.used / GIB, read_gpus())

    def server(self) -> Server:
        try:
            now = parse_metrics(self._get("/metrics")[1], time.monotonic())
            status, _ = self._get("/healthz")
        except (OSError, ValueError) as error:
            self._last = None
            return Server(self._url, fault=str(getattr(error, "reason", None) or error))
        before, self._last = self._last or now, now
        return between(before, now, self._url, "ok" if status == 200 else f"unhealthy ({status})")

    def _get(self, path: str) -> tuple[int, str]:
        try:
            with self._opener.open(self._url + path, timeout=self._timeout_s) as response:
                return response.status, response.read().decode("utf-8")
        except HTTPError as error:
            if path == "/metrics":
                raise
            return error.code, ""


def read_gpus() -> tuple[Gpu, ...]:
    """All GPUs of the machine; none where there is no driver."""
    with ExitStack() as stack:
        try:
            pynvml.nvmlInit()
            stack.callback(pynvml.nvmlShutdown)
            return tuple(_read_gpu(index) for index in range(pynvml.nvmlDeviceGetCount()))
        except pynvml.NVMLError:
            return ()


def _read_gpu(index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    try:
        busy = float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    except pynvml.NVMLError:  # not told for the slices of a partitioned GPU
        busy = float("nan")
    return Gpu(index, str(pynvml.nvmlDeviceGetName(handle)), busy, memory.used / GIB, memory.total / GIB)
