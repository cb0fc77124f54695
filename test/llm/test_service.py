from __future__ import annotations

import logging
import random
import time
from typing import Any

import pytest
import torch

from light_tts.errors import STATUS
from light_tts.llm.sampler import RasSampler
from light_tts.messages import (
    Abort,
    DecodeOpen,
    Message,
    PeerLost,
    PeerReady,
    RequestFailed,
    Routed,
    Sampling,
    SegmentClosed,
    SpeechTokens,
    Stage,
    TextIds,
    ToLlm,
    VoiceFeatures,
)
from test.llm.wire import HTTP, Wire, task


def _failure(wire: Wire) -> RequestFailed:
    (failure,) = wire.of(RequestFailed, HTTP)
    return failure


def test_a_streamed_segment_is_routed_opened_and_sent_as_it_comes() -> None:
    wire = Wire()
    wire.service.handle(task())
    wire.run()
    kinds = [type(message) for _, message in wire.sent]
    assert kinds[:3] == [Routed, DecodeOpen, SpeechTokens]
    assert len(kinds) > 15
    assert wire.sent[0] == (HTTP, Routed("a", 0, 0))
    (opened,) = wire.of(DecodeOpen, "decode-0")
    assert (opened.request_id, opened.seed, opened.stream, opened.speed) == ("a", 3, True, 1.0)
    assert len(wire.tokens()) == 20
    assert wire.of(SpeechTokens)[-1].end
    assert wire.is_empty
    assert wire.sample("light_tts_stage_seconds_count", stage="llm") == 1
    assert wire.sample("light_tts_batch_size_count", stage="llm") == 20
    assert wire.sample("light_tts_kv_tokens", state="total") == 2000


def test_another_segment_is_sent_whole_and_only_then_routed() -> None:
    wire = Wire()
    wire.service.handle(task())
    wire.run()
    streamed = wire.tokens()
    wire = Wire()
    wire.service.handle(task(stream=False))
    wire.run()
    assert [type(message) for _, message in wire.sent] == [Routed, DecodeOpen, SpeechTokens]
    assert wire.tokens() == streamed


def test_sampling_of_the_task_reaches_the_sampler_and_the_length() -> None:
    def spoken(**sampling: Any) -> list[int]:
        wire = Wire()
        wire.service.handle(task(sampling=Sampling(**sampling)))
        wire.run()
        return wire.tokens()

    four = spoken(min_token_text_ratio=4, max_token_text_ratio=4)
    assert len(spoken(max_token_text_ratio=1)) == 5
    for change in ({"temperature": 0.1}, {"top_p": 0.1}, {"top_k": 1}, {"tau_r": 2.0, "top_k": 2}):
        assert spoken(min_token_text_ratio=4, max_token_text_ratio=4, **change) != four


def test_segments_go_to_the_least_loaded_decode_process_and_stay_there() -> None:
    wire = Wire(num_decodes=2)
    for number in range(4):
        wire.service.handle(task(segment=number))
    wire.run()
    assert [(r.segment, r.decode) for r in wire.of(Routed)] == [(0, 0), (1, 1), (2, 0), (3, 1)]
    for number in range(4):
        parts = [(to, m) for to, m in wire.sent if isinstance(m, SpeechTokens) and m.segment == number]
        assert {to for to, _ in parts} == {f"decode-{number % 2}"}
    for number in (0, 2):
        wire.service.handle(SegmentClosed(0, "a", number))
    wire.service.handle(task("b"))
    wire.run()
    assert wire.of(Routed)[-1] == Routed("b", 0, 0)


