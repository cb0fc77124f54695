"""The device's engine without a device: the same code with the reference kernels, against the plain engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from light_tts.errors import GenerationFailed, TextTooLong
from light_tts.kernels.suite import KernelSuite
from light_tts.llm import step_graphs
from light_tts.llm.ahead import Seats
from light_tts.llm.device_engine import DeviceEngine
from light_tts.llm.engine import Engine, Event, FailedEvent, FinishedEvent, TokenEvent
from light_tts.llm.packed_weights import PackedWeights
from light_tts.llm.philox_sampler import PhiloxSampler
from light_tts.llm.request import LengthLimits, SamplingParams, SequenceRequest
from light_tts.llm.sequence import Constraint
from light_tts.llm.step_plan import StepPlan
from light_tts.models.speech_lm import SpeechLM
from light_tts.quirks import ReferenceQuirks
from test.kernels.test_kernels import INTERPRETER
from test.support.random_lm import random_lm

POOL = 2000


def _library(num_rows: int) -> StepPlan | None:
    return None


def _run(engine: Engine) -> list[Event]:
    events: list[Event] = []
    while not engine.is_idle():
        events += engine.step()
    return events


def _tokens(events: list[Event], sequence_id: int) -> list[int]:
    return [e.token for e in events if isinstance(e, TokenEvent) and e.sequence_id == sequence_id]


def _request(length: int, **sampling: Any) -> SequenceRequest:
    text = tuple((7 * i + length) % 40 for i in range(length))
    params = SamplingParams(**{"seed": 1000 + length, **sampling})
    return SequenceRequest(text, (1, 2), tuple(range(length)), params, LengthLimits(1, 4))


REQUESTS = [
    _request(5),
    _request(9, temperature=0.7, top_p=0.95),
    _request(3, top_k=1, tau_r=2.0),
    _request(14, win_size=3, tau_r=0.4),
    _request(11, top_k=200, top_p=1.0),
    _request(2, seed=2**63 - 1),
]


def _expected(
    model: SpeechLM, requests: list[SequenceRequest], quirks: ReferenceQuirks | None = None
) -> list[list[int]]:
    """By the plain engine, each alone, with the device's random numbers."""
    spoken = []
    for request in requests:
        engine = Engine(model, POOL, 1, quirks)
        assert request.sampling is not None
        sequence_id = engine.add(request, PhiloxSampler(request.sampling))
        spoken.append(_tokens(_run(engine), sequence_id))
    return spoken


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("options", [{}, {"plan": _library}, {"max_prefill_tokens": 7}])
def test_a_batch_ahead_says_what_each_says_alone_in_the_plain_engine(
    version: int, options: dict[str, Any]
) -> None:
    model = random_lm(version, seed=3)
    engine, events, ids = DeviceEngine(model, POOL, 4, **options), list[Event](), []
    for request in REQUESTS:
        ids.append(engine.add(request))
        events += engine.step()
    events += _run(engine)
    assert [_tokens(events, sequence_id) for sequence_id in ids] == _expected(model, REQUESTS)
    for sequence_id in ids:
        own = [event for event in events if event.sequence_id == sequence_id]
        assert isinstance(own[-1], FinishedEvent)
    assert engine.num_free_slots == engine.num_slots == POOL


@dataclass(frozen=True, slots=True)
class _Replay:
    """A graph, as far as a CPU has one: what was captured runs again."""

    run: Callable[[], None]

    def replay(self) -> None:
        self.run()


