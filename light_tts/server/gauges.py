"""From heartbeats to gauges and to statistics lines in the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from light_tts.config import ServerConfig
from light_tts.messages import Stage
from light_tts.observe import metrics, reap
from light_tts.server.placement import gpu_memory
from light_tts.server.run_dir import is_alive
from light_tts.server.state import ChildState, ChildStatus

logger = logging.getLogger(__name__)

GPU_S = 5.0


class Gauges:
    """folder: where all processes keep their metrics"""

    def __init__(self, config: ServerConfig, folder: Path) -> None:
        self._config = config
        self._folder = folder
        self._metrics = metrics()
        self._infos: set[tuple[str, str, str, str]] = set()
        self._next_line = time.monotonic() + config.log_stats_interval
        self._next_gpu = 0.0
        for stage in (Stage.HTTP, Stage.ENCODE, Stage.LLM, Stage.DECODE):
            self._metrics.restarts.labels(stage.value)

    def count_restart(self, stage: Stage) -> None:
        self._metrics.restarts.labels(stage.value).inc()

    def update(self, states: Sequence[ChildState], now: float) -> None:
        for stage in (Stage.ENCODE, Stage.LLM, Stage.DECODE):
            self._update_stage(stage, [state for state in states if state.stage is stage])
        self._update_infos(states)
        try:
            reap(self._folder, is_alive)
        except OSError as error:  # a full disk
            logger.error("metrics of ended processes cannot be added up: %s", error)
        if now >= self._next_gpu:
            self._next_gpu = now + GPU_S
            self._update_gpus()
        if self._config.log_stats_interval and now >= self._next_line:
            self._next_line = now + self._config.log_stats_interval
            logger.info("statistics: %s", "; ".join(_line(state) for state in states))

    def _update_stage(self, stage: Stage, states: list[ChildState]) -> None:
        queued, running = sum(s.queued for s in states), sum(s.running for s in states)
        self._metrics.queue_size.labels(stage.value).set(queued)
        self._metrics.queue_oldest.labels(stage.value).set(max((s.oldest_s for s in states), default=0.0))
        self._metrics.running.labels(stage.value).set(running)
        if stage is Stage.LLM:
            self._metrics.llm_queue_size.set(queued)
            self._metrics.llm_batch_size.set(running)

    def _update_infos(self, states: Sequence[ChildState]) -> None:
        told = {(s.stage.value, str(s.index), key, value) for s in states for key, value in s.info.items()}
        for labels in self._infos - told:  # in multiprocess mode a series cannot be taken back
            self._metrics.backend_info.labels(*labels).set(0)
        for labels in told - self._infos:
            self._metrics.backend_info.labels(*labels).set(1)
        self._infos = told

    def _update_gpus(self) -> None:
        for gpu in gpu_memory(self._config.num_gpus or 0):
            self._metrics.gpu_memory.labels(str(gpu.index), "used").set(gpu.used)
            self._metrics.gpu_memory.labels(str(gpu.index), "total").set(gpu.total)


def _line(state: ChildState) -> str:
    name = f"{state.stage.value}-{state.index}"
    if state.status is not ChildStatus.READY:
        return f"{name} {state.status.value}"
    oldest = f" for up to {state.oldest_s:.1f} s" if state.queued else ""
    return f"{name} {state.running} running, {state.queued} queued{oldest}"
