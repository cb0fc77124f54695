"""Continuous batching: a step feeds every sequence that can go on, and samples a token for each."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from light_tts.errors import GenerationFailed, LightTTSError, TextTooLong
from light_tts.llm.batch import Feed, pack
from light_tts.llm.bistream import BistreamSequence
from light_tts.llm.kv_pool import KVPool, Span
from light_tts.llm.request import SamplingParams, SequenceRequest
from light_tts.llm.sampler import Picker, RasSampler
from light_tts.llm.sequence import FinishReason, SpeechSequence, Symbol, UniSequence
from light_tts.llm.silent import SILENT_TOKENS, SilentTokenFilter
from light_tts.models.speech_lm import SpeechLM
from light_tts.quirks import ReferenceQuirks


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """A speech token to be heard."""

    sequence_id: int
    token: int


@dataclass(frozen=True, slots=True)
class FinishedEvent:
    """The sequence's last event, unless FailedEvent was."""

    sequence_id: int
    reason: FinishReason


@dataclass(frozen=True, slots=True)
class FailedEvent:
    """The sequence's last event. Other sequences are not affected."""

    sequence_id: int
    error: LightTTSError


Event = TokenEvent | FinishedEvent | FailedEvent


@dataclass(slots=True)
class _Waiting:
    sequence_id: int
    sequence: SpeechSequence
    picker: Picker


@dataclass(slots=True)
class _Running:
    sequence_id: int
    sequence: SpeechSequence
    picker: Picker
    silent: SilentTokenFilter
    span: Span
    kv_len: int = 0


