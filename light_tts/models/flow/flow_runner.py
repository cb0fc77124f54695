"""What the decode stage needs of a flow, whichever it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from torch import Tensor

from light_tts.models.config import FlowConfig
from light_tts.models.flow.flow_state import FlowChunk, FlowInput, FlowPrompt, FlowState


class FlowRunner(Protocol):
    """`Flow`, or what does the same faster. Each call is as `Flow`'s."""

    @property
    def cfg(self) -> FlowConfig: ...
    @property
    def chunk_size(self) -> int: ...
    @property
    def max_batch_frames(self) -> int: ...
    @property
    def state_bytes_per_frame(self) -> int | None: ...
    def __call__(self, inputs: Sequence[FlowInput], streaming: bool = False) -> list[Tensor]: ...
    def start(self, prompt: FlowPrompt) -> FlowState: ...
    def prefill_prompt(self, prompt: FlowPrompt) -> FlowState: ...
    def stream(
        self, chunks: Sequence[FlowChunk], states: Sequence[FlowState]
    ) -> tuple[list[Tensor], list[FlowState | None]]: ...
    def warm(self, shapes: Iterable[tuple[int, int, bool]]) -> None: ...
