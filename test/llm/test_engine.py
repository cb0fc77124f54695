from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from light_tts.errors import GenerationFailed, InvalidInput, TextTooLong
from light_tts.llm.engine import Engine, Event, FailedEvent, FinishedEvent, TokenEvent
from light_tts.llm.request import LengthLimits, SamplingParams, SequenceRequest
from light_tts.llm.sampler import RasSampler
from light_tts.llm.sequence import Constraint, FinishReason
from light_tts.models.kv_cache import SavedKV
from light_tts.models.loader import load_speech_lm
from light_tts.models.model_yaml import read_model_config
from light_tts.models.speech_lm import SpeechLM
from light_tts.quirks import ReferenceQuirks
from test.support.random_lm import random_lm

POOL = 2000


@dataclass(slots=True)
class _Noting:
    """The product's sampler, with the scores it was given."""

    seed: int
    scores: list[Tensor] = field(default_factory=list)
    inner: RasSampler = field(init=False)

    def __post_init__(self) -> None:
        self.inner = RasSampler(SamplingParams(seed=self.seed))

    def pick(self, scores: Tensor, history: Sequence[int], constraint: Constraint) -> int:
        self.scores.append(scores.clone())
        return self.inner.pick(scores, history, constraint)


@dataclass(frozen=True, slots=True)
class _Always:
    """Says the same id every time."""

    token: int

    def pick(self, scores: Tensor, history: Sequence[int], constraint: Constraint) -> int:
        return self.token


def _run(engine: Engine) -> list[Event]:
    events: list[Event] = []
    while not engine.is_idle():
        events += engine.step()
    return events


def _tokens(events: list[Event], sequence_id: int) -> list[int]:
    return [e.token for e in events if isinstance(e, TokenEvent) and e.sequence_id == sequence_id]


def _request(length: int, seed: int | None = None, **changes: Any) -> SequenceRequest:
    text = tuple((7 * i + length) % 40 for i in range(length))
    sampling = None if seed is None else SamplingParams(seed=seed)
    return replace(SequenceRequest(text, limits=LengthLimits(1, 4), sampling=sampling), **changes)


def _golden_lm(model_dir: Path) -> SpeechLM:
    cfg = read_model_config(model_dir).llm
    return load_speech_lm(model_dir, cfg, torch.device("cpu"), torch.float32).prepare()


def test_same_seed_gives_the_same_tokens_alone_and_in_any_batch(model_dir: Path) -> None:
    model = _golden_lm(model_dir)
    requests = [
        SequenceRequest((5, 6, 7), (), (), limits=LengthLimits(3, 9)),
        SequenceRequest(tuple(range(10, 31)), (1, 2), tuple(range(300, 340)), limits=LengthLimits(1, 2)),
        SequenceRequest((90,), tuple(range(60)), (8,), limits=LengthLimits(20, 20)),
        SequenceRequest((41, 42, 43, 44, 45, 46, 47), (), tuple(range(7)), max_text_tokens=9),
    ]
    alone: list[tuple[list[int], _Noting]] = []
    for seed, request in enumerate(requests):
        engine, noting = Engine(model, POOL, 1), _Noting(seed)
        sequence_id = engine.add(request, noting)
        if request.max_text_tokens:
            engine.end_text(sequence_id)
        alone.append((_tokens(_run(engine), sequence_id), noting))
    engine, together, events = Engine(model, POOL, 3), [_Noting(seed) for seed in range(4)], list[Event]()
    for index in (2, 0, 3, 1):
        sequence_id = engine.add(requests[index], together[index])
        if requests[index].max_text_tokens:
            engine.end_text(sequence_id)
        events += engine.step()
    events += _run(engine)
    for sequence_id, index in enumerate((2, 0, 3, 1)):
        tokens, noted = alone[index]
        assert len(tokens) > 5
        assert _tokens(events, sequence_id) == tokens
        assert torch.equal(torch.stack(together[index].scores), torch.stack(noted.scores)), "to the last bit"