class Engine:
    """Generates speech tokens for any number of sequences. Not thread-safe, starts no threads.

    pool_size_tokens: KV slots; a sequence reserves its longest possible length while it runs
    max_running: sequences in one batch at most; the others wait in order of arrival
    max_prefill_tokens: prompts wait for the next step where they would exceed this together
    end_of_prompt_id: id of `<|endofprompt|>`, which splits CosyVoice3's prompt text in bistream
    silent_tokens: runs of these are shortened in the events; None takes the model version's list
    """

    def __init__(
        self,
        model: SpeechLM,
        pool_size_tokens: int,
        max_running: int,
        quirks: ReferenceQuirks | None = None,
        *,
        max_prefill_tokens: int = 4096,
        end_of_prompt_id: int | None = None,
        silent_tokens: Collection[int] | None = None,
    ) -> None:
        if max_running < 1:
            raise ValueError(f"max_running is {max_running}, must be at least 1")
        self._model = model
        self._pool = KVPool(pool_size_tokens)
        self._cache = model.new_cache(pool_size_tokens)
        self._max_running = max_running
        self._max_prefill_tokens = max_prefill_tokens
        self._quirks = quirks or ReferenceQuirks()
        self._end_of_prompt_id = end_of_prompt_id
        self._silent_tokens = SILENT_TOKENS[model.cfg.version] if silent_tokens is None else silent_tokens
        self._waiting: deque[_Waiting] = deque()
        self._running: dict[int, _Running] = {}
        self._next_id = 0

    @property
    def device(self) -> torch.device:
        return self._model.device

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Sequences that hold KV slots, those that wait for text included."""
        return len(self._running)

    @property
    def num_free_slots(self) -> int:
        return self._pool.num_free

    def is_idle(self) -> bool:
        """True where `step` would do nothing: there are no sequences, or all wait for text."""
        self._admit()
        return all(self._blocked(running.sequence) for running in self._running.values())

    def can_go_on(self, sequence_id: int) -> bool:
        """Whether `step` would feed this sequence: it runs, and does not wait for text."""
        self._admit()
        running = self._running.get(sequence_id)
        return running is not None and running.sequence.next_feed() is not None

    def add(self, request: SequenceRequest, picker: Picker | None = None) -> int:
        """Queue a sequence; returns its id.

        picker: replaces the sampler that `request.sampling` asks for
        Raises InvalidInput for unknown token ids, TextTooLong if it cannot fit into the pool even alone.
        """
        cfg = self._model.cfg
        request.check_ids(cfg)
        sequence: SpeechSequence
        if request.max_text_tokens is None:
            sequence = UniSequence(cfg, request, self._quirks)
        else:
            sequence = BistreamSequence(cfg, request, self._quirks, self._end_of_prompt_id)
        if sequence.max_kv_len > self._pool.num_slots:
            need, limit = sequence.max_kv_len, self._pool.num_slots
            raise TextTooLong(f"text and prompt may need {need} KV slots, the pool has {limit}")
        if picker is None:
            picker = RasSampler(request.sampling or SamplingParams.of(cfg.sampling))
        sequence_id, self._next_id = self._next_id, self._next_id + 1
        self._waiting.append(_Waiting(sequence_id, sequence, picker))
        return sequence_id

    def append_text(self, sequence_id: int, ids: tuple[int, ...]) -> None:
        """More text of a bistream sequence; ignored if it has finished. Raises TextTooLong, InvalidInput."""
        if sequence := self._find(sequence_id):
            sequence.append_text(ids)

    def end_text(self, sequence_id: int) -> None:
        """No more text will come; ignored once the sequence has finished."""
        if sequence := self._find(sequence_id):
            sequence.end_text()

    def abort(self, sequence_id: int) -> bool:
        """Forget a sequence and free its slots; no event follows. False if it has already finished."""
        if sequence_id in self._running:
            self._drop(sequence_id)
            return True
        left = [waiting for waiting in self._waiting if waiting.sequence_id != sequence_id]
        found = len(left) < len(self._waiting)
        self._waiting = deque(left)
        return found

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """One forward and one token for each sequence that can go on. Waits for nothing."""
        self._admit()
        events: list[Event] = []
        self._drop_finished(events)
        batch = self._gather()
        if batch:
            scores, finite = self._forward(batch)
            for (running, symbols), row, is_finite in zip(batch, scores, finite, strict=True):
                running.kv_len += len(symbols)
                self._sample(running, row, is_finite, events)
            self._drop_finished(events)
        return events

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self._max_running:
            span = self._pool.reserve(self._waiting[0].sequence.max_kv_len)
            if span is None:  # the first in line waits for room, and nobody overtakes it
                return
            new = self._waiting.popleft()
            silent = SilentTokenFilter(self._silent_tokens)
            self._running[new.sequence_id] = _Running(new.sequence_id, new.sequence, new.picker, silent, span)

    def _gather(self) -> list[tuple[_Running, list[Symbol]]]:
        """Who takes part in the next forward: all running speech, and as many prompts as may delay it."""
        batch: list[tuple[_Running, list[Symbol]]] = []
        room = self._max_prefill_tokens
        for running in self._running.values():
            feed = running.sequence.next_feed()
            if not feed:
                continue
            if len(feed) > 1:
                if len(feed) > room < self._max_prefill_tokens:  # the first prompt goes in at any length
                    continue
                room -= len(feed)
            batch.append((running, feed))
        return batch

    def _forward(self, batch: list[tuple[_Running, list[Symbol]]]) -> tuple[Tensor, list[bool]]:
        """(B, num_ids) float32 log-probabilities of the next tokens on the CPU, and which rows are finite."""
        feeds = [Feed(symbols, running.span.start, running.kv_len) for running, symbols in batch]
        inputs_embeds, packed = pack(self._model, feeds)
        hidden = self._model(inputs_embeds, packed, self._cache)
        if len(hidden) > len(batch):
            hidden = hidden[packed.last_rows]
        scores = self._model.logits(hidden).log_softmax(dim=-1).cpu()  # the step's one wait for the device
        return scores, scores.isfinite().all(dim=-1).tolist()

    def _sample(self, running: _Running, scores: Tensor, finite: bool, events: list[Event]) -> None:
        sequence = running.sequence
        constraint = sequence.constraint()
        try:
            if not finite:
                raise GenerationFailed("the language model's output is not finite")
            token = constraint.forced
            if token is None:
                token = running.picker.pick(scores, sequence.history, constraint)
            emitted = sequence.accept(token)
        except GenerationFailed as error:
            self._drop(running.sequence_id)
            events.append(FailedEvent(running.sequence_id, error))
            return
        if emitted is not None and running.silent.keeps(emitted):
            events.append(TokenEvent(running.sequence_id, emitted))

    def _drop_finished(self, events: list[Event]) -> None:
        for running in list(self._running.values()):
            sequence = running.sequence
            if sequence.next_feed() is None and sequence.finish_reason is not None:
                events.append(FinishedEvent(running.sequence_id, sequence.finish_reason))
                self._drop(running.sequence_id)

    def _drop(self, sequence_id: int) -> None:
        self._pool.release(self._running.pop(sequence_id).span)

    def _find(self, sequence_id: int) -> SpeechSequence | None:
        if sequence_id in self._running:
            return self._running[sequence_id].sequence
        return next((w.sequence for w in self._waiting if w.sequence_id == sequence_id), None)

    @staticmethod
    def _blocked(sequence: SpeechSequence) -> bool:
        return sequence.next_feed() is None and sequence.finish_reason is None
