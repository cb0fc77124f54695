"""Which work goes to the free workers, with which memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from light_tts.decode.budget import StateBudget
from light_tts.decode.jobs import ChunkJob, Job, VoiceJob, WholeJob
from light_tts.decode.scheduler import BatchLimits, Kind, Work, next_batch, rank
from light_tts.decode.segment import SpokenTokens
from light_tts.decode.session import Segment, Sessions
from light_tts.decode.voice_states import VoiceEntry, VoiceStates
from light_tts.models.flow.flow_state import FlowPrompt, FlowState
from light_tts.models.vocoder.source_noise import SourceNoise

EXPECTED_TOKENS = 250  # taken for the length of a segment whose end is not known yet
MEL_PER_TOKEN = 2


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """index: of this decode process; llm: address of the LLM process
    paral: batches in flight; bytes_per_frame: streaming state per mel frame, as measured
    """

    index: int
    llm: str
    paral: int
    limits: BatchLimits
    bytes_per_frame: int
    vocab_size: int
    cache_capacity: int = 200


class Dispatcher:
    """submit: hands a job to a worker"""

    def __init__(
        self,
        sessions: Sessions,
        voices: VoiceStates[FlowPrompt, FlowState],
        budget: StateBudget,
        settings: ServiceSettings,
        submit: Callable[[Job], None],
    ) -> None:
        self._sessions = sessions
        self._voices = voices
        self._budget = budget
        self._settings = settings
        self._submit = submit
        self._started_s: dict[Job, float] = {}  # when the jobs in flight began
        self._num_whole_jobs = 0

    @property
    def num_jobs(self) -> int:
        """In flight."""
        return len(self._started_s)

    def stuck_s(self) -> float:
        """For how long no worker has been free because each is at work on a job."""
        if self.num_jobs < self._settings.paral:
            return 0.0
        return time.monotonic() - max(self._started_s.values())

    def ended(self, job: Job) -> None:
        """A worker is free again."""
        del self._started_s[job]
        self._num_whole_jobs -= isinstance(job, WholeJob)

    def dispatch(self) -> None:
        """Give the free workers what is most urgent."""
        while self.num_jobs < self._settings.paral:
            now = time.monotonic()
            batch = next_batch(
                self._ready(now), now, self._settings.limits, whole_allowed=self._whole_allowed()
            )
            if not batch:
                return
            self._start(batch)

    def _ready(self, now_s: float) -> list[Work]:
        work = [
            Work((voice.key, -1), Kind.VOICE, since_s, len(voice.prompt.tokens))
            for voice, since_s in self._voices.wanted()
        ]
        waiting: list[tuple[Work, Segment]] = []
        for segment in self._sessions.ready():
            ready = segment.work()
            if segment.has_memory or not segment.streaming:
                work.append(ready)
            else:
                waiting.append((ready, segment))
        # Strictly in order: a small stream never keeps a large one waiting for ever.
        for ready, segment in sorted(waiting, key=lambda pair: rank(pair[0], now_s)):
            if not self._reserve(segment):
                break
            work.append(ready)
        return work

    def _reserve(self, segment: Segment) -> bool:
        """Memory for a stream that is about to begin, if need be from voices that nobody holds."""
        tokens = len(segment.tokens) if segment.ended else max(len(segment.tokens), EXPECTED_TOKENS)
        expected = (segment.num_prompt_tokens + tokens) * MEL_PER_TOKEN * self._settings.bytes_per_frame
        while not self._budget.reserve(segment.key, expected):
            if not self._voices.evict_one():
                return False
        segment.has_memory = True
        return True

    def _whole_allowed(self) -> bool:
        """While streams are open, one worker of several is kept for them: a whole segment takes long."""
        spare = self._settings.paral - 1
        if not spare or self._num_whole_jobs < spare:
            return True
        return not any(segment.streaming for segment in self._sessions.segments())

    def _start(self, batch: list[Work]) -> None:
        if batch[0].kind is Kind.VOICE:
            self._start_voice(self._voices.get(batch[0].key[0]))
            return
        segments = [self._sessions.held(work.key) for work in batch]
        for segment in segments:
            segment.begin_batch()
        keys = tuple(segment.key for segment in segments)
        if batch[0].kind is Kind.WHOLE:
            self._num_whole_jobs += 1
            self._begin(WholeJob(keys, tuple(self._spoken(segment) for segment in segments)))
            return
        streams = tuple(segment.stream for segment in segments if segment.stream is not None)
        self._begin(ChunkJob(keys, streams))

    def _begin(self, job: Job) -> None:
        self._started_s[job] = time.monotonic()
        self._submit(job)

    def _start_voice(self, voice: VoiceEntry[FlowPrompt, FlowState]) -> None:
        voice.computing = True
        expected = len(voice.prompt.mel) * self._settings.bytes_per_frame
        fits = self._budget.voice_fits(expected)
        while not fits and self._voices.evict_one():
            fits = self._budget.voice_fits(expected)
        self._begin(VoiceJob(voice.key, voice.prompt, ahead=fits))

    def _spoken(self, segment: Segment) -> SpokenTokens:
        return SpokenTokens(
            torch.tensor(segment.tokens, dtype=torch.int64),
            self._voices.get(segment.voice_key).prompt,
            SourceNoise.seeded(segment.seed),
            segment.speed,
        )