@pytest.mark.filterwarnings("ignore:invalid value encountered in divide:RuntimeWarning")  # rows of nobody
@pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")
@pytest.mark.parametrize("int8_kv", [False, True])
def test_graphs_for_more_rows_and_tokens_than_there_are_say_the_same(
    monkeypatch: pytest.MonkeyPatch, int8_kv: bool
) -> None:
    """Prompts are captured only where their attention is a kernel: here in Triton's interpreter, if it is there."""
    monkeypatch.setattr(step_graphs, "_captured", lambda run, pool, side: run() or _Replay(run))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    monkeypatch.setattr(step_graphs, "_PROMPT_BUCKETS", (64, 128))
    interpreted = INTERPRETER and int8_kv
    model = random_lm(seed=17, hidden_size=96, heads=6)
    suite = KernelSuite(frozenset({"flash_prefill"} if interpreted else ()))
    engine = DeviceEngine(model, POOL, 7, int8_kv=int8_kv, suite=suite)
    lines: list[str] = []
    engine.capture(lines.append)
    assert f"captured {4 + 2 * interpreted} graphs" in lines[-1]
    plain = DeviceEngine(model, POOL, 7, int8_kv=int8_kv)
    spoken = []
    for one in (engine, plain):
        ids = [one.add(request) for request in REQUESTS]
        events = _run(one)
        spoken.append([_tokens(events, sequence_id) for sequence_id in ids])
    assert spoken[0] == spoken[1]


def test_the_minimum_length_holds_with_and_without_the_quirk() -> None:
    model = random_lm(3, seed=5)
    with torch.no_grad():
        model.llm_decoder.weight[61:] *= 3  # wants to stop
    for quirks in (ReferenceQuirks(), ReferenceQuirks(v3_min_len_ignored=True)):
        engine = DeviceEngine(model, POOL, 4, quirks)
        ids = [engine.add(request) for request in REQUESTS]
        events = _run(engine)
        spoken = [_tokens(events, sequence_id) for sequence_id in ids]
        assert spoken == _expected(model, REQUESTS, quirks)


def test_the_host_reads_tokens_after_the_next_step_is_launched() -> None:
    engine = DeviceEngine(random_lm(), POOL, 2)
    engine._reader.read = _never_there  # type: ignore[method-assign]
    engine.add(_request(5))
    assert engine.step() == []
    assert engine.step() == []
    assert engine.num_in_flight == 2
    assert len(engine.step()) == 1


def _never_there(tokens: Tensor) -> Any:
    """A reading that is there only when it is waited for."""

    class Late:
        is_there = False

        def __init__(self) -> None:
            self.tokens = tokens.tolist()

        def wait(self) -> list[int]:
            return list(self.tokens)

    return Late()


@pytest.mark.parametrize("late", [False, True])
def test_sequences_that_yield_and_come_back_say_the_same(late: bool) -> None:
    model = random_lm(seed=7)
    requests = [replace(request, limits=LengthLimits(3, 6)) for request in REQUESTS]
    engine = DeviceEngine(model, 150, 2, yield_after=5)
    if late:
        engine._reader.read = _never_there  # type: ignore[method-assign]
    ids = [engine.add(request) for request in requests]
    events = _run(engine)
    assert [_tokens(events, sequence_id) for sequence_id in ids] == _expected(model, requests)
    assert engine.num_free_slots == 150


def test_a_sequence_may_need_all_slots_and_displace_another_for_them() -> None:
    model = random_lm(seed=8)
    small, large = (
        REQUESTS[2],
        REQUESTS[3],
    )  # 3 and 14 text tokens: 1 + 2 + 3 + 1 + 3 + 11, 1 + 2 + 14 + 1 + 14 + 55
    engine = DeviceEngine(model, 87, 2, yield_after=2)
    ids = [engine.add(request) for request in (small, large)]
    events = _run(engine)
    assert [_tokens(events, sequence_id) for sequence_id in ids] == _expected(model, [small, large])
    with pytest.raises(TextTooLong):
        DeviceEngine(model, 86, 2).add(large)


def test_an_aborted_sequence_leaves_the_others_alone_and_its_seat_and_slots_to_the_next() -> None:
    model = random_lm(seed=9)
    engine = DeviceEngine(model, 200, 2)
    engine._reader.read = _never_there  # type: ignore[method-assign]
    first, second = engine.add(REQUESTS[3]), engine.add(REQUESTS[1])
    events = [event for _ in range(4) for event in engine.step()]
    assert engine.abort(first)
    third = engine.add(REQUESTS[0])
    events += _run(engine)
    expected = _expected(model, [REQUESTS[1], REQUESTS[0]])
    assert [_tokens(events, sequence_id) for sequence_id in (second, third)] == expected
    assert not any(isinstance(event, FinishedEvent) and event.sequence_id == first for event in events)
    assert engine.num_free_slots == 200


