from __future__ import annotations

from light_tts.decode.budget import StateBudget


def test_new_streams_wait_while_the_limit_would_be_exceeded() -> None:
    budget = StateBudget(100)
    assert budget.reserve("a", 60)
    assert not budget.reserve("b", 60)
    budget.release("a")
    assert budget.reserve("b", 60)


def test_one_stream_may_always_run() -> None:
    budget = StateBudget(100)
    budget.hold_voice("v", 90)
    assert budget.reserve("huge", 1000)
    assert not budget.reserve("small", 1)


def test_a_stream_is_charged_what_it_holds_if_that_is_more_than_expected() -> None:
    budget = StateBudget(100)
    budget.reserve("a", 30)
    budget.measured("a", 80)
    budget.measured("a", 10)
    assert budget.stream_bytes == 80
    assert not budget.reserve("b", 30)
    budget.release("a")
    budget.measured("a", 80)
    assert budget.stream_bytes == 0


def test_copies_that_batches_make_of_the_largest_streams_count() -> None:
    budget = StateBudget(100, in_flight=1, copies=3)
    assert budget.reserve("a", 20)
    assert not budget.reserve("b", 25)  # 20 + 25 + 3 * 25
    assert budget.reserve("b", 20)  # 20 + 20 + 3 * 20


def test_voices_have_a_share_of_their_own_and_leave_streams_theirs() -> None:
    budget = StateBudget(100, voice_share=0.3)
    assert budget.voice_fits(30)
    budget.hold_voice("v", 20)
    assert not budget.voice_fits(11)
    budget.reserve("a", 75)
    assert not budget.voice_fits(6)
    budget.release_voice("v")
    assert budget.voice_fits(6)
