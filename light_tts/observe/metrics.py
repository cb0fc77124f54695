"""Every Prometheus metric of the server, as one object that each process makes once."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Literal, cast

if TYPE_CHECKING:
    # At run time only within functions: prometheus_client looks at PROMETHEUS_MULTIPROC_DIR when it is imported.
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

METRICS_FOLDER = "metrics"

_LATENCY_S = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 20, 30, 60, 120, 300)
_TTFA_S = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0)
_STAGE_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_RTF = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0, 10.0)
_AUDIO_S = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
_UNDERRUN_S = (0.0, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_BATCH = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0, 192.0, 256.0)


_Mode = Literal["livemostrecent", "livesum"]


@dataclass(frozen=True, slots=True)
class _Spec:
    """How a metric is made."""

    kind: Literal["counter", "histogram", "gauge"]
    name: str
    text: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = ()
    mode: _Mode = "livemostrecent"


def _counter(name: str, text: str, *labels: str) -> Counter:
    return cast("Counter", field(metadata={"spec": _Spec("counter", name, text, labels)}))


def _histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return cast("Histogram", field(metadata={"spec": _Spec("histogram", name, text, labels, buckets)}))


def _gauge(name: str, text: str, *labels: str, mode: _Mode = "livemostrecent") -> Gauge:
    """A value goes with the process that wrote it. mode: one process writes it, or all together are the value"""
    return cast("Gauge", field(metadata={"spec": _Spec("gauge", name, text, labels, mode=mode)}))


@dataclass(frozen=True, slots=True)
class Metrics:
    """Who writes what is noted at each group."""

    registry: CollectorRegistry

    # HTTP workers, per finished request; outcome: ok | cancelled | an error code
    requests: Counter = _counter("light_tts_requests", "Finished requests", "outcome")
    request_latency: Histogram = _histogram(
        "light_tts_request_latency_seconds", "Request to end of audio", _LATENCY_S
    )
    ttfa: Histogram = _histogram("light_tts_ttfa_seconds", "Request to first audio", _TTFA_S)
    rtf: Histogram = _histogram("light_tts_rtf", "Latency per second of audio", _RTF)
    audio_seconds: Counter = _counter("light_tts_audio_seconds", "Audio sent")
    underrun: Histogram = _histogram(
        "light_tts_underrun_seconds", "Silence heard for want of audio, per stream", _UNDERRUN_S
    )
    continuity_ok: Counter = _counter("light_tts_continuity_ok", "Streams that never ran dry")
    audio_waiting: Gauge = _gauge(
        "light_tts_audio_waiting_bytes", "Audio that readers have not taken", mode="livesum"
    )
    readers_dropped: Counter = _counter(
        "light_tts_readers_dropped", "Requests ended because too much audio waited for their readers"
    )
    # by route, with upstream's names
    route_requests: Counter = _counter("lightllm_request_count", "Requests", "route")
    route_success: Counter = _counter("lightllm_request_success", "Requests answered", "route")
    route_failure: Counter = _counter("lightllm_request_failure", "Requests failed", "route")
    route_duration: Histogram = _histogram(
        "lightllm_request_duration", "Seconds per request", _LATENCY_S, "route"
    )
    route_latency: Histogram = _histogram(
        "lightllm_request_latency", "Seconds per request", _LATENCY_S, "route"
    )
    # with the names of peers' dashboards
    audio_ttfp: Histogram = _histogram("light_tts_audio_ttfp_s", "Request to first packet of audio", _TTFA_S)
    audio_rtf: Histogram = _histogram("light_tts_audio_rtf", "Latency per second of audio", _RTF)
    audio_e2e: Histogram = _histogram("light_tts_audio_e2e_latency_s", "Request to end of audio", _LATENCY_S)
    audio_duration: Histogram = _histogram("light_tts_audio_duration_s", "Audio per request", _AUDIO_S)
    audio_underrun: Histogram = _histogram(
        "light_tts_audio_underrun_s", "Silence heard for want of audio", _UNDERRUN_S
    )
    audio_continuity_ok: Counter = _counter("light_tts_audio_continuity_ok", "Streams that never ran dry")

    # encode, LLM and decode processes; state: used | total; result: hit | miss | evicted
    stage_seconds: Histogram = _histogram(
        "light_tts_stage_seconds", "Work of a stage on a request", _STAGE_S, "stage"
    )
    batch_size: Histogram = _histogram(
        "light_tts_batch_size", "Sequences or chunks per batch", _BATCH, "stage"
    )
    flow_fallbacks: Counter = _counter(
        "light_tts_flow_fallbacks", "Utterances that TensorRT gave no numbers for, computed again without it"
    )
    kv_tokens: Gauge = _gauge("light_tts_kv_tokens", "Slots of the language model's KV pool", "state")
    voice_cache: Counter = _counter("light_tts_voice_cache", "Look-ups of voices", "result")

    # the supervisor; kind: used | total
    queue_size: Gauge = _gauge("light_tts_queue_size", "Work that waits", "stage")
    queue_oldest: Gauge = _gauge("light_tts_queue_oldest_seconds", "Age of the longest waiting work", "stage")
    running: Gauge = _gauge("light_tts_running", "Work being done", "stage")
    restarts: Counter = _counter("light_tts_restarts", "Processes replaced after they died or hung", "stage")
    gpu_memory: Gauge = _gauge("light_tts_gpu_memory_bytes", "Memory of a GPU", "gpu", "kind")
    backend_info: Gauge = _gauge(
        "light_tts_backend_info", "What runs where", "stage", "index", "key", "value"
    )
    # with upstream's names
    llm_queue_size: Gauge = _gauge("lightllm_queue_size", "Sequences that wait for the language model")
    llm_batch_size: Gauge = _gauge(
        "lightllm_batch_current_size", "Sequences that the language model continues"
    )


def metrics() -> Metrics:
    """This process's metrics; call it once per process. Where PROMETHEUS_MULTIPROC_DIR is set, the numbers of all
    processes meet in that folder; else they stay in `registry`.
    """
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    specs = {item.name: item.metadata["spec"] for item in fields(Metrics) if "spec" in item.metadata}
    return Metrics(registry, **{name: _made(spec, registry) for name, spec in specs.items()})  # type: ignore[arg-type]


def _made(spec: _Spec, registry: CollectorRegistry) -> Counter | Histogram | Gauge:
    from prometheus_client import Counter, Gauge, Histogram

    match spec.kind:
        case "counter":
            return Counter(spec.name, spec.text, spec.labels, registry=registry)
        case "histogram":
            return Histogram(spec.name, spec.text, spec.labels, registry=registry, buckets=spec.buckets)
        case "gauge":
            return Gauge(spec.name, spec.text, spec.labels, registry=registry, multiprocess_mode=spec.mode)
