"""A flow whose whole utterances another estimator computes, as long as that gives numbers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from light_tts.models.config import FlowConfig
from light_tts.models.flow.cfm import Estimator
from light_tts.models.flow.flow_runner import FlowRunner
from light_tts.models.flow.flow_state import FlowChunk, FlowInput, FlowPrompt, FlowState
from light_tts.models.flow.token_to_mel import Flow

logger = logging.getLogger(__name__)


class GuardedFlow:
    """estimator: computes whole utterances for `flow`; runner: all else, and what came out as no number

    fell_back: called for each utterance that was computed again. One call at a time uses the estimator.
    """

    def __init__(
        self, flow: Flow, estimator: Estimator, runner: FlowRunner, fell_back: Callable[[], None]
    ) -> None:
        self._flow, self._estimator, self._runner, self._fell_back = flow, estimator, runner, fell_back
        self._lock = threading.Lock()

    @property
    def cfg(self) -> FlowConfig:
        return self._flow.cfg

    @property
    def chunk_size(self) -> int:
        return self._flow.chunk_size

    @property
    def max_batch_frames(self) -> int:
        return self._runner.max_batch_frames

    @property
    def state_bytes_per_frame(self) -> int | None:
        return self._runner.state_bytes_per_frame

    def __call__(self, inputs: Sequence[FlowInput], streaming: bool = False) -> list[Tensor]:
        if streaming:
            return self._runner(inputs, streaming)
        with self._lock:
            mels = self._flow(inputs, estimator=self._estimator)
            # Waits for the device: the engine's memory must not be written from the next caller's stream before.
            finite = torch.stack([torch.isfinite(mel).all() for mel in mels]).tolist() if mels else []
        bad = [index for index, good in enumerate(finite) if not good]
        if bad:
            logger.warning("the engine gave no numbers for %d of %d utterances", len(bad), len(mels))
            for index, mel in zip(bad, self._runner([inputs[index] for index in bad]), strict=True):
                mels[index] = mel
                self._fell_back()
        return mels

    def start(self, prompt: FlowPrompt) -> FlowState:
        return self._runner.start(prompt)

    def prefill_prompt(self, prompt: FlowPrompt) -> FlowState:
        return self._runner.prefill_prompt(prompt)

    def stream(
        self, chunks: Sequence[FlowChunk], states: Sequence[FlowState]
    ) -> tuple[list[Tensor], list[FlowState | None]]:
        return self._runner.stream(chunks, states)

    def warm(self, shapes: Iterable[tuple[int, int, bool]]) -> None:
        self._runner.warm(shapes)
