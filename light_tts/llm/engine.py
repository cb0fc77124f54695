"""Continuous batching: a step feeds every sequence that has a place, and samples a token for each."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from light_tts.errors import GenerationFailed, LightTTSError, TextTooLong
from light_tts.llm.batch import Feed, pack
from light_tts.llm.bistream import BistreamSequence
from light_tts.llm.request import SamplingParams, SequenceRequest
from light_tts.llm.sampler import Picker, RasSampler
from light_tts.llm.scheduler import Scheduler, State, Work
from light_tts.llm.sequence import FinishReason, SpeechSequence, UniSequence
from light_tts.llm.silent import SILENT_TOKENS, SilentTokenFilter
from light_tts.models.kv_cache import KVCache, SavedKV
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


@dataclass(frozen=True, slots=True)
class _Voice:
    """What becomes of a sequence's scores and tokens."""

    picker: Picker
    silent: SilentTokenFilter


class Engine:
    """Generates speech tokens for any number of sequences. Not thread-safe, starts no threads.

    pool_size_tokens: KV slots; a sequence that runs has all that it can need
    max_running: sequences in one batch at most; the others wait in order of arrival
    max_prefill_tokens: of prompts, per step; what is longer takes several
    end_of_prompt_id: id of `<|endofprompt|>`, which splits CosyVoice3's prompt text in bistream; see also `add`
    silent_tokens: runs of these are shortened in the events; None takes the model version's list
    int8_kv: keys and values are kept in 8 bits
    max_sequence_tokens: longest prompt and output of a sequence together; None: what the pool holds
    admit_every, yield_after, max_of_group: as in Scheduler
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
        int8_kv: bool = False,
        max_sequence_tokens: int | None = None,
        admit_every: int = 1,
        yield_after: int | None = None,
        max_of_group: int | None = None,
    ) -> None:
        self._model = model
        self._cache = self._new_cache(pool_size_tokens, int8_kv)
        self._scheduler: Scheduler[SavedKV] = Scheduler(
            self._cache,
            pool_size_tokens,
            max_running,
            max_step_tokens=max_prefill_tokens,
            admit_every=admit_every,
            yield_after=yield_after,
            max_of_group=max_of_group,
        )
        self._quirks = quirks or ReferenceQuirks()
        self._end_of_prompt_id = end_of_prompt_id
        self._silent_tokens = SILENT_TOKENS[model.cfg.version] if silent_tokens is None else silent_tokens
        self._max_sequence_tokens = max_sequence_tokens
        self._voices: dict[int, _Voice] = {}
        self._next_id = 0
        self._batch_ids: tuple[int, ...] = ()
        self._events: list[Event] = []  # outlives a step that fails half-way

    def _new_cache(self, num_slots: int, int8: bool) -> KVCache:
        return self._model.new_cache(num_slots, int8=int8)

    @property
    def device(self) -> torch.device:
        return self._model.device

    @property
    def num_waiting(self) -> int:
        """Sequences that could go on if they had a place."""
        return self._scheduler.num_queued

    @property
    def num_running(self) -> int:
        """Sequences with a place; those that wait for text have none."""
        return self._scheduler.num_running

    @property
    def num_slots(self) -> int:
        return self._scheduler.pool.num_slots

    @property
    def num_free_slots(self) -> int:
        return self._scheduler.pool.num_free

    @property
    def batch_ids(self) -> tuple[int, ...]:
        """The sequences of the last forward, also if it failed; none where it was not even begun."""
        return self._batch_ids

    def is_idle(self) -> bool:
        """True where `step` would do nothing: there are no sequences, or all wait for text."""
        return self._scheduler.is_idle()

    def can_go_on(self, sequence_id: int) -> bool:
        """Whether this sequence has a place: it has text, and it is its turn."""
        self._scheduler.give_places()
        entry = self._scheduler.find(sequence_id)
        return entry is not None and entry.state is State.RUNNING

    def awaits_first_place(self, sequence_id: int) -> bool:
        """Whether the sequence has text, and waits for its turn to begin."""
        entry = self._scheduler.find(sequence_id)
        return entry is not None and not entry.started and entry.state is State.QUEUED

    def add(
        self,
        request: SequenceRequest,
        picker: Picker | None = None,
        *,
        end_of_prompt_id: int | None = None,
        group: str | None = None,
    ) -> int:
        """Queue a sequence; returns its id.

        picker: replaces the sampler that `request.sampling` asks for
        end_of_prompt_id: replaces the engine's
        group: as in Scheduler
        Raises InvalidInput for unknown token ids, TextTooLong if it cannot be had even alone.
        """
        cfg = self._model.cfg
        request.check_ids(cfg)
        sequence: SpeechSequence
        if request.max_text_tokens is None:
            sequence = UniSequence(cfg, request, self._quirks)
        else:
            end = self._end_of_prompt_id if end_of_prompt_id is None else end_of_prompt_id
            sequence = BistreamSequence(cfg, request, self._quirks, end)
        self._check_length(sequence)
        if picker is None:
            picker = RasSampler(request.sampling or SamplingParams.of(cfg.sampling))
        sequence_id, self._next_id = self._next_id, self._next_id + 1
        self._scheduler.add(sequence_id, sequence, group)
        self._voices[sequence_id] = _Voice(picker, SilentTokenFilter(self._silent_tokens))
        return sequence_id

    def append_text(self, sequence_id: int, ids: tuple[int, ...]) -> None:
        """More text of a bistream sequence; ignored if it has finished. Raises TextTooLong, InvalidInput."""
        if entry := self._scheduler.find(sequence_id):
            self._check_length(entry.sequence, len(ids))
            entry.sequence.append_text(ids)

    def end_text(self, sequence_id: int) -> None:
        """No more text will come; ignored once the sequence has finished."""
        if entry := self._scheduler.find(sequence_id):
            entry.sequence.end_text()

    def abort(self, sequence_id: int) -> bool:
        """Forget a sequence and free its slots; no event follows. False if it has already finished."""
        self._voices.pop(sequence_id, None)
        return self._scheduler.remove(sequence_id)

    @torch.inference_mode()
    def step(self, only: Collection[int] | None = None) -> list[Event]:
        """One forward, and one token for each sequence whose text is read. Waits for nothing.

        only: leave out all sequences but these
        """
        self._batch_ids = ()
        self._drop_finished()
        batch = self._scheduler.schedule()
        if only is not None:
            batch = [work for work in batch if work.entry.sequence_id in only]
        self._batch_ids = tuple(work.entry.sequence_id for work in batch)
        if batch:
            scores, finite = self._forward(batch)
            row = 0
            for work in batch:
                if work.completes:
                    self._sample(work, scores[row], finite[row])
                    row += 1
                self._scheduler.advance(work)  # last: an error before it leaves this sequence as it was
            self._drop_finished()
        events, self._events = self._events, []
        return events

    def _forward(self, batch: list[Work[SavedKV]]) -> tuple[Tensor, list[bool]]:
        """For the sequences whose feed is complete: (B, num_ids) float32 log-probabilities of their next tokens on the
        CPU, and which rows are finite.
        """
        feeds = [Feed(work.symbols, work.kv_start, work.entry.kv_len) for work in batch]
        inputs_embeds, packed = pack(self._model, feeds)
        rows = [row for row, work in zip(packed.last_rows, batch, strict=True) if work.completes]
        hidden = self._model(inputs_embeds, packed, self._cache, rows)
        if not rows:
            return hidden[:0], []
        scores = self._model.logits(hidden).log_softmax(dim=-1).cpu()  # the step's one wait for the device
        return scores, np.isfinite(scores.numpy()).all(axis=-1).tolist()

    def _sample(self, work: Work[SavedKV], scores: Tensor, finite: bool) -> None:
        sequence, sequence_id = work.entry.sequence, work.entry.sequence_id
        voice, constraint = self._voices[sequence_id], sequence.constraint()
        try:
            if not finite:
                raise GenerationFailed("the language model's output is not finite")
            token = constraint.forced
            if token is None:
                token = voice.picker.pick(scores, sequence.history, constraint)
            emitted = sequence.accept(token)
        except GenerationFailed as error:
            self.abort(sequence_id)
            self._events.append(FailedEvent(sequence_id, error))
            return
        if emitted is not None and voice.silent.keeps(emitted):
            self._events.append(TokenEvent(sequence_id, emitted))

    def _drop_finished(self) -> None:
        for sequence_id, reason in self._scheduler.pop_finished():
            del self._voices[sequence_id]
            self._events.append(FinishedEvent(sequence_id, reason))

    def _check_length(self, sequence: SpeechSequence, more_text: int = 0) -> None:
        need = sequence.longest(more_text)
        if self._max_sequence_tokens is not None and need > self._max_sequence_tokens:
            raise TextTooLong(
                f"prompt and speech may take {need} tokens, limit {self._max_sequence_tokens} (--max_req_total_len)"
            )
        if need > self.num_slots:
            raise TextTooLong(
                f"prompt and speech may take {need} tokens, the KV pool has {self.num_slots} (--max_total_token_num)"
            )