def test_a_sequence_ends_with_exactly_one_last_event_and_gives_its_slots_back() -> None:
    engine = Engine(random_lm(), POOL, 4)
    ids = [engine.add(_request(length, seed=length)) for length in (3, 9, 5)]
    events = _run(engine)
    for sequence_id in ids:
        own = [event for event in events if event.sequence_id == sequence_id]
        assert isinstance(own[-1], FinishedEvent)
        assert all(isinstance(event, TokenEvent) for event in own[:-1])
    assert (engine.num_running, engine.num_waiting, engine.num_free_slots) == (0, 0, POOL)
    assert engine.step() == []


def test_finish_reason_tells_an_end_from_a_cut() -> None:
    model = random_lm()
    engine = Engine(model, POOL, 2)
    limits = LengthLimits(0, 4)
    engine.add(_request(3, limits=limits), _Always(model.cfg.eos_id))
    engine.add(_request(3, limits=limits), _Always(5))
    events = _run(engine)
    assert FinishedEvent(0, FinishReason.STOP) in events
    assert FinishedEvent(1, FinishReason.LENGTH) in events
    assert _tokens(events, 0) == []
    assert _tokens(events, 1) == [5] * 12


def test_sequences_start_in_order_when_there_is_room() -> None:
    engine = Engine(random_lm(), 100, 2)
    big, small = _request(14), _request(2)  # need 71 and 11 slots
    ids = [engine.add(request, _Always(5)) for request in (big, big, small)]
    engine.step()
    assert (engine.num_running, engine.num_waiting) == (1, 2), "the small one does not overtake"
    events = _run(engine)
    finished = [e.sequence_id for e in events if isinstance(e, FinishedEvent)]
    assert finished == [ids[0], ids[2], ids[1]]


def test_no_more_than_max_running_at_a_time() -> None:
    engine = Engine(random_lm(), POOL, 2)
    for length in (4, 5, 6, 7):
        engine.add(_request(length, seed=1))
    while not engine.is_idle():
        assert engine.num_running <= 2
        engine.step()
    assert engine.num_waiting == 0


def test_what_can_never_fit_is_refused_at_once() -> None:
    engine = Engine(random_lm(), 50, 2)
    with pytest.raises(TextTooLong, match="pool has 50"):
        engine.add(_request(20))
    with pytest.raises(TextTooLong, match=r"23 tokens, the KV pool has 22 \(--max_total_token_num\)"):
        Engine(random_lm(), 22, 2).add(SequenceRequest((1,), max_text_tokens=30))
    limited = Engine(random_lm(), POOL, 2, max_sequence_tokens=22)
    with pytest.raises(TextTooLong, match=r"take 23 tokens, limit 22 \(--max_req_total_len\)"):
        limited.add(SequenceRequest((1,), max_text_tokens=30))
    with pytest.raises(InvalidInput, match="prompt_speech"):
        engine.add(_request(2, prompt_speech=(61,)))
    assert engine.is_idle()
    assert engine.num_waiting == 0


def test_prompts_share_a_step_up_to_the_limit_and_speech_goes_on_meanwhile() -> None:
    model, lens = random_lm(), list[int]()
    engine = Engine(model, POOL, 9, max_prefill_tokens=30)
    speaking = engine.add(_request(3), _Always(5))
    engine.step()
    handle = model.register_forward_hook(lambda _, args, __: lens.append(len(args[0])))
    ids = [engine.add(_request(length), _Always(5)) for length in (40, 10, 10)]
    talks = []
    for _ in range(3):
        events = engine.step()
        talks.append({event.sequence_id for event in events})
    handle.remove()
    assert talks[0] == {speaking}, "the first prompt, of 42 symbols, takes two steps"
    assert talks[1] == {speaking, *ids[:2]}
    assert talks[2] == {speaking, *ids}
    assert lens == [1 + 30, 1 + 12 + 12, 2 + 1 + 12]


