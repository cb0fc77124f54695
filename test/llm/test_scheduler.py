from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from light_tts.llm.bistream import BistreamSequence
from light_tts.llm.request import LengthLimits, SequenceRequest
from light_tts.llm.scheduler import MAX_CHUNK, Scheduler, State
from light_tts.llm.sequence import UniSequence
from light_tts.models.config import Qwen2Config, SamplingConfig, SpeechLMConfig
from light_tts.quirks import ReferenceQuirks

CFG = SpeechLMConfig(2, Qwen2Config(50, 8, 8, 1, 1, 1), 61, SamplingConfig())

Cell = tuple[int, int]  # a sequence and a position in it


@dataclass(slots=True)
class Memory:
    """Says of each slot what was written to it last."""

    size: int
    cells: list[Cell | None] = field(init=False)
    num_saved: int = 0

    def __post_init__(self) -> None:
        self.cells = [None] * self.size

    def save(self, start: int, length: int) -> list[Cell | None]:
        self.num_saved += 1
        return self.cells[start : start + length]

    def restore(self, start: int, saved: list[Cell | None]) -> None:
        self.cells[start : start + len(saved)] = saved


@dataclass(slots=True)
class Bench:
    """A scheduler whose sequences get the token 5 for every feed."""

    num_slots: int
    max_running: int
    max_step_tokens: int = 100
    admit_every: int = 1
    yield_after: int | None = None
    max_of_group: int | None = None
    memory: Memory = field(init=False)
    scheduler: Scheduler[list[Cell | None]] = field(init=False)
    next_id: int = 0
    emitted: dict[int, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.memory = Memory(self.num_slots)
        self.scheduler = Scheduler(
            self.memory,
            self.num_slots,
            self.max_running,
            max_step_tokens=self.max_step_tokens,
            admit_every=self.admit_every,
            yield_after=self.yield_after,
            max_of_group=self.max_of_group,
        )

    def add(self, text: int, ratio: int = 2, prompt_speech: int = 0, group: str | None = None) -> int:
        request = SequenceRequest(
            (1,) * text, (), (1,) * prompt_speech, limits=LengthLimits(ratio, ratio), sampling=None
        )
        return self._add(UniSequence(CFG, request, ReferenceQuirks()), group)

    def open(self) -> int:
        request = SequenceRequest((), limits=LengthLimits(1, 4), max_text_tokens=40)
        return self._add(BistreamSequence(CFG, request, ReferenceQuirks()))

    def _add(self, sequence: UniSequence | BistreamSequence, group: str | None = None) -> int:
        sequence_id, self.next_id = self.next_id, self.next_id + 1
        self.scheduler.add(sequence_id, sequence, group)
        self.emitted[sequence_id] = sequence.emitted
        return sequence_id

    def step(self) -> dict[int, int]:
        """One step: how many symbols each sequence read. Each must find all that it read before."""
        self.scheduler.pop_finished()
        work = self.scheduler.schedule()
        lens = {}
        for item in work:
            entry = item.entry
            assert entry.span is not None
            assert entry.span.start == item.kv_start
            assert entry.kv_len + len(item.symbols) <= entry.span.length
            own = [(entry.sequence_id, position) for position in range(entry.kv_len + len(item.symbols))]
            start = item.kv_start
            assert self.memory.cells[start : start + entry.kv_len] == own[: entry.kv_len]
            self.memory.cells[start + entry.kv_len : start + len(own)] = own[entry.kv_len :]
            lens[entry.sequence_id] = len(item.symbols)
        for item in work:
            if item.completes:
                forced = item.entry.sequence.constraint().forced
                item.entry.sequence.accept(5 if forced is None else forced)
            self.scheduler.advance(item)
        assert self.scheduler.num_running <= self.max_running
        return lens

    def run(self) -> Iterator[dict[int, int]]:
        while not self.scheduler.is_idle():
            yield self.step()

    @property
    def is_empty(self) -> bool:
        s = self.scheduler
        return (s.num_queued, s.num_running, s.num_paused, s.pool.num_free) == (0, 0, 0, self.num_slots)


def test_longer_prompts_are_read_in_chunks_and_running_speech_goes_on() -> None:
    bench = Bench(2000, 3, max_step_tokens=20)
    speaking = bench.add(3, ratio=9)
    bench.step()
    long = bench.add(50)
    assert [bench.step() for _ in range(4)] == [
        {speaking: 1, long: 20},
        {speaking: 1, long: 20},
        {speaking: 1, long: 12},
        {speaking: 1, long: 1},
    ]


def test_how_a_prompt_is_cut_does_not_depend_on_others() -> None:
    cuts = []
    for others in (0, 3):
        bench = Bench(9000, 9, max_step_tokens=700)
        for _ in range(others):
            bench.add(100)
        sequence_id = bench.add(100, ratio=1, prompt_speech=1200)
        cuts.append([lens[sequence_id] for lens in bench.run() if sequence_id in lens][:4])
    assert cuts[0] == cuts[1] == [MAX_CHUNK, MAX_CHUNK, 1302 - 2 * MAX_CHUNK, 1]


def test_new_sequences_wait_for_the_admission_and_known_ones_do_not() -> None:
    bench = Bench(2000, 9, admit_every=5)
    opened = bench.open()
    entry = bench.scheduler.find(opened)
    assert entry is not None
    entry.sequence.append_text((1,) * 5)
    while bench.step():
        pass
    assert entry.state is State.PAUSED
    bench.add(9, ratio=9)
    bench.step()
    new = bench.add(3)
    entry.sequence.append_text((1,) * 5)
    lens = [bench.step() for _ in range(6)]
    assert opened in lens[0]
    assert [new in step for step in lens] == [False] * 4 + [True] * 2


def test_a_sequence_gives_way_only_after_its_steps_and_only_if_others_wait() -> None:
    bench = Bench(2000, 1, yield_after=4)
    first = bench.add(5, ratio=4)
    alone = [bench.step() for _ in range(6)]
    assert all(first in lens for lens in alone)
    second = bench.add(5, ratio=4)
    turns = [next(iter(lens)) for lens in bench.run() if lens]
    assert turns[:9] == [second] * 4 + [first] * 4 + [second]
    assert bench.memory.num_saved == 0, "both have slots all the time"
    bench.step()
    assert bench.is_empty


def test_a_group_has_no_more_than_its_share_of_the_places_and_its_sequences_follow_in_order() -> None:
    bench = Bench(2000, 4, max_of_group=2)
    long_text = [bench.add(5, ratio=2, group="long") for _ in range(5)]
    assert list(bench.step()) == long_text[:2]
    other = bench.add(5, ratio=2, group="other")
    assert list(bench.step()) == [*long_text[:2], other]
    seen = list(dict.fromkeys(sequence_id for lens in bench.run() for sequence_id in lens))
    assert [sequence_id for sequence_id in seen if sequence_id != other] == long_text
    bench.step()
    assert bench.is_empty


def test_a_free_place_goes_to_the_group_that_has_fewest() -> None:
    bench = Bench(2000, 2, max_of_group=2)
    long_text = [bench.add(5, ratio=2, group="long") for _ in range(4)]
    bench.step()
    other = bench.add(5, ratio=2, group="other")
    while long_text[0] in (lens := bench.step()):
        pass
    assert other in lens, "it came last"


def test_slots_are_taken_from_paused_sequences_first() -> None:
    bench = Bench(100, 2)
    opened = bench.open()
    entry = bench.scheduler.find(opened)
    assert entry is not None
    entry.sequence.append_text((1,) * 5)
    held = list(bench.run())
    assert held
    running = bench.add(5, ratio=6)
    bench.step()
    bench.add(7, ratio=4)
    bench.step()
    assert entry.span is None
    assert entry.saved is not None
    still = bench.scheduler.find(running)
    assert still is not None
    assert still.span is not None


def test_a_sequence_whose_text_grows_gets_more_slots_before_it_goes_on() -> None:
    bench = Bench(300, 2)
    opened = bench.open()
    entry = bench.scheduler.find(opened)
    assert entry is not None
    entry.sequence.append_text((1,) * 5)
    bench.step()
    assert entry.span is not None
    neighbour = bench.add(10, ratio=5)
    before = entry.span
    bench.step()
    entry.sequence.append_text((1,) * 20)
    entry.sequence.end_text()
    lens = list(bench.run())
    assert bench.memory.num_saved == 1, "the neighbour is in the way"
    assert before.length < 100
    assert len(bench.emitted[opened]) == 100
    assert any(opened in step and neighbour in step for step in lens)
    bench.step()
    assert bench.is_empty


@pytest.mark.parametrize("name", ["max_running", "max_step_tokens", "admit_every"])
def test_limits_below_one_are_refused(name: str) -> None:
    values = {"max_running": 1, "max_step_tokens": 1, "admit_every": 1, name: 0}
    with pytest.raises(ValueError, match=f"{name} is 0"):
        Scheduler(
            Memory(5),
            5,
            values["max_running"],
            max_step_tokens=values["max_step_tokens"],
            admit_every=values["admit_every"],
        )


_OPERATIONS = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 12)),
    st.tuples(st.just("open"), st.just(0)),
    st.tuples(st.sampled_from(["text", "end", "remove"]), st.integers(0, 9)),
    st.tuples(st.just("step"), st.integers(1, 9)),
)


