"""When a player runs dry."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from light_tts.server.playback import SAMPLE_RATE_HZ, Playback

SECOND = SAMPLE_RATE_HZ


def _fed(*pieces: tuple[float, int]) -> Playback:
    playback = Playback()
    for time_s, num_samples in pieces:
        playback.add(time_s, num_samples)
    return playback


def test_audio_that_comes_faster_than_it_is_played_never_runs_dry() -> None:
    playback = _fed((10.0, SECOND), (10.5, SECOND), (11.0, SECOND))
    assert playback.underrun_s == 0.0
    assert playback.audio_s == 3.0
    assert playback.continuous


def test_a_late_piece_is_an_underrun_as_long_as_the_silence_before_it() -> None:
    playback = _fed((10.0, SECOND), (11.25, SECOND))
    assert playback.underrun_s == pytest.approx(0.25)
    assert not playback.continuous


def test_after_an_underrun_the_player_is_late_for_good() -> None:
    playback = _fed((0.0, SECOND), (2.0, SECOND), (3.0, SECOND))
    assert playback.underrun_s == pytest.approx(1.0)


def test_a_piece_without_samples_starts_nothing() -> None:
    playback = _fed((1.0, 0), (5.0, SECOND))
    assert playback.started_s == 5.0
    assert playback.underrun_s == 0.0


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 5 * SECOND)), max_size=20))
def test_playing_ends_no_earlier_than_all_audio_plus_all_gaps(steps: list[tuple[float, int]]) -> None:
    now, playback = 100.0, Playback()
    for step, num_samples in steps:
        now += step
        playback.add(now, num_samples)
    assert playback.underrun_s >= 0.0
    if playback.started_s is not None:
        end = playback.started_s + playback.audio_s + playback.underrun_s
        assert end >= playback.last_s
        assert playback.underrun_s <= playback.last_s - playback.started_s + 1e-9
