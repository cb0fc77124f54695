"""Every Prometheus metric of the server, as one object that each process makes once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # At run time only within functions: prometheus_client looks at PROMETHEUS_MULTIPROC_DIR when it is imported.
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

MULTIPROC_DIR = "PROMETHEUS_MULTIPROC_DIR"
METRICS_FOLDER = "metrics"

_LATENCY_S = (
    0.05,
    0.1,
    0.2,
    0.3,
    0.5,
    0.75,
    1.0,
    1.5,
    2.0,
    3.0,
    5.0,
    7.5,
    10.0,
    20.0,
    30.0,
    60.0,
    120.0,
    300.0,
)
_TTFA_S = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0)
_STAGE_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_RTF = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0, 10.0)
_AUDIO_S = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
_UNDERRUN_S = (0.0, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_BATCH = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0, 192.0, 256.0)


@dataclass(frozen=True, slots=True)
class Metrics:
    """Who writes what is noted at each group; names in `metrics`."""

    registry: CollectorRegistry
    # HTTP workers, per finished request
    requests: Counter  # outcome: ok | cancelled | an error code
    request_latency: Histogram
    ttfa: Histogram
    rtf: Histogram
    audio_seconds: Counter
    underrun: Histogram
    continuity_ok: Counter
    route_requests: Counter  # route; this and the next four keep upstream's names
    route_success: Counter
    route_failure: Counter
    route_duration: Histogram
    route_latency: Histogram
    audio_ttfp: Histogram  # this and the next five have the names of peers' dashboards
    audio_rtf: Histogram
    audio_e2e: Histogram
    audio_duration: Histogram
    audio_underrun: Histogram
    audio_continuity_ok: Counter
    # encode, LLM and decode processes
    stage_seconds: Histogram  # stage
    batch_size: Histogram  # stage
    kv_tokens: Gauge  # state: used | total
    voice_cache: Counter  # result: hit | miss | evicted
    # the supervisor
    queue_size: Gauge  # stage, as the next two
    queue_oldest: Gauge
    running: Gauge
    restarts: Counter  # stage
    gpu_memory: Gauge  # gpu, kind: used | total
    backend_info: Gauge  # stage, index, key, value
    llm_queue_size: Gauge  # upstream's name, as the next
    llm_batch_size: Gauge


def metrics() -> Metrics:
    """This process's metrics; call it once per process. Where PROMETHEUS_MULTIPROC_DIR is set, the numbers of all
    processes meet in that folder; else they stay in `registry`.
    """
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

    r = CollectorRegistry()

    def counter(name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=r)

    def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, registry=r, buckets=buckets)

    def gauge(name: str, text: str, *labels: str) -> Gauge:
        # One process writes each value, and it goes with that process.
        return Gauge(name, text, labels, registry=r, multiprocess_mode="livemostrecent")

    return Metrics(
        registry=r,
        requests=counter("light_tts_requests", "Finished requests", "outcome"),
        request_latency=histogram("light_tts_request_latency_seconds", "Request to end of audio", _LATENCY_S),
        ttfa=histogram("light_tts_ttfa_seconds", "Request to first audio", _TTFA_S),
        rtf=histogram("light_tts_rtf", "Latency per second of audio", _RTF),
        audio_seconds=counter("light_tts_audio_seconds", "Audio sent"),
        underrun=histogram(
            "light_tts_underrun_seconds", "Silence heard for want of audio, per stream", _UNDERRUN_S
        ),
        continuity_ok=counter("light_tts_continuity_ok", "Streams that never ran dry"),
        route_requests=counter("lightllm_request_count", "Requests", "route"),
        route_success=counter("lightllm_request_success", "Requests answered", "route"),
        route_failure=counter("lightllm_request_failure", "Requests failed", "route"),
        route_duration=histogram("lightllm_request_duration", "Seconds per request", _LATENCY_S, "route"),
        route_latency=histogram("lightllm_request_latency", "Seconds per request", _LATENCY_S, "route"),
        audio_ttfp=histogram("light_tts_audio_ttfp_s", "Request to first packet of audio", _TTFA_S),
        audio_rtf=histogram("light_tts_audio_rtf", "Latency per second of audio", _RTF),
        audio_e2e=histogram("light_tts_audio_e2e_latency_s", "Request to end of audio", _LATENCY_S),
        audio_duration=histogram("light_tts_audio_duration_s", "Audio per request", _AUDIO_S),
        audio_underrun=histogram(
            "light_tts_audio_underrun_s", "Silence heard for want of audio", _UNDERRUN_S
        ),
        audio_continuity_ok=counter("light_tts_audio_continuity_ok", "Streams that never ran dry"),
        stage_seconds=histogram("light_tts_stage_seconds", "Work of a stage on a request", _STAGE_S, "stage"),
        batch_size=histogram("light_tts_batch_size", "Sequences or chunks per batch", _BATCH, "stage"),
        kv_tokens=gauge("light_tts_kv_tokens", "Slots of the language model's KV pool", "state"),
        voice_cache=counter("light_tts_voice_cache", "Look-ups of voices", "result"),
        queue_size=gauge("light_tts_queue_size", "Work that waits", "stage"),
        queue_oldest=gauge("light_tts_queue_oldest_seconds", "Age of the longest waiting work", "stage"),
        running=gauge("light_tts_running", "Work being done", "stage"),
        restarts=counter("light_tts_restarts", "Processes replaced after they died or hung", "stage"),
        gpu_memory=gauge("light_tts_gpu_memory_bytes", "Memory of a GPU", "gpu", "kind"),
        backend_info=gauge("light_tts_backend_info", "What runs where", "stage", "index", "key", "value"),
        llm_queue_size=gauge("lightllm_queue_size", "Sequences that wait for the language model"),
        llm_batch_size=gauge("lightllm_batch_current_size", "Sequences that the language model continues"),
    )


def exposition(own: Metrics) -> tuple[bytes, str]:
    """Body and content type of `/metrics`: of all processes where they share a folder, else of this one alone."""
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest, multiprocess

    if not os.environ.get(MULTIPROC_DIR):
        return generate_latest(own.registry), CONTENT_TYPE_LATEST
    everything = CollectorRegistry()
    multiprocess.MultiProcessCollector(everything)  # type: ignore[no-untyped-call]
    return generate_latest(everything), CONTENT_TYPE_LATEST


def mark_dead(pid: int, folder: Path | None = None) -> None:
    """Forget the gauges of a process that ended; what it counted stays. folder: default from the environment"""
    from prometheus_client import multiprocess

    if folder is not None or os.environ.get(MULTIPROC_DIR):
        where = None if folder is None else str(folder)
        multiprocess.mark_process_dead(pid, where)  # type: ignore[no-untyped-call]