def test_text_may_come_in_pieces_and_an_open_segment_without_text_ends_empty() -> None:
    wire = Wire()
    wire.service.handle(task(text=(1, 2), max_text_tokens=30))
    wire.service.handle(task(segment=1, text=(), max_text_tokens=30))
    assert wire.service.is_idle()
    assert wire.service.load().queued == 0
    wire.service.handle(TextIds("a", 0, (3, 4, 5)))
    wire.run()
    first = len(wire.tokens())
    assert 0 < first <= 15, "one block of text is there"
    wire.service.handle(TextIds("a", 0, (6,), end=True))
    wire.service.handle(TextIds("a", 1, (), end=True))
    wire.service.handle(TextIds("nobody", 1, (), end=True))
    wire.run()
    assert len(wire.tokens()) > first
    assert SpeechTokens("a", 1, (), end=True) in wire.of(SpeechTokens)
    assert wire.is_empty


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"text": ()}, "empty_text", "no tokens"),
        ({"text": (1, 50)}, "invalid_input", "token id 50"),
        ({"text": (-1,)}, "invalid_input", "token id -1"),
        ({"prompt_text": (99,)}, "invalid_input", "prompt_text"),
        ({"prompt_speech": (61,)}, "invalid_input", "prompt_speech"),
        ({"prompt_speech": (6,) * 400}, "text_too_long", "--max_req_total_len"),
        ({"text": (1,) * 100}, "text_too_long", "limit 300"),
        ({"seed": -1}, "invalid_input", "seed"),
        ({"sampling": Sampling(temperature=float("nan"))}, "invalid_input", "temperature"),
        ({"sampling": Sampling(top_k=0)}, "invalid_input", "top_k"),
        (
            {"sampling": Sampling(min_token_text_ratio=9, max_token_text_ratio=3)},
            "invalid_input",
            "max_token",
        ),
        ({"max_text_tokens": 0}, "invalid_input", "max_text_tokens"),
        ({"deadline_s": 0.0}, "timeout", "time was over"),
    ],
    ids=str,
)
def test_a_task_that_cannot_be_done_is_answered(change: dict[str, Any], code: str, words: str) -> None:
    wire = Wire()
    wire.service.handle(task(segment=1))
    wire.service.step()
    wire.service.handle(task("sound"))
    wire.service.handle(task(**change))
    failure = _failure(wire)
    assert (failure.request_id, failure.code) == ("a", code)
    assert code in STATUS
    assert words in failure.message
    assert wire.of(Abort, "decode-0") == [Abort("a")]
    before = len(wire.sent)
    wire.service.handle(task(segment=2))
    wire.run()
    assert all(m.request_id == "sound" for _, m in wire.sent[before:] if not isinstance(m, RequestFailed))  # type: ignore[attr-defined]
    assert len(wire.tokens("sound")) == 20
    assert len(wire.of(RequestFailed)) == 1, "what is still on its way is dropped in silence"
    assert wire.is_empty


def test_too_much_text_and_text_after_the_end_fail_the_request() -> None:
    for pieces in [((1,) * 31, False)], [((1,), True), ((1,), False)], [((50,), False)]:
        wire = Wire()
        wire.service.handle(task(text=(), max_text_tokens=30))
        for ids, end in pieces:
            wire.service.handle(TextIds("a", 0, ids, end))
        assert _failure(wire).code in ("text_too_long", "invalid_input")
        assert wire.service.is_idle()
        assert wire.is_empty


def test_an_abort_frees_everything_before_the_next_step_and_is_passed_on() -> None:
    wire = Wire(num_decodes=2, max_running=1)
    for number in range(3):
        wire.service.handle(task(segment=number))
    wire.service.step()
    assert wire.engine.num_free_slots < 2000
    assert (wire.service.load().queued, wire.service.load().running) == (2, 1)
    wire.service.handle(Abort("a"))
    assert wire.is_empty
    wire.service.handle(Abort("unknown"))
    for index in range(2):
        assert wire.of(Abort, f"decode-{index}") == [Abort("a"), Abort("unknown")]
    assert wire.of(RequestFailed) == []
    wire.service.handle(task(segment=3))
    assert wire.service.num_segments == 0, "encoded before the abort came, received after it"


def test_a_lost_decode_process_takes_with_it_only_what_it_had() -> None:
    wire = Wire(num_decodes=2)
    for number in range(2):
        wire.service.handle(task("ab"[number]))
    wire.service.handle(task("whole", stream=False))
    wire.service.step()
    lost = PeerLost(Stage.DECODE, 0, pid=77)
    wire.service.handle(lost)
    assert wire.sent[-1] == (HTTP, lost), "it may have heard so before it was told what is there"
    assert wire.forgotten == ["decode-0"]
    wire.run()
    assert 0 < len(wire.tokens("a")) < 20
    assert len(wire.tokens("b")) == len(wire.tokens("whole")) == 20
    assert {r.request_id: r.decode for r in wire.of(Routed)} == {"a": 0, "b": 1, "whole": 1}
    assert wire.of(RequestFailed) == [], "the HTTP workers know it"
    assert wire.is_empty


def test_requests_of_an_http_worker_that_died_are_aborted() -> None:
    wire = Wire()
    wire.service.handle(task(text=(1, 2), max_text_tokens=30))
    wire.service.handle(task("gone"))
    wire.service.handle(task("other", reply_to="http-8"))
    wire.service.step()
    wire.service.handle(PeerLost(Stage.HTTP, 7))
    assert {m.request_id for m in wire.of(Abort, "decode-0")} == {"a", "gone"}
    assert wire.forgotten == [HTTP]
    wire.service.handle(task("gone", segment=1))
    wire.run()
    assert len(wire.tokens("other")) == 20
    assert wire.is_empty
    assert wire.of(RequestFailed) == []