def test_not_finite_output_fails_that_sequence_only() -> None:
    model = random_lm()
    alone = Engine(model, POOL, 1)
    alone.add(_request(6, seed=3))
    expected = _tokens(_run(alone), 0)
    model.speech_embedding.weight[60] = torch.nan
    engine = Engine(model, POOL, 4)
    broken = engine.add(_request(4, prompt_speech=(1, 60)))
    sound = engine.add(_request(6, seed=3))
    events = _run(engine)
    failures = [event for event in events if isinstance(event, FailedEvent)]
    assert [failure.sequence_id for failure in failures] == [broken]
    assert isinstance(failures[0].error, GenerationFailed)
    assert failures[0] == [event for event in events if event.sequence_id == broken][-1]
    assert _tokens(events, sound) == expected
    assert engine.num_free_slots == POOL
    after = engine.add(_request(6, seed=3))
    assert _tokens(_run(engine), after) == expected, "slots that held NaN are clean again"


def test_a_meaningless_token_fails_that_sequence_only() -> None:
    model = random_lm()
    engine = Engine(model, POOL, 2)
    broken = engine.add(SequenceRequest((1, 2, 3, 4, 5), max_text_tokens=5), _Always(model.cfg.eos_id))
    sound = engine.add(_request(2), _Always(5))
    events = _run(engine)
    assert [e.sequence_id for e in events if isinstance(e, FailedEvent)] == [broken]
    assert FinishedEvent(sound, FinishReason.LENGTH) in events


def test_abort_frees_running_and_waiting_sequences_at_once() -> None:
    engine = Engine(random_lm(), POOL, 1)
    running, waiting, last = (engine.add(_request(5), _Always(5)) for _ in range(3))
    engine.step()
    assert engine.abort(running)
    assert engine.num_free_slots == POOL
    assert engine.abort(waiting)
    assert not engine.abort(running)
    assert {event.sequence_id for event in _run(engine)} == {last}
    assert not engine.abort(last)


def test_text_that_arrives_late_is_waited_for_outside_the_batch() -> None:
    engine = Engine(random_lm(), POOL, 2)
    slow = engine.add(SequenceRequest((1, 2), max_text_tokens=12), _Always(5))
    assert engine.is_idle()
    assert engine.num_free_slots == POOL, "it has nothing to keep yet"
    other = engine.add(_request(4), _Always(6))
    events = _run(engine)
    assert {event.sequence_id for event in events} == {other}
    engine.append_text(slow, (3, 4, 5))
    assert _tokens(_run(engine), slow) == [5] * 15
    assert (engine.num_running, engine.num_waiting) == (0, 0)
    assert engine.num_free_slots < POOL, "its slots are kept while nobody else needs them"
    engine.end_text(slow)
    events = _run(engine)
    assert events[-1] == FinishedEvent(slow, FinishReason.LENGTH)
    engine.append_text(slow, (9,))
    engine.end_text(slow)
    assert engine.num_free_slots == POOL


def test_text_can_arrive_before_the_sequence_has_started() -> None:
    engine = Engine(random_lm(), POOL, 1)
    engine.add(_request(4), _Always(6))
    waiting = engine.add(SequenceRequest((), max_text_tokens=12), _Always(5))
    engine.step()
    engine.append_text(waiting, (1, 2, 3))
    engine.end_text(waiting)
    assert len(_tokens(_run(engine), waiting)) == 60


def test_random_text_timing_makes_no_difference(model_dir: Path) -> None:
    model, text = _golden_lm(model_dir), tuple(range(100, 113))

    def speak(pieces: Sequence[int], steps_between: int) -> list[int]:
        engine, left = Engine(model, POOL, 2, end_of_prompt_id=363), text
        request = SequenceRequest((), (1, 363, 4), tuple(range(20)), max_text_tokens=20)
        sequence_id, events = engine.add(request, _Noting(5)), list[Event]()
        for piece in pieces:
            engine.append_text(sequence_id, left[:piece])
            left = left[piece:]
            for _ in range(steps_between):
                events += engine.step()
        engine.end_text(sequence_id)
        return _tokens(events + _run(engine), sequence_id)

    expected = speak([13], 0)
    assert len(expected) > 20
    assert speak([1] * 13, 40) == expected
    assert speak([4, 4, 5], 3) == expected


def test_silence_is_shortened_in_what_is_heard_but_not_in_the_models_history() -> None:
    model = random_lm(3)
    heard = {}
    for silent_tokens in (None, ()):
        engine = Engine(model, POOL, 1, silent_tokens=silent_tokens)
        engine.add(_request(4), _Always(28))
        heard[silent_tokens] = len(_tokens(_run(engine), 0))
    assert heard == {None: 5, (): 16}


