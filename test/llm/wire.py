"""An `LlmService` over a tiny random model, and everything that it sends."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, TypeVar

from light_tts.llm.engine import Engine
from light_tts.llm.service import LlmService
from light_tts.messages import (
    LlmTask,
    Message,
    PeerReady,
    Sampling,
    SpeechTokens,
    Stage,
    VoiceFeatures,
)
from light_tts.models.config import SamplingConfig
from light_tts.observe import Metrics, metrics
from test.support.random_lm import random_lm

M = TypeVar("M", bound=Message)
HTTP = "http-7"


def task(request_id: str = "a", segment: int = 0, **changes: Any) -> LlmTask:
    """A streamed segment of 5 text tokens that gives 20 speech tokens."""
    fields: dict[str, Any] = {
        "request_id": request_id,
        "reply_to": HTTP,
        "deadline_s": time.time() + 60,
        "segment": segment,
        "text": (1, 2, 3, 4, 5),
        "prompt_text": (),
        "prompt_speech": (7, 8),
        "seed": 3,
        "sampling": Sampling(min_token_text_ratio=4, max_token_text_ratio=4),
        "voice": VoiceFeatures("voice", b"", b"", b""),
        "stream": True,
        "speed": 1.0,
    }
    return LlmTask(**{**fields, **changes})


@dataclass(slots=True)
class Wire:
    num_decodes: int = 1
    max_running: int = 4
    pool: int = 2000
    yield_after: int | None = None
    sent: list[tuple[str, Message]] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    metrics: Metrics = field(default_factory=metrics)
    engine: Engine = field(init=False)
    service: LlmService = field(init=False)

    def __post_init__(self) -> None:
        self.engine = Engine(
            random_lm(), self.pool, self.max_running, max_sequence_tokens=300, yield_after=self.yield_after
        )
        self.service = LlmService(
            self.engine,
            SamplingConfig(),
            self.metrics,
            lambda to, message: self.sent.append((to, message)),
            lambda stage, index: f"{stage.value}-{index}",
            self.forgotten.append,
        )
        for index in range(self.num_decodes):
            self.service.handle(PeerReady(Stage.DECODE, index))

    def run(self, max_steps: int = 2000) -> None:
        for _ in range(max_steps):
            if self.service.is_idle():
                return
            self.service.step()
        raise AssertionError("it never comes to an end")

    def of(self, kind: type[M], to: str | None = None) -> list[M]:
        return [m for where, m in self.sent if isinstance(m, kind) and to in (None, where)]

    def tokens(self, request_id: str = "a", segment: int = 0) -> list[int]:
        parts = [m for m in self.of(SpeechTokens) if (m.request_id, m.segment) == (request_id, segment)]
        assert [part.end for part in parts[:-1]] == [False] * (len(parts) - 1)
        return [token for part in parts for token in part.tokens]

    def sample(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    @property
    def is_empty(self) -> bool:
        return (
            self.service.num_segments == 0
            and self.engine.num_free_slots == self.pool
            and self.engine.num_running == self.engine.num_waiting == 0
            and self.sample("light_tts_kv_tokens", state="used") == 0
        )