def test_what_waits_its_turn_goes_on_though_the_news_of_an_end_was_lost_with_its_decode_process() -> None:
    wire = Wire(num_decodes=2, max_running=8)
    for number in range(6):
        wire.service.handle(task(segment=number))
    wire.run()
    routed = {r.segment: r.decode for r in wire.of(Routed)}
    assert len(routed) == 4
    wire.service.handle(PeerLost(Stage.DECODE, 0))
    wire.run()
    assert len(wire.of(Routed)) == 6, "two were in that process: their listener may have had all of them"


def test_an_error_that_is_no_sequences_fault_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would come again at every step, for ever."""
    wire = Wire()
    wire.service.handle(task())
    wire.service.step()
    monkeypatch.setattr(wire.engine._scheduler, "schedule", lambda: [].pop())
    with pytest.raises(IndexError):
        wire.service.step()


def test_the_segments_of_a_request_share_one_copy_of_its_voice() -> None:
    wire = Wire()
    for number in range(3):
        wire.service.handle(task(segment=number, voice=VoiceFeatures("v", b"", bytes(1000), b"")))
    wire.service.handle(task(segment=3, voice=VoiceFeatures("w", b"", bytes(1000), b"")))
    wire.run()
    first, *others = [opened.voice for opened in wire.of(DecodeOpen)]
    assert [voice is first for voice in others] == [True, True, False]


@pytest.mark.parametrize("stream", [True, False])
def test_without_a_decode_process_the_request_fails_and_with_a_new_one_it_works(stream: bool) -> None:
    wire = Wire(num_decodes=1)
    wire.service.handle(PeerLost(Stage.DECODE, 0))
    wire.service.handle(task(stream=stream))
    wire.run()
    assert _failure(wire).code == "unavailable"
    assert wire.is_empty
    wire.service.handle(PeerReady(Stage.DECODE, 0))
    wire.service.handle(task("b", stream=stream))
    wire.run()
    assert len(wire.tokens("b")) == 20


def test_a_deadline_ends_also_what_waits_for_text() -> None:
    wire = Wire()
    wire.service.handle(task(text=(1, 2), max_text_tokens=30, deadline_s=time.time() + 0.05))
    wire.service.handle(task("b"))
    wire.service.expire()
    assert wire.of(RequestFailed) == []
    time.sleep(0.15)
    wire.service.expire()
    failure = _failure(wire)
    assert (failure.request_id, failure.code) == ("a", "timeout")
    wire.run()
    assert len(wire.tokens("b")) == 20
    assert wire.is_empty


def test_output_that_is_not_finite_fails_all_of_that_request_and_nothing_else() -> None:
    wire = Wire()
    wire.engine._model.speech_embedding.weight[60] = torch.nan
    wire.service.handle(task())
    wire.service.handle(task(segment=1, prompt_speech=(1, 60)))
    wire.service.handle(task("b"))
    wire.run()
    assert _failure(wire).code == "generation_failed"
    assert len(wire.tokens("b")) == 20
    assert wire.is_empty


def test_one_request_that_breaks_a_step_does_not_break_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wire = Wire()
    for request_id in "abc":
        wire.service.handle(task(request_id, seed=ord(request_id)))
    alone = Wire()
    alone.service.handle(task("c", seed=ord("c")))
    alone.run()
    for _ in range(3):
        wire.service.step()
    broken = wire.engine._voices[1].picker
    assert isinstance(broken, RasSampler)

    def fail(*_: object) -> int:
        raise RuntimeError("secret")

    monkeypatch.setattr(broken, "pick", fail)
    with caplog.at_level(logging.ERROR):
        wire.run()
    failure = _failure(wire)
    assert (failure.request_id, failure.code) == ("b", "internal_error")
    assert "secret" not in failure.message
    assert "secret" in caplog.text
    assert len(wire.tokens("a")) == 20
    assert wire.tokens("c") == alone.tokens("c")
    assert wire.is_empty


def test_a_finished_segment_leaves_a_line_with_its_time(caplog: pytest.LogCaptureFixture) -> None:
    wire = Wire()
    wire.service.handle(task())
    with caplog.at_level(logging.INFO):
        wire.run()
    (line,) = [record.message for record in caplog.records if "cost_time" in record.message]
    assert "stage llm cost_time " in line
    assert line.endswith("ms")


def test_what_waits_is_counted_and_its_age_is_told() -> None:
    wire = Wire(max_running=1)
    for request_id in "abc":
        wire.service.handle(task(request_id))
    wire.service.step()
    time.sleep(0.02)
    load = wire.service.load()
    assert (load.queued, load.running) == (2, 1)
    assert load.oldest_s >= 0.02
    wire.run()
    assert (wire.service.load().queued, wire.service.load().oldest_s) == (0, 0.0)


def test_who_gave_way_and_who_waits_for_text_is_not_running() -> None:
    wire = Wire(max_running=2, yield_after=5)
    for request_id in "abcde":
        wire.service.handle(task(request_id))
    wire.service.handle(task("f", text=(1, 2), max_text_tokens=30))
    for _ in range(12):
        wire.service.step()
        load = wire.service.load()
        assert load.running <= 2
        assert load.running + load.queued == 5
    assert not load.oldest_s, "all have begun, some have given way"


def test_the_load_is_told_in_no_time_whatever_is_there() -> None:
    wire = Wire(max_running=1, pool=2000)
    for number in range(1000):
        wire.service.handle(task(str(number)))
    wire.service.step()
    start = time.perf_counter()
    for _ in range(1000):
        load = wire.service.load()
    assert (load.queued, load.running) == (999, 1)
    assert time.perf_counter() - start < 0.5  # of 1000; looking at each segment took 650 us a time


def test_the_same_segment_twice_is_spoken_once() -> None:
    wire = Wire()
    messages: list[ToLlm] = [task(), task()]
    for message in messages:
        wire.service.handle(message)
    wire.run()
    assert len(wire.tokens()) == 20
    assert [type(m) for _, m in wire.sent].count(Routed) == 1
    assert wire.is_empty


def test_many_requests_at_once_each_say_what_they_say_alone() -> None:
    wire, alone = Wire(max_running=5, pool=400), dict[int, list[int]]()
    requests: list[Message] = []
    for seed in range(12):
        text = tuple(range(1, 3 + seed))
        requests.append(task(str(seed), seed=seed, text=text, stream=seed % 2 == 0))
        single = Wire()
        single.service.handle(task(str(seed), seed=seed, text=text))
        single.run()
        alone[seed] = single.tokens(str(seed))
    for message in requests:
        wire.service.handle(message)  # type: ignore[arg-type]
        wire.service.step()
    wire.run()
    assert {seed: wire.tokens(str(seed)) for seed in range(12)} == alone
    assert wire.is_empty


@pytest.mark.parametrize("seed", range(6))
def test_whatever_comes_in_whatever_order_nothing_is_left_and_everyone_is_answered(seed: int) -> None:
    rng = random.Random(seed)
    wire = Wire(num_decodes=2, max_running=3, pool=330)
    accepted, aborted, lost = set[str](), set[str](), set[str]()
    for number in range(60):
        request_id = str(number)
        match rng.randrange(7):
            case 0 | 1 | 2:
                length = rng.choice([1, 5, 12, 90])
                wire.service.handle(
                    task(request_id, text=(1,) * length, stream=rng.random() < 0.5, seed=number)
                )
                wire.service.handle(task(request_id, segment=1, text=(2, 60) if number % 9 == 0 else (2,)))
                accepted.add(request_id)
            case 3:
                wire.service.handle(task(request_id, text=(1, 2, 3, 4, 5, 6), max_text_tokens=9))
                wire.service.handle(TextIds(request_id, 0, (7,), end=rng.random() < 0.5))
                accepted.add(request_id)
            case 4:
                aborted.add(victim := str(rng.randrange(number + 1)))
                wire.service.handle(Abort(victim))
            case 5:
                before = {m.request_id for m in wire.of(Routed)}
                wire.service.handle(PeerLost(Stage.DECODE, 1))
                wire.service.handle(PeerReady(Stage.DECODE, 1))
                lost |= before
            case _:
                for _ in range(rng.randrange(12)):
                    wire.service.step()
    wire.run()
    for request_id in accepted:
        wire.service.handle(TextIds(request_id, 0, (), end=True))
    wire.run()
    assert wire.is_empty
    failed = {m.request_id for m in wire.of(RequestFailed)}
    for request_id in accepted - aborted - lost - failed:
        ended = [m.segment for m in wire.of(SpeechTokens) if m.request_id == request_id and m.end]
        assert ended.count(0) == 1
    assert len(wire.of(RequestFailed)) == len(failed), "at most one final message each"