@given(
    st.lists(_OPERATIONS, max_size=40),
    st.integers(1, 4),
    st.sampled_from([None, 1, 3]),
    st.sampled_from([1, 4]),
    st.sampled_from([1, 7, 100]),
)
def test_whatever_happens_everyone_keeps_what_is_theirs_and_comes_to_an_end(
    operations: list[tuple[str, int]],
    max_running: int,
    yield_after: int | None,
    admit_every: int,
    max_step_tokens: int,
) -> None:
    bench = Bench(260, max_running, max_step_tokens, admit_every, yield_after)
    open_ids, ended = list[int](), set[int]()
    for operation, number in operations:
        match operation:
            case "add":
                bench.add(number, ratio=1 + number % 4)
            case "open":
                open_ids.append(bench.open())
            case "step":
                for _ in range(number):
                    bench.step()
            case "remove":
                bench.scheduler.remove(number)
            case _ if number < len(open_ids):
                entry = bench.scheduler.find(open_ids[number])
                if entry is None or open_ids[number] in ended:
                    continue
                if operation == "end":
                    entry.sequence.end_text()
                    ended.add(open_ids[number])
                elif entry.sequence.longest(6) <= 260:
                    entry.sequence.append_text((1,) * 6)
    for sequence_id in open_ids:
        entry = bench.scheduler.find(sequence_id)
        if entry is not None and sequence_id not in ended:
            entry.sequence.end_text()
    for _ in range(4000):
        if bench.scheduler.is_idle():
            break
        bench.step()
    bench.scheduler.pop_finished()
    assert bench.is_empty
