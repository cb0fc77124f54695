from __future__ import annotations

from light_tts.llm.turns import MAX_UNDER_WAY, Turns
from light_tts.messages import SegmentClosed, VoiceFeatures
from test.llm.wire import Wire, task


def _next(turns: Turns, request_id: str, segment: int) -> int | None:
    following = turns.done(request_id, segment)
    return None if following is None else following.segment


def test_a_segment_waits_until_an_earlier_one_of_its_request_is_done() -> None:
    turns = Turns(2)
    assert [turns.begin(task(segment=number)) for number in range(4)] == [True, True, False, False]
    assert turns.begin(task("b"))
    assert [_next(turns, "a", number) for number in (1, 1, 7, 0, 2, 3)] == [2, None, None, 3, None, None]
    assert turns.num_waiting == 0


def test_what_has_ended_has_no_more_turns() -> None:
    turns = Turns(1)
    for number in range(3):
        turns.begin(task(segment=number))
    turns.end("a")
    assert turns.num_waiting == 0
    assert _next(turns, "a", 0) is None


def test_waiting_segments_share_their_voice() -> None:
    turns = Turns(1)
    for number in range(3):
        voice = VoiceFeatures("voice", b"a" * 99, b"", b"")
        turns.begin(task(segment=number, voice=voice))
    second, third = turns.done("a", 0), turns.done("a", 1)
    assert second is not None
    assert third is not None
    assert third.voice is second.voice


def test_a_long_streamed_text_is_spoken_a_few_segments_at_a_time() -> None:
    wire = Wire(max_running=20)
    for number in range(MAX_UNDER_WAY + 2):
        wire.service.handle(task(segment=number))
    wire.run()
    assert not wire.tokens(segment=MAX_UNDER_WAY)
    wire.service.handle(SegmentClosed(0, "a", 0))
    wire.run()
    assert len(wire.tokens(segment=MAX_UNDER_WAY)) == 20
    assert not wire.is_empty
    for number in range(1, MAX_UNDER_WAY + 2):
        wire.service.handle(SegmentClosed(0, "a", number))
        wire.run()
    assert len(wire.tokens(segment=MAX_UNDER_WAY + 1)) == 20
    assert wire.is_empty