def test_text_that_arrives_in_pieces_and_own_samplers_step_beside_the_others() -> None:
    class Always:
        def pick(self, scores: Tensor, history: Sequence[int], constraint: Constraint) -> int:
            return 5

    model = random_lm(seed=11)
    request = SequenceRequest((1, 2, 3, 4, 5), max_text_tokens=12, sampling=SamplingParams(seed=4))
    alone = Engine(model, POOL, 1)
    lone = alone.add(request, PhiloxSampler(SamplingParams(seed=4)))
    alone.end_text(lone)
    engine = DeviceEngine(model, POOL, 4)
    usual, pieces, own = engine.add(REQUESTS[0]), engine.add(request), engine.add(REQUESTS[2], Always())
    wide = engine.add(replace(REQUESTS[1], sampling=SamplingParams(win_size=100, seed=6)))
    events = engine.step() + engine.step()
    engine.end_text(pieces)
    events += _run(engine)
    assert _tokens(events, pieces) == _tokens(_run(alone), lone)
    assert [_tokens(events, usual)] == _expected(model, REQUESTS[:1])
    assert _tokens(events, own) == [5] * 12
    wanted = replace(REQUESTS[1], sampling=SamplingParams(win_size=100, seed=6))
    assert [_tokens(events, wide)] == _expected(model, [wanted])


def test_a_sequence_whose_scores_are_not_finite_fails_alone() -> None:
    model = random_lm(seed=13)
    engine = DeviceEngine(model, POOL, 2)
    with torch.no_grad():
        model.qwen.embed_tokens.weight[49] = float("nan")
    bad, good = engine.add(replace(REQUESTS[0], text=(49, 3))), engine.add(REQUESTS[2])
    events = _run(engine)
    (failed,) = (event for event in events if event.sequence_id == bad)
    assert isinstance(failed, FailedEvent)
    assert isinstance(failed.error, GenerationFailed)
    assert [_tokens(events, good)] == _expected(model, [REQUESTS[2]])
    assert engine.num_free_slots == POOL


@pytest.mark.parametrize("only_one", [False, True])
def test_eight_bit_keys_and_values_stay_near_the_plain_engine(only_one: bool) -> None:
    """The scale is applied after the products here and before them there; greedy, so that few near-ties matter."""
    model = random_lm(seed=15)
    request = _request(12, top_k=1, tau_r=2.0)
    spoken = []
    for engine in (Engine(model, POOL, 1, int8_kv=True), DeviceEngine(model, POOL, 2, int8_kv=True)):
        if not only_one:
            engine.add(_request(4))
        sequence_id = engine.add(request)
        spoken.append(_tokens(_run(engine), sequence_id))
    assert spoken[0] == spoken[1]


def test_a_sequence_that_is_seated_again_keeps_its_seat() -> None:
    seats = Seats.of(1)
    assert seats.take(7, 10) == seats.take(7, 20) == 0
    assert seats.starts == {7: 20}
    seats.release(7)
    assert seats.free == [0]


@pytest.mark.parametrize("version", [2, 3])
def test_the_weights_that_the_device_step_copies_are_foretold(version: int) -> None:
    model = random_lm(version, seed=3)
    held = {tensor.untyped_storage().data_ptr() for tensor in model.parameters()}
    packed = PackedWeights.of(model, 50)
    tensors = [packed.head, packed.speech_table, packed.cos, packed.sin]
    for layer in packed.layers:
        tensors += [layer.qkv, layer.qkv_bias, layer.out, layer.gate_up, layer.down]
    new = sum(tensor.nbytes for tensor in tensors if tensor.untyped_storage().data_ptr() not in held)
    assert PackedWeights.bytes_beside(model, 50) == new
