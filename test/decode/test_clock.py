from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from light_tts.decode.clock import UNKNOWN_SEGMENT_S, PlaybackClock


def test_a_playing_segment_is_due_when_its_audio_is_used_up() -> None:
    clock = PlaybackClock()
    clock.sent(0, 0.5, now_s=10.0, last=False)
    clock.sent(0, 1.0, now_s=10.1, last=False)
    assert clock.dry_at(0, 10.2) == pytest.approx(11.5)
    assert clock.underrun_s == 0


def test_before_anything_plays_the_clock_stands_at_now() -> None:
    clock = PlaybackClock()
    assert clock.dry_at(0, 7.0) == 7.0
    clock.sent(0, 0.0, now_s=7.5, last=False)  # no audio yet
    assert clock.dry_at(0, 8.0) == 8.0


def test_a_pause_moves_the_rest_of_the_playback() -> None:
    clock = PlaybackClock()
    clock.sent(0, 1.0, now_s=10.0, last=False)
    clock.sent(0, 1.0, now_s=13.0, last=False)
    assert clock.underrun_s == pytest.approx(2.0)
    assert clock.dry_at(0, 13.0) == pytest.approx(14.0)


def test_later_segments_are_due_after_the_earlier_ones() -> None:
    clock = PlaybackClock()
    clock.expect(0, 100, speed=1.0)  # 4 s
    clock.expect(1, 25, speed=0.5)  # 2 s
    clock.sent(0, 1.0, now_s=10.0, last=False)
    assert clock.dry_at(1, 10.0) == pytest.approx(14.0)
    assert clock.dry_at(2, 10.0) == pytest.approx(16.0)
    clock.sent(0, 1.5, now_s=10.5, last=True)  # shorter than expected
    assert clock.dry_at(1, 10.5) == pytest.approx(12.5)


def test_audio_of_a_later_segment_is_no_pause_and_starts_no_playback() -> None:
    clock = PlaybackClock()
    clock.sent(1, 1.0, now_s=5.0, last=True)
    assert clock.started_s is None
    clock.sent(0, 1.0, now_s=6.0, last=False)
    clock.sent(2, 1.0, now_s=60.0, last=True)
    assert clock.underrun_s == 0
    assert clock.started_s == 6.0


def test_an_earlier_segment_that_is_elsewhere_counts_with_a_guess() -> None:
    clock = PlaybackClock()
    assert clock.dry_at(2, 1.0) == pytest.approx(1.0 + 2 * UNKNOWN_SEGMENT_S)


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.floats(0, 5), st.floats(0, 5), st.booleans()), min_size=1, max_size=30
    )
)
def test_deadlines_follow_the_order_of_segments(events: list[tuple[int, float, float, bool]]) -> None:
    clock, now, sent = PlaybackClock(), 100.0, [0.0] * 4
    for segment, audio_s, wait_s, last in events:
        now += wait_s
        clock.sent(segment, audio_s, now, last=last)
        sent[segment] += audio_s
        starts = [clock.dry_at(number, now) - sent[number] for number in range(4)]
        assert all(later >= earlier - 1e-6 for earlier, later in pairwise(starts))
        if segment == 0 and audio_s > 0:
            assert clock.dry_at(0, now) >= now + audio_s - 1e-6
