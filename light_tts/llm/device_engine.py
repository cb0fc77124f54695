"""The engine whose device runs ahead: step n + 1 is launched before the host has read the tokens of step n.

What runs where: sequences whose whole text is known are drawn on the device, and the host hears of their tokens a step
or two later; what a sequence was given beyond its end is dropped. Sequences whose text is still arriving (bistream),
and those with a sampler of their own, take one synchronous step at a time, as `Engine` does it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import torch

from light_tts.errors import GenerationFailed
from light_tts.kernels.flash_prefill import PackedPrompts
from light_tts.kernels.sample import NOT_FINITE, SURPLUS
from light_tts.kernels.suite import KernelSuite
from light_tts.llm.ahead import AheadSequence, Seats
from light_tts.llm.device_memory import Reading, TokenReader, Uploader
from light_tts.llm.device_step import DeviceStep, Plan, Prompts
from light_tts.llm.engine import Engine, Event, FailedEvent, TokenEvent
from light_tts.llm.packed_weights import PackedWeights
from light_tts.llm.philox_sampler import PhiloxSampler
from light_tts.llm.request import SamplingParams, SequenceRequest
from light_tts.llm.sampler import Picker
from light_tts.llm.scheduler import Entry, State, Work
from light_tts.llm.sequence import UniSequence
from light_tts.llm.step_graphs import StepRunner, padded_sizes
from light_tts.llm.step_plan import default_plan
from light_tts.models.kv_cache import KVCache, SavedKV
from light_tts.models.speech_lm import SpeechLM
from light_tts.quirks import ReferenceQuirks

MAX_AHEAD = 2  # launched steps whose tokens the host has not read


@dataclass(frozen=True, slots=True)
class _Flight:
    """A launched step. entries: whose token each of the reading is"""

    entries: tuple[Entry[SavedKV], ...]
    reading: Reading


class DeviceEngine(Engine):
    """An Engine; see there for what is the same. Seeds give other tokens than there: the numbers are Philox's.

    suite: the kernels; None takes the best for the model's device and type
    plan: tiles of the products, by number of rows
    """

    def __init__(
        self,
        model: SpeechLM,
        pool_size_tokens: int,
        max_running: int,
        quirks: ReferenceQuirks | None = None,
        *,
        max_prefill_tokens: int = 2048,
        end_of_prompt_id: int | None = None,
        silent_tokens: Collection[int] | None = None,
        int8_kv: bool = False,
        max_sequence_tokens: int | None = None,
        admit_every: int = 1,
        yield_after: int | None = None,
        max_of_group: int | None = None,
        suite: KernelSuite | None = None,
        plan: Plan = default_plan,
    ) -> None:
        super().__init__(
            model,
            pool_size_tokens,
            max_running,
            quirks,
            max_prefill_tokens=max_prefill_tokens,
            end_of_prompt_id=end_of_prompt_id,
            silent_tokens=silent_tokens,
            int8_kv=int8_kv,
            max_sequence_tokens=max_sequence_tokens,
            admit_every=admit_every,
            yield_after=yield_after,
            max_of_group=max_of_group,
        )
        longest = min(pool_size_tokens, max_sequence_tokens or pool_size_tokens)
        self._weights = PackedWeights.of(model, longest)
        self._step = DeviceStep(
            self._weights,
            self._cache,
            suite or KernelSuite.best(model.device, model.dtype),
            num_seats=max_running,
            max_rows=padded_sizes(max_running)[-1],
            max_len=longest,
            scratch_slot=pool_size_tokens,
            plan=plan,
        )
        self._runner = StepRunner(self._step, max_running)
        self._uploader, self._reader = Uploader(model.device), TokenReader(model.device)
        self._seats = Seats.of(max_running)
        self._rows: list[int] = []  # seats in `row_seat`, as the device has them
        self._flights: deque[_Flight] = deque()

    def _new_cache(self, num_slots: int, int8: bool) -> KVCache:
        return super()._new_cache(num_slots + 1, int8)  # the last is nobody's

    @property
    def suite(self) -> KernelSuite:
        return self._step.suite

    @property
    def num_in_flight(self) -> int:
        """Launched steps whose tokens have not been read."""
        return len(self._flights)

    def capture(self, log: Callable[[str], None] | None = None) -> None:
        """Put the step into CUDA graphs. Before the first sequence, and only on a GPU."""
        options = {} if log is None else {"log": log}
        self._runner.capture(prompts="flash_prefill" in self.suite.fast, **options)

    def is_idle(self) -> bool:
        return not self._flights and super().is_idle()

    def can_go_on(self, sequence_id: int) -> bool:
        """Also where its last tokens are still to be read."""
        flying = any(entry.sequence_id == sequence_id for flight in self._flights for entry in flight.entries)
        return flying or super().can_go_on(sequence_id)

    def add(
        self,
        request: SequenceRequest,
        picker: Picker | None = None,
        *,
        end_of_prompt_id: int | None = None,
        group: str | None = None,
    ) -> int:
        sampling = request.sampling or SamplingParams.of(self._model.cfg.sampling)
        own = picker is not None
        sequence_id = super().add(
            request, picker or PhiloxSampler(sampling), end_of_prompt_id=end_of_prompt_id, group=group
        )
        entry = self._scheduler.find(sequence_id)
        assert entry is not None
        if isinstance(entry.sequence, UniSequence) and not own and AheadSequence.can_sample(sampling):
            entry.sequence = AheadSequence(entry.sequence, sampling)
        return sequence_id

    @torch.inference_mode()
    def step(self, only: Collection[int] | None = None) -> list[Event]:
        """Launch a step, and give the tokens of an earlier one. Waits for the device where it is far enough ahead.

        only: leave out all sequences but these
        """
        self._batch_ids = ()
        self._collect(0 if only is not None else MAX_AHEAD - 1)
        self._drop_finished()
        batch = self._scheduler.schedule()
        if only is not None:
            batch = [work for work in batch if work.entry.sequence_id in only]
        batch = self._seated(batch)
        self._batch_ids = tuple(work.entry.sequence_id for work in batch)
        draws, prompts, synchronous = _sorted(batch)
        self._launch_decode(draws)
        self._launch_prefill(prompts)
        self._step_synchronously(synchronous)
        if not batch:
            self._collect(max(0, len(self._flights) - 1))
        self._drop_finished()
        events, self._events = self._events, []
        return events

    def _step_synchronously(self, batch: list[Work[SavedKV]]) -> None:
        if not batch:
            return
        scores, finite = self._forward(batch)
        row = 0
        for work in batch:
            if work.completes:
                self._sample(work, scores[row], finite[row])
                row += 1
            self._scheduler.advance(work)

    # --- to the device

    def _seated(self, batch: list[Work[SavedKV]]) -> list[Work[SavedKV]]:
        """Free the seats of those that have lost their places or slots, and give seats to those that come back."""
        for sequence_id, start in list(self._seats.starts.items()):
            entry = self._scheduler.find(sequence_id)
            span = entry.span if entry is not None and entry.state is State.RUNNING else None
            if span is None or span.start != start:
                self._seats.release(sequence_id)
        if all(work.entry.sequence_id in self._seats.taken for work in batch if _draws(work)):
            return batch
        self._collect(0)  # their last tokens may still be on the way
        batch = [work for work in batch if self._goes_on(work.entry)]
        self._seat([w for w in batch if _draws(w) and w.entry.sequence_id not in self._seats.taken])
        return batch

    def _seat(self, works: list[Work[SavedKV]]) -> None:
        """Tell the device of sequences as they are before `works`; those that read prompts, as they are after."""
        rows, seats = [], []
        for work in works:
            entry, sequence = work.entry, work.entry.sequence
            assert isinstance(sequence, AheadSequence)
            position = entry.kv_len if _draws(work) else entry.kv_len + len(work.symbols)
            rows.append(sequence.seat(work.kv_start, position))
            seats.append(self._seats.take(entry.sequence_id, work.kv_start))
        if rows:
            numbers, index = self._uploader.upload([np.stack(rows), np.array(seats, np.int32)])
            self._step.seats.index_copy_(0, index.long(), numbers)

    def _launch_decode(self, works: list[Work[SavedKV]]) -> None:
        if not works:
            return
        seats = [self._seats.taken[work.entry.sequence_id] for work in works]
        if seats != self._rows:
            full = np.full(self._step.max_rows, self._step.num_seats, np.int32)
            full[: len(seats)] = seats
            (numbers,) = self._uploader.upload([full])
            self._step.row_seat.copy_(numbers)
            self._rows = seats
        self._runner.decode(len(works))
        reading = self._reader.read(self._step.tokens[: len(works)])
        self._flights.append(_Flight(tuple(work.entry for work in works), reading))
        self._advance(works)

    def _launch_prefill(self, works: list[Work[SavedKV]]) -> None:
        if not works:
            return
        complete = [work for work in works if work.completes]
        self._seat(complete)
        seats = [self._seats.taken[work.entry.sequence_id] for work in complete]
        ends = np.cumsum([len(work.symbols) for work in works])
        last = [int(end) - 1 for work, end in zip(works, ends, strict=True) if work.completes]
        ids = [self._weights.table_id(symbol) for work in works for symbol in work.symbols]
        spans = [(work.kv_start, work.entry.kv_len, len(work.symbols)) for work in works]
        arrays = [np.array(numbers, np.int32) for numbers in (ids, last, seats)]
        on_device = self._uploader.upload([*arrays, *PackedPrompts.layout(spans)])
        prompts = Prompts(PackedPrompts(tuple(spans), *on_device[3:]), *on_device[:3])
        tokens = self._runner.prefill(prompts)
        if complete:
            entries = tuple(work.entry for work in complete)
            self._flights.append(_Flight(entries, self._reader.read(tokens)))
        self._advance(works)

    def _advance(self, works: list[Work[SavedKV]]) -> None:
        for work in works:
            sequence = work.entry.sequence
            assert isinstance(sequence, AheadSequence)
            if work.completes:
                sequence.num_drawn += 1
            self._scheduler.advance(work)

    # --- from the device

    def _collect(self, keep: int) -> None:
        """Read the tokens that are there, and wait until at most `keep` flights are left."""
        while self._flights and (len(self._flights) > keep or self._flights[0].reading.is_there):
            flight = self._flights.popleft()
            for entry, token in zip(flight.entries, flight.reading.wait(), strict=True):
                self._take(entry, token)

    def _goes_on(self, entry: Entry[SavedKV]) -> bool:
        """Neither at its end nor aborted."""
        return self._scheduler.find(entry.sequence_id) is entry and entry.sequence.finish_reason is None

    def _take(self, entry: Entry[SavedKV], token: int) -> None:
        sequence_id, sequence = entry.sequence_id, entry.sequence
        if not self._goes_on(entry):
            return
        if token in (NOT_FINITE, SURPLUS):
            self.abort(sequence_id)
            text = "the language model's output is not finite"
            if token == SURPLUS:
                text = "the device ended a sequence that the host did not"
            self._events.append(FailedEvent(sequence_id, GenerationFailed(text)))
            return
        emitted = sequence.accept(token)
        if emitted is not None and self._voices[sequence_id].silent.keeps(emitted):
            self._events.append(TokenEvent(sequence_id, emitted))


def _draws(work: Work[SavedKV]) -> bool:
    """Whether it feeds what the device drew last, not its prompt."""
    sequence = work.entry.sequence
    return isinstance(sequence, AheadSequence) and sequence.num_drawn > 0


_Works = list[Work[SavedKV]]


def _sorted(batch: _Works) -> tuple[_Works, _Works, _Works]:
    """Those that draw ahead, those whose prompts are read for that, and those that step synchronously."""
    draws, prompts, synchronous = _Works(), _Works(), _Works()
    for work in batch:
        if not isinstance(work.entry.sequence, AheadSequence):
            synchronous.append(work)
        else:
            (draws if _draws(work) else prompts).append(work)
    return draws, prompts, synchronous
