"""What the encode process does with each message: texts and voices in, work for the language model out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from light_tts.encode.open_text import OpenText, opening
from light_tts.encode.planner import Plan, Planner
from light_tts.encode.request_state import Arrival, OpenSpeech, RequestState, RequestTable, Send
from light_tts.encode.voice_catalog import VoiceCatalog
from light_tts.encode.voice_registry import VoiceRegistry
from light_tts.encode.wire import request_of, step_messages, task_of
from light_tts.encode.worker_pool import WorkerPool
from light_tts.errors import LightTTSError, RequestTimeout, TextTooLong, Unavailable
from light_tts.messages import (
    Abort,
    PeerLost,
    Planned,
    RequestFailed,
    Stage,
    StoreVoices,
    Synthesize,
    TextAppend,
    ToEncode,
)
from light_tts.models.voice_features import pack
from light_tts.observe import Metrics, log_stage, request_scope
from light_tts.request import SynthesisRequest
from light_tts.timing import StageTimes

logger = logging.getLogger(__name__)


class EncodeService:
    """Takes messages from one thread and works on others; what it sends comes from any of them.

    num_threads: for requests that bring a recording, and as many for those that need but milliseconds
    address: where a process listens, by stage and index
    max_text_chars: of all the text of an open request
    """

    def __init__(
        self,
        planner: Planner,
        catalog: VoiceCatalog,
        send: Send,
        address: Callable[[Stage, int], str],
        metrics: Metrics,
        *,
        num_threads: int,
        max_text_chars: int,
    ) -> None:
        self._planner = planner
        self._catalog = catalog
        self._registry = VoiceRegistry(catalog)
        self._send = send
        self._address = address
        self._llm = address(Stage.LLM, 0)
        self._metrics = metrics
        self._max_text_chars = max_text_chars
        self._num_evicted = 0
        self._requests = RequestTable()
        self._recordings = WorkerPool(num_threads, "encode-recording")
        self._texts = WorkerPool(num_threads, "encode-text")

    def take(self, message: ToEncode) -> None:
        """Never raises, and never takes long."""
        try:
            match message:
                case Synthesize():
                    self._begin(message)
                case TextAppend():
                    self._append(message)
                case Abort():
                    self._abort(message)
                case PeerLost(stage=Stage.HTTP, index=pid):
                    self._lose_worker(self._address(Stage.HTTP, pid))
                case StoreVoices():
                    self._recordings.submit(
                        lambda: self._send(message.reply_to, self._registry.answer(message))
                    )
        except Exception:
            logger.exception("a %s could not be taken", type(message).__name__)

    def tend(self) -> None:
        """What must be done from time to time: give up what nobody waits for any more."""
        for state in self._requests.all():
            if state.has_expired():
                self._fail(
                    state, RequestTimeout("the deadline passed before all text and the voice were encoded")
                )
        evicted = self._catalog.num_evicted
        if evicted > self._num_evicted:
            self._metrics.voice_cache.labels("evicted").inc(evicted - self._num_evicted)
            self._num_evicted = evicted

    def load(self) -> tuple[int, float, int]:
        """As `Heartbeat` has them: queued, oldest_s, running."""
        first, second = self._recordings.load(), self._texts.load()
        queued = first.queued + second.queued
        return queued, max(first.oldest_s, second.oldest_s), max(0, len(self._requests) - queued)

    def stuck_s(self) -> float:
        """For how long no thread has been free because each hangs in some other request."""
        return max(self._recordings.load().stuck_s, self._texts.load().stuck_s)

    def close(self) -> None:
        for state in self._requests.all():
            self._fail(state, Unavailable("the encode process stops"))
        self._recordings.close()
        self._texts.close()

    def _begin(self, message: Synthesize) -> None:
        try:
            request = request_of(message)
            if message.text_open:
                self._planner.check_open(request)
        except LightTTSError as error:
            self._send(message.reply_to, RequestFailed(message.request_id, error.code, str(error)))
            return
        state = RequestState(message, request, self._send, self._llm)
        if not self._requests.add(state):
            logger.error("request id %s is in use: its second request is dropped", message.request_id)
            return
        if not message.text_open:
            self._pool_of(state).submit(lambda: self._run(state, self._encode))
            return
        if message.text:
            state.add(Arrival(message.text, end=False))
        self._send_worker(state)

    def _append(self, message: TextAppend) -> None:
        state = self._requests.get(message.request_id)
        if state is None or not state.message.text_open:
            return  # it failed, or its client was faster than the news of that
        state.add(Arrival(message.text, message.end))
        self._send_worker(state)

    def _abort(self, message: Abort) -> None:
        state = self._requests.get(message.request_id)
        if state is None:
            self._send(self._llm, message)
            return
        state.abort()
        self._requests.remove(state)

    def _lose_worker(self, reply_to: str) -> None:
        """Its open requests would wait for their text until the deadline."""
        for state in self._requests.all():
            if state.message.reply_to == reply_to:
                state.abort()
                self._requests.remove(state)

    def _send_worker(self, state: RequestState) -> None:
        if state.wants_worker():
            self._pool_of(state).submit(lambda: self._run(state, self._advance))

    def _pool_of(self, state: RequestState) -> WorkerPool:
        brings_recording = state.request.prompt_audio is not None and state.speech is None
        return self._recordings if brings_recording else self._texts

    def _run(self, state: RequestState, work: Callable[[RequestState], None]) -> None:
        """Work on a request in a thread of a pool, whatever becomes of it."""
        with request_scope(state.request_id):
            try:
                if state.has_expired():
                    raise RequestTimeout("the deadline passed before the request's turn came")
                if not state.closed:
                    work(state)
            except LightTTSError as error:
                self._fail(state, error)
            except Exception as error:
                logger.exception("the request failed")
                self._fail(state, LightTTSError(f"encoding failed: {type(error).__name__}"))

    def _fail(self, state: RequestState, error: LightTTSError) -> None:
        state.fail(error)
        self._requests.remove(state)

    def _encode(self, state: RequestState) -> None:
        """A request whose text is complete."""
        times = StageTimes()
        plan = self._planner.plan(state.request, times)
        self._count(plan, times)
        voice = pack(plan.voice.prompt, plan.voice.key)
        texts = tuple(segment.spoken for segment in plan.segments)
        planned = Planned(state.request_id, len(texts), plan.num_text_tokens, plan.voice.cache_hit, texts)
        tasks = [
            task_of(state.message, plan, voice, number, segment.text)
            for number, segment in enumerate(plan.segments)
        ]
        if state.has_expired():
            raise RequestTimeout("the deadline passed while text and voice were encoded")
        state.pass_on(tasks)
        # Last: should this process be lost before, the HTTP worker knows that the tasks may not have left it.
        state.reply([planned], last=True)
        self._finish(state, time.monotonic() - state.arrived_s)

    def _advance(self, state: RequestState) -> None:
        """As much of an open request as its text allows."""
        named = state.request.voice is not None or state.request.prompt_audio is not None
        if state.speech is None and named:
            with state.work.measure("encode"):
                state.speech = self._plan_open(state.request)
        while (arrival := state.next_arrival()) is not None:
            with state.work.measure("encode"):
                self._take_text(state, arrival)
            if arrival.end:
                self._finish(state, state.work.seconds["encode"])
                return

    def _take_text(self, state: RequestState, arrival: Arrival) -> None:
        text = arrival.text
        if state.speech is None:
            text = state.beginning = state.beginning + text
            if len(text) > self._max_text_chars:
                raise TextTooLong(
                    f"text has {len(text)} characters so far, the limit is {self._max_text_chars}"
                )
            begun = opening(text)
            if begun is None and not arrival.end:
                return
            state.speech = self._plan_open(replace(state.request, text=text if begun is None else begun))
        speech = state.speech
        for step in speech.text.push(text):
            state.pass_on(step_messages(state.message, speech, step))
        if not arrival.end:
            return
        for step in speech.text.end():
            state.pass_on(step_messages(state.message, speech, step))
        texts, hit = speech.text.texts, speech.plan.voice.cache_hit
        planned = Planned(state.request_id, len(texts), speech.text.num_text_tokens, hit, texts)
        state.reply([planned], last=True)

    def _plan_open(self, request: SynthesisRequest) -> OpenSpeech:
        times = StageTimes()
        plan = self._planner.plan_open(request, times)
        self._count(plan, times)
        return OpenSpeech(plan, pack(plan.voice.prompt, plan.voice.key), OpenText(plan, self._max_text_chars))

    def _count(self, plan: Plan, times: StageTimes) -> None:
        if plan.voice.cache_hit is not None:
            self._metrics.voice_cache.labels("hit" if plan.voice.cache_hit else "miss").inc()
        for part, seconds in times.seconds.items():
            self._metrics.stage_seconds.labels(f"encode_{part}").observe(seconds)

    def _finish(self, state: RequestState, seconds: float) -> None:
        self._metrics.stage_seconds.labels("encode").observe(seconds)
        log_stage(logger, state.request_id, "encode", seconds)
        self._requests.remove(state)
