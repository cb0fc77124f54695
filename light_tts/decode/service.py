"""What a decode process does with messages and finished batches, without sockets and threads.

An empty segment (the language model made no token) ends with an empty last chunk: the request's other segments are
heard. Whether a request as a whole stayed silent is known where all its segments meet, in the HTTP worker.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from light_tts.child import Load
from light_tts.decode.answers import Answers
from light_tts.decode.budget import StateBudget
from light_tts.decode.dispatcher import Dispatcher, ServiceSettings
from light_tts.decode.jobs import ChunkJob, Done, Job, Outcome, Spoken, VoiceJob, WholeJob, as_failure
from light_tts.decode.session import Segment, Sessions
from light_tts.decode.speech_decoder import SpeechDecoder
from light_tts.decode.voice_states import VoiceEntry, VoiceStates
from light_tts.errors import GenerationFailed, InvalidInput, LightTTSError, RequestTimeout, Unavailable
from light_tts.messages import Abort, DecodeOpen, Message, SpeechTokens, ToDecode, VoiceFeatures
from light_tts.models.flow.flow_state import FlowPrompt, FlowState
from light_tts.models.vocoder.source_noise import SourceNoise
from light_tts.models.voice_features import unpack
from light_tts.observe import Metrics
from light_tts.request import check_speed

logger = logging.getLogger(__name__)


class DecodeService:
    """Owned by the main thread. send: to an address; submit: hands a job to a worker, `done` gets what comes back."""

    def __init__(
        self,
        decoder: SpeechDecoder,
        settings: ServiceSettings,
        budget: StateBudget,
        metrics: Metrics,
        send: Callable[[str, Message], None],
        submit: Callable[[Job], None],
    ) -> None:
        self._decoder = decoder
        self._vocab_size = settings.vocab_size
        self._budget = budget
        self._metrics = metrics
        self._answers = Answers(settings.index, settings.llm, decoder.sample_rate_hz, metrics, send)
        self._sessions = Sessions()
        self._voices: VoiceStates[FlowPrompt, FlowState] = VoiceStates(settings.cache_capacity, budget)
        self._dispatcher = Dispatcher(self._sessions, self._voices, budget, settings, submit)

    @property
    def decoder(self) -> SpeechDecoder:
        return self._decoder

    @property
    def num_segments(self) -> int:
        """Segments of which anything is held."""
        return len(self._sessions)

    @property
    def num_voices_used(self) -> int:
        return self._voices.num_used

    @property
    def num_jobs(self) -> int:
        return self._dispatcher.num_jobs

    def stuck_s(self) -> float:
        """For how long no worker has been free because each is at work on a job."""
        return self._dispatcher.stuck_s()

    def load(self) -> Load:
        now = time.monotonic()
        waiting = [now - s.ready_since_s for s in self._sessions.ready() if s.ready_since_s is not None]
        return Load(len(waiting), max(waiting, default=0.0), len(self._sessions) - len(waiting))

    def handle(self, message: ToDecode) -> None:
        """Never raises: what goes wrong, fails that request."""
        try:
            match message:
                case DecodeOpen():
                    self._open(message)
                case SpeechTokens():
                    self._tokens(message)
                case Abort():
                    self._drop(message.request_id)
        except Exception as error:
            self._refuse(message, as_failure(error))

    def expire(self) -> None:
        """Give up what nobody waits for any more."""
        for request in self._sessions.overdue(time.monotonic()):
            error = RequestTimeout("the request's time was over before its audio was complete")
            self._fail(request.id, request.reply_to, error)

    def dispatch(self) -> None:
        """Give the free workers what is most urgent."""
        self._dispatcher.dispatch()

    def done(self, done: Done) -> None:
        """A worker is free again. Raises Unavailable if the GPU is lost: the process must be replaced."""
        self._dispatcher.ended(done.job)
        match done.job:
            case VoiceJob(key=voice_key):
                self._voice_done(voice_key, done)
            case ChunkJob(keys=keys) | WholeJob(keys=keys):
                self._metrics.batch_size.labels("decode").observe(len(keys))
                for key, outcome in zip(keys, done.outcomes, strict=True):
                    self._member_done(self._sessions.held(key), outcome, done.seconds)
        if done.device_lost:
            raise Unavailable("the GPU failed; this decode process starts anew")

    # --- messages

    def _open(self, message: DecodeOpen) -> None:
        key = message.request_id, message.segment
        if self._sessions.is_gone(message.request_id):
            self._answers.closed(*key)
            return
        if self._sessions.find(key) is not None:
            logger.warning("segment %d of request %s is open already", message.segment, message.request_id)
            return
        check_speed(message.speed)
        now = time.monotonic()
        voice = self._voices.acquire(message.voice.key, lambda: self._prompt(message.voice))
        deadline = now + message.deadline_s - time.time()
        request = self._sessions.request(message.request_id, message.reply_to, deadline)
        self._sessions.add(
            Segment(
                request=request,
                number=message.segment,
                seed=message.seed,
                streaming=message.stream,
                speed=message.speed,
                voice_key=voice.key,
                num_prompt_tokens=len(voice.prompt.tokens),
            )
        )
        if message.stream:
            self._voices.want(voice, now)
            self._attach(voice)

    def _prompt(self, voice: VoiceFeatures) -> FlowPrompt:
        try:
            return unpack(voice, self._vocab_size)
        except InvalidInput as error:  # not of the client's making: the encode process computed it
            raise GenerationFailed(f"the voice cannot be used: {error}") from error

    def _tokens(self, message: SpeechTokens) -> None:
        segment = self._sessions.find((message.request_id, message.segment))
        if segment is None:
            return
        bad = [token for token in message.tokens if not 0 <= token < self._vocab_size]
        if bad:
            raise GenerationFailed(f"speech token {bad[0]}, the model has ids 0 to {self._vocab_size - 1}")
        segment.add(message.tokens, message.end)
        if segment.silent:
            logger.warning("request %s: segment %d has no speech", segment.request.id, segment.number)
            self._answers.say(segment, b"", last=True)
            self._close(segment)
            return
        segment.refresh(time.monotonic())

    def _voice_done(self, key: str, done: Done) -> None:
        voice = self._voices.get(key)
        (outcome,) = done.outcomes
        if isinstance(outcome, FlowState):
            self._voices.computed(voice, outcome, done.voice_bytes)
            self._attach(voice)
            return
        self._voices.failed(voice)
        assert isinstance(outcome, LightTTSError)
        for segment in [s for s in self._sessions.segments() if s.voice_key == key and s.streaming]:
            self._fail(segment.request.id, segment.request.reply_to, outcome)

    def _attach(self, voice: VoiceEntry[FlowPrompt, FlowState]) -> None:
        """Begin the streams that waited for this voice."""
        if voice.state is None:
            return
        now = time.monotonic()
        for segment in self._sessions.segments():
            if segment.streaming and segment.stream is None and segment.voice_key == voice.key:
                noise = SourceNoise.seeded(segment.seed)
                segment.stream = self._decoder.open(voice.prompt, noise, segment.speed, voice.state)
                segment.refresh(now)

    def _member_done(self, segment: Segment, outcome: Outcome, seconds: float) -> None:
        try:
            self._segment_done(segment, outcome, seconds)
        except Exception as error:  # the other members of the batch must be answered all the same
            self._fail(segment.request.id, segment.request.reply_to, as_failure(error))

    def _segment_done(self, segment: Segment, outcome: Outcome, seconds: float) -> None:
        segment.in_flight = False
        segment.work_s += seconds
        if segment.dropped:
            self._close(segment)
            return
        if isinstance(outcome, LightTTSError):
            self._fail(segment.request.id, segment.request.reply_to, outcome)
            return
        assert isinstance(outcome, Spoken)
        self._budget.measured(segment.key, outcome.state_bytes)
        last = segment.stream is None or segment.stream.finished
        self._answers.say(segment, outcome.samples, last=last)
        if last:
            self._close(segment)
        else:
            segment.refresh(time.monotonic())

    # --- ends

    def _refuse(self, message: ToDecode, error: LightTTSError) -> None:
        """Fail the request of a message that could not be handled."""
        open_segments = [s for s in self._sessions.segments() if s.request.id == message.request_id]
        if isinstance(message, DecodeOpen):
            self._fail(message.request_id, message.reply_to, error)
            if not any(segment.number == message.segment for segment in open_segments):
                self._answers.closed(message.request_id, message.segment)
        elif open_segments:
            self._fail(message.request_id, open_segments[0].request.reply_to, error)

    def _fail(self, request_id: str, reply_to: str, error: LightTTSError) -> None:
        """The request's final message, once."""
        if not self._sessions.is_gone(request_id):
            self._answers.failed(request_id, reply_to, error)
            self._drop(request_id)

    def _drop(self, request_id: str) -> None:
        """Free what a request holds; what a batch holds, when that is done."""
        for segment in self._sessions.banish(request_id):
            segment.dropped = True
            segment.ready_since_s = None
            if not segment.in_flight:
                self._close(segment)

    def _close(self, segment: Segment) -> None:
        """Nothing is left of the segment after this."""
        segment.stream = None
        self._budget.release(segment.key)
        self._voices.release(segment.voice_key)
        self._sessions.remove(segment, time.monotonic())
        self._answers.closed(segment.request.id, segment.number)
