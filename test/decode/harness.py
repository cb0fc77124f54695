"""A decode process without sockets: messages in, jobs done at will, messages out."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from light_tts.decode.budget import StateBudget
from light_tts.decode.dispatcher import ServiceSettings
from light_tts.decode.jobs import Done, Job, JobRunner
from light_tts.decode.scheduler import BatchLimits
from light_tts.decode.service import DecodeService
from light_tts.decode.speech_decoder import SpeechDecoder
from light_tts.messages import (
    AudioChunk,
    DecodeOpen,
    Message,
    RequestFailed,
    SegmentClosed,
    SpeechTokens,
    VoiceFeatures,
)
from light_tts.models.flow.flow_state import FlowPrompt
from light_tts.models.voice_features import pack
from light_tts.observe import metrics

VOCAB = 729
LLM = "llm"
FRAME_BYTES = 66_000  # streaming state of the recorded CosyVoice2 model


def make_prompt(num_tokens: int, seed: int = 0) -> FlowPrompt:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 700, (num_tokens,), generator=generator)
    mel = torch.randn(2 * num_tokens, 80, generator=generator) - 4
    return FlowPrompt(tokens, mel, torch.randn(192, generator=generator))


def make_voice(num_tokens: int, seed: int = 0) -> VoiceFeatures:
    return pack(make_prompt(num_tokens, seed), f"voice-{num_tokens}-{seed}")


def make_tokens(count: int, seed: int = 1) -> tuple[int, ...]:
    return tuple(torch.randint(0, 700, (count,), generator=torch.Generator().manual_seed(seed)).tolist())


def open_message(
    request: str,
    segment: int = 0,
    *,
    voice: VoiceFeatures | None = None,
    stream: bool = True,
    speed: float = 1.0,
    seed: int = 3,
    timeout_s: float = 1000.0,
) -> DecodeOpen:
    known = voice or make_voice(37)
    return DecodeOpen(request, "http", time.time() + timeout_s, segment, known, seed, stream, speed)


@dataclass
class Bench:
    """step: does one job that was handed out, the first or one at random"""

    decoder: SpeechDecoder
    max_batch: int = 1
    paral: int = 1
    budget: StateBudget = field(default_factory=lambda: StateBudget(1 << 40))
    cache_capacity: int = 200
    sent: list[tuple[str, Message]] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    batches: list[Job] = field(default_factory=list)

    def __post_init__(self) -> None:
        settings = ServiceSettings(
            index=0,
            llm=LLM,
            paral=self.paral,
            limits=BatchLimits(self.max_batch, 1500),
            bytes_per_frame=FRAME_BYTES,
            vocab_size=VOCAB,
            cache_capacity=self.cache_capacity,
        )
        self.runner = JobRunner(self.decoder, torch.device("cpu"))
        self.service = DecodeService(
            self.decoder, settings, self.budget, metrics(), self._send, self.jobs.append
        )

    def _send(self, to: str, message: Message) -> None:
        self.sent.append((to, message))

    def say(self, key: tuple[str, int], tokens: tuple[int, ...], *, end: bool = True) -> None:
        self.service.handle(SpeechTokens(*key, tokens, end))

    def step(self, rng: random.Random | None = None, run: Callable[[Job], Done] | None = None) -> bool:
        """Dispatch, then do one job; False where there is none."""
        self.service.dispatch()
        if not self.jobs:
            return False
        job = self.jobs.pop(rng.randrange(len(self.jobs)) if rng else 0)
        self.batches.append(job)
        self.service.done((run or self.runner.run)(job))
        return True

    def settle(self) -> None:
        while self.step():
            pass

    def chunks(self, key: tuple[str, int]) -> list[AudioChunk]:
        return [m for _, m in self.sent if isinstance(m, AudioChunk) and (m.request_id, m.segment) == key]

    def audio(self, key: tuple[str, int]) -> NDArray[np.int16]:
        """All samples of a segment that has ended, in order and once."""
        chunks = self.chunks(key)
        assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
        assert [chunk.last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
        return np.frombuffer(b"".join(chunk.samples for chunk in chunks), np.int16)

    def failures(self) -> dict[str, str]:
        """Request id -> code; each at most once."""
        failed = [message for _, message in self.sent if isinstance(message, RequestFailed)]
        assert len({message.request_id for message in failed}) == len(failed)
        return {message.request_id: message.code for message in failed}

    def closed(self) -> list[tuple[str, int]]:
        return sorted((m.request_id, m.segment) for _, m in self.sent if isinstance(m, SegmentClosed))

    def assert_empty(self) -> None:
        """Nothing is held of any segment."""
        assert self.service.num_segments == 0
        assert self.service.num_jobs == 0
        assert self.service.num_voices_used == 0
        assert self.budget.num_streams == 0
        load = self.service.load()
        assert (load.queued, load.oldest_s, load.running) == (0, 0.0, 0)
