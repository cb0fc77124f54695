from __future__ import annotations

import pytest

from light_tts.decode.budget import StateBudget
from light_tts.decode.voice_states import VoiceStates


def make(capacity: int = 2) -> tuple[VoiceStates[str, str], StateBudget]:
    budget = StateBudget(1000)
    return VoiceStates(capacity, budget), budget


def fail() -> str:
    raise ValueError("no prompt")


def test_concurrent_streams_want_a_voice_computed_once() -> None:
    voices, budget = make()
    first, second = voices.acquire("k", lambda: "prompt"), voices.acquire("k", fail)
    assert first is second
    voices.want(first, 1.0)
    voices.want(second, 2.0)
    assert [(entry.key, since) for entry, since in voices.wanted()] == [("k", 1.0)]
    first.computing = True
    voices.want(voices.acquire("k", fail), 3.0)
    assert not list(voices.wanted())
    voices.computed(first, "state", 10)
    assert not list(voices.wanted())
    assert (second.state, budget.voice_bytes) == ("state", 10)


def test_the_least_recently_used_voice_goes_and_its_memory_with_it() -> None:
    voices, budget = make()
    for key in ("a", "b"):
        voices.computed(voices.acquire(key, lambda: "p"), "s", 10)
        voices.release(key)
    voices.release(voices.acquire("a", fail).key)
    voices.acquire("c", lambda: "p")
    assert len(voices) == 2
    assert voices.acquire("a", fail).state == "s"
    assert budget.voice_bytes == 10
    with pytest.raises(ValueError, match="no prompt"):
        voices.acquire("b", fail)


def test_a_voice_in_use_or_being_computed_is_never_dropped() -> None:
    voices, _ = make(1)
    used = voices.acquire("used", lambda: "p")
    busy = voices.acquire("busy", lambda: "p")
    busy.computing = True
    voices.release("busy")
    voices.release(voices.acquire("third", lambda: "p").key)
    assert voices.get("used") is used
    assert voices.get("busy") is busy
    assert len(voices) == 2


def test_a_prompt_that_cannot_be_made_leaves_nothing_behind() -> None:
    voices, _ = make()
    with pytest.raises(ValueError, match="no prompt"):
        voices.acquire("k", fail)
    assert len(voices) == 0


def test_a_failed_computation_is_tried_again_when_it_is_wanted_again() -> None:
    voices, _ = make()
    entry = voices.acquire("k", lambda: "p")
    voices.want(entry, 1.0)
    entry.computing = True
    voices.failed(entry)
    assert not list(voices.wanted())
    voices.want(entry, 2.0)
    assert len(list(voices.wanted())) == 1
