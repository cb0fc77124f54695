from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from light_tts.decode.scheduler import (
    MAX_PADDING,
    STARVING_S,
    BatchLimits,
    Kind,
    Work,
    next_batch,
    rank,
    whole_due,
)

LIMITS = BatchLimits(max_size=4, max_tokens=1500)
NOW = 100.0


def chunk(name: str, due_s: float = NOW, size: int = 25, *, first: bool = False) -> Work:
    return Work((name, 0), Kind.CHUNK, due_s, size, first)


def whole(name: str, due_s: float = NOW, size: int = 200) -> Work:
    return Work((name, 0), Kind.WHOLE, due_s, size)


def names(batch: list[Work]) -> list[str]:
    return [work.key[0] for work in batch]


def test_first_chunks_go_before_later_ones_and_the_oldest_first() -> None:
    ready = [chunk("late", NOW - 1), chunk("b", NOW - 0.1, first=True), chunk("a", NOW - 0.2, first=True)]
    assert names(next_batch(ready, NOW, BatchLimits(2, 1500))) == ["a", "b"]


def test_later_chunks_go_by_the_moment_their_listener_runs_dry() -> None:
    ready = [chunk("in a while", NOW + 3), chunk("soon", NOW + 0.1), chunk("dry", NOW - 0.4)]
    assert names(next_batch(ready, NOW, LIMITS)) == ["dry", "soon", "in a while"]


def test_a_voice_is_computed_as_early_as_a_first_chunk_and_alone() -> None:
    voice = Work(("voice", -1), Kind.VOICE, NOW - 0.5, 100)
    assert names(next_batch([chunk("first", NOW - 0.1, first=True), voice], NOW, LIMITS)) == ["voice"]


def test_what_starves_goes_before_first_chunks() -> None:
    starving = whole("starving", NOW - STARVING_S - 1)
    assert names(next_batch([chunk("new", NOW, first=True), starving], NOW, LIMITS)) == ["starving"]


def test_a_whole_segment_yields_to_playing_streams_until_its_time_comes() -> None:
    ready = [whole("whole", whole_due(NOW, NOW + 300)), chunk("playing", NOW + 2)]
    assert names(next_batch(ready, NOW, LIMITS)) == ["playing"]
    assert names(next_batch([ready[0], chunk("playing", NOW + 22)], NOW + 20, LIMITS)) == ["whole"]


def test_a_short_deadline_makes_a_whole_segment_due_earlier() -> None:
    assert whole_due(NOW, NOW + 4) == NOW + 1
    assert whole_due(NOW, NOW - 1) == NOW


def test_whole_segments_may_be_held_back() -> None:
    assert next_batch([whole("w")], NOW, LIMITS, whole_allowed=False) == []


def test_a_first_chunk_takes_no_long_one_along() -> None:
    ready = [chunk("first", NOW, 34, first=True), chunk("long", NOW, 100), chunk("other", NOW, 30)]
    assert names(next_batch(ready, NOW, LIMITS)) == ["first", "other"]


def test_nothing_ready_is_no_batch() -> None:
    assert next_batch([], NOW, LIMITS) == []


works = st.builds(
    Work,
    key=st.tuples(st.uuids().map(str), st.integers(0, 3)),
    kind=st.sampled_from(Kind),
    due_s=st.floats(NOW - 30, NOW + 30),
    size=st.integers(1, 800),
    first=st.booleans(),
).map(lambda work: work if work.kind is Kind.CHUNK else replace(work, first=False))


@given(st.lists(works, max_size=20), st.integers(1, 8))
def test_a_batch_is_led_by_the_most_urgent_and_keeps_its_limits(ready: list[Work], max_size: int) -> None:
    limits = BatchLimits(max_size, 1500)
    batch = next_batch(ready, NOW, limits)
    assert bool(batch) == bool(ready)
    if not batch:
        return
    assert batch[0] == min(ready, key=lambda work: rank(work, NOW))
    assert len(batch) <= max_size
    assert len(set(batch)) == len(batch)
    assert set(batch) <= set(ready)
    assert len({work.kind for work in batch}) == 1
    padded = max(work.size for work in batch) * len(batch)
    assert padded <= MAX_PADDING * sum(work.size for work in batch)
    if batch[0].kind is Kind.WHOLE and len(batch) > 1:
        assert padded <= limits.max_tokens
    if batch[0].kind is Kind.VOICE:
        assert len(batch) == 1


@pytest.mark.parametrize("seconds_per_batch", [0.2, 0.9])
def test_a_flood_of_first_chunks_starves_nobody(seconds_per_batch: float) -> None:
    """More arrive than can be done; the one whole segment is done all the same."""
    now, flood = NOW, [chunk(f"n{i}", NOW, first=True) for i in range(100)]
    waiting = whole("whole", whole_due(NOW, NOW + 300))
    for turn in range(1000):
        batch = next_batch([*flood, waiting], now, BatchLimits(2, 1500))
        if waiting in batch:
            break
        flood = [work for work in flood if work not in batch]
        flood += [chunk(f"t{turn}-{i}", now, first=True) for i in range(3)]
        now += seconds_per_batch
    assert waiting in batch
    # It waits for what was due before it, not for what came after: the flood until then is bounded.
    assert now - NOW < 200


def test_what_decides_imports_no_torch() -> None:
    modules = ["budget", "clock", "scheduler", "session", "stream", "voice_states", "workers"]
    code = f"import sys, {', '.join(f'light_tts.decode.{name}' for name in modules)}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
