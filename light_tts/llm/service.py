"""What the language model process does with messages and tokens, without sockets."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

from light_tts.child import Load
from light_tts.errors import LightTTSError, RequestTimeout, Unavailable
from light_tts.llm.decode_router import DecodeRouter
from light_tts.llm.delivery import Delivery
from light_tts.llm.engine import Engine, Event, FailedEvent, FinishedEvent, TokenEvent
from light_tts.llm.request import SequenceRequest
from light_tts.llm.segments import Segment, Segments
from light_tts.llm.turns import Turns
from light_tts.messages import (
    Abort,
    LlmTask,
    Message,
    Pace,
    PeerLost,
    PeerReady,
    RequestFailed,
    SegmentClosed,
    Stage,
    TextIds,
    ToLlm,
)
from light_tts.models.config import SamplingConfig
from light_tts.observe import Metrics, request_scope

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.1  # at deadlines


class LlmService:
    """One thread. send: to an address; address: of a process"""

    def __init__(
        self,
        engine: Engine,
        sampling: SamplingConfig,
        metrics: Metrics,
        send: Callable[[str, Message], None],
        address: Callable[[Stage, int], str],
        forget: Callable[[str], None],
    ) -> None:
        """sampling: the model's own values; forget: an address whose process is gone"""
        self._engine = engine
        self._sampling = sampling
        self._metrics = metrics
        self._send = send
        self._address = address
        self._forget = forget
        self._segments = Segments()
        self._turns = Turns()
        self._router = DecodeRouter()
        self._delivery = Delivery(self._router, metrics, send, address)
        self._next_look_s = 0.0
        self._used_slots = -1
        metrics.kv_tokens.labels("total").set(engine.num_slots)

    @property
    def num_segments(self) -> int:
        """Segments of which anything is held."""
        return len(self._segments) + self._turns.num_waiting

    @property
    def router(self) -> DecodeRouter:
        return self._router

    def is_idle(self) -> bool:
        """Whether `step` would do nothing before another message comes."""
        return self._engine.is_idle()

    def load(self) -> Load:
        """Queued are also sequences that gave way; those that wait for text are neither queued nor running."""
        engine = self._engine
        # Arrival is their order: of those before the first that waits for a place, each waits for text.
        waiting = (s for s in self._segments.unstarted if engine.awaits_first_place(s.sequence_id))
        oldest = next(waiting, None)
        oldest_s = 0.0 if oldest is None else time.monotonic() - oldest.arrived_s
        return Load(engine.num_waiting, oldest_s, engine.num_running)

    def handle(self, message: ToLlm) -> None:
        """Never raises: what goes wrong, fails that request."""
        match message:
            case LlmTask():
                with request_scope(message.request_id):
                    self._take(message)
            case TextIds():
                with request_scope(message.request_id):
                    self._append(message)
            case Abort(request_id=request_id):
                self._abort(request_id)
            case SegmentClosed():
                self._close(message)
            case Pace():
                self._pace(message)
            case PeerReady(stage=Stage.DECODE, index=index):
                self._router.ready(index)
            case PeerLost(stage=Stage.DECODE):
                self._lose_decode(message)
            case PeerLost(stage=Stage.HTTP, index=pid):
                self._lose_worker(self._address(Stage.HTTP, pid))

    def expire(self) -> None:
        """Give up what nobody waits for any more."""
        now_s = time.monotonic()
        if now_s < self._next_look_s:
            return
        self._next_look_s = now_s + _LOOK_EVERY_S
        self._segments.forget_gone(now_s)
        wall_s = time.time()
        for task in [segment.task for segment in self._segments]:
            if task.deadline_s <= wall_s and not self._segments.is_gone(task.request_id):
                self._fail(task, RequestTimeout("the request's time was over before its speech was there"))

    def step(self) -> None:
        """Generate one token for each sequence whose turn it is, and send what can be sent. Raises Unavailable if the
        GPU is lost, and what no sequence is to blame for: the process must be replaced.
        """
        try:
            events = self._engine.step()
        except Exception:
            if not self._engine.batch_ids:
                raise
            logger.exception("a step of %d failed; they are tried one by one", len(self._engine.batch_ids))
            events = self._step_one_by_one()
        if self._engine.batch_ids:
            self._metrics.batch_size.labels("llm").observe(len(self._engine.batch_ids))
        self._note_started()
        self._deliver(events)
        self.show_use()

    def show_use(self) -> None:
        used = self._engine.num_slots - self._engine.num_free_slots
        if used != self._used_slots:
            self._used_slots = used
            self._metrics.kv_tokens.labels("used").set(used)

    # --- messages

    def _take(self, task: LlmTask) -> None:
        if self._segments.is_gone(task.request_id):
            return
        # Text that is still being written comes one sequence after the other anyway.
        if not task.stream or task.max_text_tokens is not None or self._turns.begin(task):
            self._open(task)

    def _close(self, message: SegmentClosed) -> None:
        self._router.close(message.decode, message.request_id, message.segment)
        self._open_next(message.request_id, message.segment)

    def _open_next(self, request_id: str, done: int) -> None:
        if task := self._turns.done(request_id, done):
            with request_scope(task.request_id):
                self._open(task)

    def _pace(self, message: Pace) -> None:
        if message.behind:
            if not self._segments.is_gone(message.request_id):
                self._turns.fall_behind(message.request_id)
            return
        with request_scope(message.request_id):
            for task in self._turns.catch_up(message.request_id, message.deadline_s):
                self._open(task)

    def _open(self, task: LlmTask) -> None:
        if self._segments.find(task.request_id, task.segment) is not None:
            logger.warning("segment %d is there already", task.segment)
            return
        if task.deadline_s <= time.time():
            self._fail(task, RequestTimeout("the request's time was over before its speech was begun"))
            return
        try:
            request = SequenceRequest.of_task(task, self._sampling)
            sequence_id = self._engine.add(
                request, end_of_prompt_id=task.end_of_prompt_id, group=task.request_id
            )
        except Exception as error:
            self._fail(task, error)
            return
        self._segments.add(Segment(task, sequence_id, time.monotonic()))

    def _append(self, message: TextIds) -> None:
        segment = self._segments.find(message.request_id, message.segment)
        if segment is None:
            return
        try:
            if message.ids:
                self._engine.append_text(segment.sequence_id, message.ids)
            if message.end:
                self._engine.end_text(segment.sequence_id)
        except Exception as error:
            self._fail(segment.task, error)

    def _abort(self, request_id: str) -> None:
        """Of no request is it known here that no decode process has it: this process may be a new one."""
        for segment in self._segments.end_request(request_id, time.monotonic()):
            self._engine.abort(segment.sequence_id)
        self._turns.end(request_id)
        for index in self._router.indices:
            self._send(self._address(Stage.DECODE, index), Abort(request_id))
        self.show_use()

    def _lose_decode(self, lost: PeerLost) -> None:
        """The HTTP workers fail the requests, of which the rest is aborted then. They hear of it once more from here,
        behind the news of what is there.
        """
        held = self._router.lost(lost.index)
        for reply_to in set(held.values()):
            self._send(reply_to, lost)
        self._forget(self._address(Stage.DECODE, lost.index))
        for segment in self._segments:
            if segment.decode == lost.index:
                self._segments.remove(segment)
                self._engine.abort(segment.sequence_id)
        for request_id, number in held:  # may have been heard to its end: then its request goes on
            self._open_next(request_id, number)
        self.show_use()

    def _lose_worker(self, reply_to: str) -> None:
        """Nobody hears its requests any more, and nobody else would abort them."""
        here = {s.task.request_id for s in self._segments if s.task.reply_to == reply_to}
        for request_id in here | self._router.requests_of(reply_to) | self._turns.requests_of(reply_to):
            self._abort(request_id)
        self._forget(reply_to)

    def _fail(self, task: LlmTask, error: Exception) -> None:
        """The request's final message; nothing of it is held any more, here or behind."""
        with request_scope(task.request_id):
            if isinstance(error, LightTTSError):
                code, text = error.code, str(error)
                logger.info("segment %d failed: %s", task.segment, code)
            else:
                code, text = LightTTSError.code, "the language model failed"
                logger.error("segment %d failed", task.segment, exc_info=error)
        self._abort(task.request_id)
        self._send(task.reply_to, RequestFailed(task.request_id, code, text))

    # --- tokens

    def _step_one_by_one(self) -> list[Event]:
        events, errors = list[Event](), list[tuple[int, Exception]]()
        ids = self._engine.batch_ids
        for sequence_id in ids:
            try:
                events += self._engine.step(only=[sequence_id])
            except Exception as error:
                errors.append((sequence_id, error))
        if ids and len(errors) == len(ids) and self._engine.device.type != "cpu":
            raise Unavailable("the GPU failed; the language model process starts anew") from errors[0][1]
        for sequence_id, reason in errors:
            if segment := self._segments.of_sequence(sequence_id):
                self._fail(segment.task, reason)
        return events

    def _note_started(self) -> None:
        now_s = time.monotonic()
        for sequence_id in self._engine.batch_ids:
            segment = self._segments.of_sequence(sequence_id)
            if segment is not None:
                self._segments.start(segment, now_s)

    def _deliver(self, events: Iterable[Event]) -> None:
        spoke: dict[int, Segment] = {}
        for event in events:
            segment = self._segments.of_sequence(event.sequence_id)
            if segment is None:
                continue
            match event:
                case TokenEvent(token=token):
                    segment.tokens.append(token)
                    spoke[event.sequence_id] = segment
                case FinishedEvent():
                    spoke.pop(event.sequence_id, None)
                    self._finish(segment)
                case FailedEvent(error=error):
                    self._fail(segment.task, error)
        for sequence_id, segment in spoke.items():
            if segment.task.stream and self._segments.of_sequence(sequence_id) is segment:
                self._forward(segment)

    def _forward(self, segment: Segment, *, end: bool = False) -> bool:
        """False if the request has failed."""
        try:
            self._delivery.forward(segment, end=end)
        except Unavailable as error:
            self._fail(segment.task, error)
            return False
        return True

    def _finish(self, segment: Segment) -> None:
        if self._forward(segment, end=True):
            self._segments.remove(segment)