@pytest.mark.parametrize("version", [2, 3])
def test_minimum_length_holds_with_the_real_sampler(version: int) -> None:
    model = random_lm(version)
    model.llm_decoder.weight[model.cfg.eos_id] = 0
    limits = LengthLimits(3, 5)
    if model.llm_decoder.bias is not None:
        model.llm_decoder.bias[model.cfg.eos_id] = 50
    lengths = {}
    for quirks in (ReferenceQuirks(), ReferenceQuirks(v3_min_len_ignored=True)):
        engine = Engine(model, POOL, 20, quirks)
        for seed in range(20):
            engine.add(_request(4, seed, limits=limits))
        events = _run(engine)
        lengths[quirks] = min(len(_tokens(events, sequence_id)) for sequence_id in range(20))
    assert lengths[ReferenceQuirks()] >= 12
    if version == 3:
        assert lengths[ReferenceQuirks(v3_min_len_ignored=True)] < 12


def test_a_failed_forward_loses_nothing() -> None:
    model, calls = random_lm(), 0
    expected = Engine(model, POOL, 1)
    expected.add(_request(4, seed=2))
    tokens = _tokens(_run(expected), 0)

    def fail_once(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise RuntimeError("out of memory")

    engine = Engine(model, POOL, 1)
    engine.add(_request(4, seed=2))
    handle = model.llm_decoder.register_forward_hook(fail_once)
    events = [event for _ in range(2) for event in engine.step()]
    with pytest.raises(RuntimeError, match="out of memory"):
        engine.step()
    handle.remove()
    assert _tokens(events + _run(engine), 0) == tokens


def test_without_a_seed_each_sequence_is_different() -> None:
    engine = Engine(random_lm(), POOL, 2)
    for _ in range(2):
        engine.add(_request(9))
    events = _run(engine)
    assert _tokens(events, 0) != _tokens(events, 1)


def _spoken(engine: Engine, requests: Sequence[SequenceRequest]) -> list[list[int]]:
    ids = [engine.add(request) for request in requests]
    events = _run(engine)
    assert engine.num_free_slots == POOL or engine.num_free_slots == engine.num_slots
    return [_tokens(events, sequence_id) for sequence_id in ids]


@pytest.mark.parametrize("int8_kv", [False, True])
def test_a_sequence_that_yields_its_place_and_slots_says_the_same_in_the_end(
    model_dir: Path, int8_kv: bool
) -> None:
    model = _golden_lm(model_dir)
    requests = [
        _request(length, seed=length, prompt_speech=tuple(range(length)), limits=LengthLimits(3, 4))
        for length in (9, 14, 11, 6, 17)
    ]
    alone = [_spoken(Engine(model, POOL, 1, int8_kv=int8_kv), [request])[0] for request in requests]
    saved = _count_saves(engine := Engine(model, 130, 2, yield_after=5, int8_kv=int8_kv))
    assert _spoken(engine, requests) == alone
    assert len(saved) > 10, "slots are for two at most"
    assert _spoken(Engine(model, POOL, 2, yield_after=5, int8_kv=int8_kv), requests) == alone


def _count_saves(engine: Engine) -> list[int]:
    saved, original = list[int](), engine._cache.save

    def save(start: int, length: int) -> SavedKV:
        saved.append(length)
        return original(start, length)

    engine._cache.save = save  # type: ignore[method-assign]
    return saved


@pytest.mark.parametrize("chunk", [1, 4, 7])
def test_a_prompt_in_chunks_gives_the_scores_of_the_whole(model_dir: Path, chunk: int) -> None:
    model = _golden_lm(model_dir)
    request = _request(12, prompt_speech=tuple(range(30)))
    scores = []
    for limit in (POOL, chunk):
        engine, noting = Engine(model, POOL, 1, max_prefill_tokens=limit), _Noting(3)
        engine.add(request, noting)
        _run(engine)
        scores.append(torch.stack(noting.scores))
    torch.testing.assert_close(scores[0], scores[1], atol=1e-4, rtol=0)


def test_new_sequences_are_admitted_every_few_steps_but_at_once_where_none_runs() -> None:
    engine = Engine(random_lm(), POOL, 9, admit_every=4)
    engine.add(_request(3), _Always(5))
    assert engine.step()
    late = [engine.add(_request(3), _Always(5)) for _ in range(2)]
    first_steps = [step for step in range(8) if late[0] in {event.sequence_id for event in engine.step()}]
    assert first_steps[0] == 3
    assert engine.num_running == 3


def test_any_number_of_sequences_may_wait_for_text_while_others_speak() -> None:
    """Each of the sixteen has spoken, and keeps what it has in the cache, which has room for two."""
    model, block = random_lm(), (1, 2, 3, 4, 5)
    alone = Engine(model, POOL, 1)
    expected = alone.add(SequenceRequest(block * 2, max_text_tokens=12, sampling=SamplingParams(seed=7)))
    alone.end_text(expected)
    engine = Engine(model, 250, 2)
    waiting = [
        engine.add(SequenceRequest(block, max_text_tokens=12, sampling=SamplingParams(seed=7)))
        for _ in range(16)
    ]
    before = {sequence_id: list[Event]() for sequence_id in waiting}
    for event in _run(engine):
        before[event.sequence_id].append(event)
    assert all(len(events) == 15 for events in before.values())
    other = engine.add(_request(40), _Always(6))
    assert len(_tokens(_run(engine), other)) == 160
    for sequence_id in waiting:
        engine.append_text(sequence_id, block)
        engine.end_text(sequence_id)
    events = _run(engine)
    tokens = _tokens(_run(alone), expected)
    for sequence_id in waiting:
        assert _tokens(before[sequence_id] + events, sequence_id) == tokens
    assert engine.num_free_slots == 250


def test_text_beyond_what_fits_is_refused_when_it_comes_and_the_sequence_goes_on() -> None:
    engine = Engine(random_lm(), POOL, 2, max_sequence_tokens=200)
    sequence_id = engine.add(SequenceRequest((1, 2), max_text_tokens=90), _Always(5))
    with pytest.raises(TextTooLong, match="limit 200"):
        engine.append_text(sequence_id, (3,) * 10)
    engine.append_text(sequence_id, (3,) * 3)
    engine.end_text(sequence_id)
    assert len(_tokens(_run(engine), sequence_id)) == 100


def test_eight_bit_keys_and_values_stay_near_the_exact_scores(model_dir: Path) -> None:
    """Tolerance: half a step of 127 per number is 0.4 %; log-probabilities of this model span about 10."""
    model = _golden_lm(model_dir)
    scores = []
    for int8_kv in (False, True):
        engine, noting = Engine(model, POOL, 1, int8_kv=int8_kv), _Noting(3)
        engine.add(_request(12, prompt_speech=tuple(range(30))), noting)
        _run(engine)
        scores.append(noting.scores[0])
    assert not torch.equal(scores[0], scores[1])
    torch.testing.assert_close(scores[0], scores[1], atol=0.05, rtol=0)


def test_one_sequence_that_breaks_the_sampler_can_be_stepped_around() -> None:
    class Broken:
        def pick(self, scores: Tensor, history: Sequence[int], constraint: Constraint) -> int:
            raise RuntimeError("no such number")

    model = random_lm()
    alone = _spoken(Engine(model, POOL, 1), [_request(5, seed=1)])[0]
    engine = Engine(model, POOL, 3)
    sound = [engine.add(_request(5, seed=1))]
    broken = engine.add(_request(4), Broken())
    sound.append(engine.add(_request(5, seed=1)))
    with pytest.raises(RuntimeError, match="no such number"):
        engine.step()
    assert engine.batch_ids == (sound[0], broken, sound[1])
    events = engine.step(only=sound)
    with pytest.raises(RuntimeError, match="no such number"):
        engine.step(only=[broken])
    engine.abort(broken)
    events += _run(engine)
    assert [_tokens(events, sequence_id) for sequence_id in sound] == [alone, alone]
    assert engine.num_free_slots == POOL
