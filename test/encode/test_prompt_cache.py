from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from light_tts.encode.prompt_cache import CacheStats, PromptCache


def never() -> str:
    raise AssertionError("computed again")


def test_a_value_is_computed_once_and_found_again() -> None:
    cache: PromptCache[str] = PromptCache(2)
    with cache.acquire("a", lambda: "A") as first, cache.acquire("a", never) as second:
        assert first.value == second.value == "A"
    assert cache.stats() == CacheStats(hits=1, misses=1, size=1, in_use=0)


def test_the_least_recently_used_goes_first() -> None:
    cache: PromptCache[str] = PromptCache(2)
    for key in "abac":  # c drives out b
        cache.acquire(key, lambda key=key: key).release()  # type: ignore[misc]
    cache.acquire("a", never).release()
    cache.acquire("c", never).release()
    computed = []
    cache.acquire("b", lambda: computed.append("b") or "b").release()  # type: ignore[func-returns-value]
    assert computed == ["b"]
    assert cache.stats().size == 2


def test_a_value_in_use_is_never_dropped() -> None:
    cache: PromptCache[str] = PromptCache(1)
    held = [cache.acquire(key, lambda key=key: key) for key in "abc"]  # type: ignore[misc]
    assert cache.stats() == CacheStats(hits=0, misses=3, size=3, in_use=3)
    cache.acquire("a", never).release()
    held[1].release()
    held[2].release()
    assert cache.stats().size == 1
    assert cache.acquire("a", never).value == "a"


def test_releasing_twice_does_not_release_another_users_hold() -> None:
    cache: PromptCache[str] = PromptCache(0)
    first, second = cache.acquire("a", lambda: "A"), cache.acquire("a", never)
    first.release()
    first.release()
    assert cache.stats().in_use == 1
    second.release()
    assert cache.stats() == CacheStats(hits=1, misses=1, size=0, in_use=0)


def test_capacity_0_keeps_nothing_after_use() -> None:
    cache: PromptCache[str] = PromptCache(0)
    for _ in range(3):
        cache.acquire("a", lambda: "A").release()
    assert cache.stats() == CacheStats(hits=0, misses=3, size=0, in_use=0)


def test_a_negative_capacity_is_refused() -> None:
    with pytest.raises(ValueError, match="capacity is -1"):
        PromptCache(-1)


def test_concurrent_misses_compute_once() -> None:
    cache: PromptCache[object] = PromptCache(4)
    calls, may_finish, started = [], threading.Event(), threading.Event()

    def compute() -> object:
        calls.append(1)
        started.set()
        assert may_finish.wait(10)
        return object()

    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(cache.acquire, "a", compute) for _ in range(8)]
        assert started.wait(10)
        cache.acquire("b", object).release()  # another key does not wait for the first
        while cache.stats().hits < 7:
            pass
        may_finish.set()
        values = {id(future.result(10).value) for future in waiting}
    assert len(calls) == len(values) == 1
    assert cache.stats().in_use == 1


def test_a_failure_reaches_everyone_who_waits_and_is_not_kept() -> None:
    cache: PromptCache[str] = PromptCache(4)
    may_fail = threading.Event()

    def fail() -> str:
        assert may_fail.wait(10)
        raise ValueError("bad audio")

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(cache.acquire, "a", fail) for _ in range(4)]
        while cache.stats().hits < 3:
            pass
        may_fail.set()
        for future in waiting:
            with pytest.raises(ValueError, match="bad audio"):
                future.result(10)
    assert cache.stats().size == 0
    assert cache.acquire("a", lambda: "A").value == "A"


def test_an_interrupt_while_computing_leaves_nobody_waiting() -> None:
    cache: PromptCache[str] = PromptCache(4)

    def interrupted() -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.acquire("a", interrupted)
    assert cache.acquire("a", lambda: "A").value == "A"


def test_nobody_ever_gets_the_value_of_another_key() -> None:
    cache: PromptCache[str] = PromptCache(3)

    def computing(key: str) -> Callable[[], str]:
        return lambda: f"voice of {key}"

    def client(seed: int) -> None:
        choose = random.Random(seed)
        for _ in range(300):
            keys = choose.sample("abcdefghij", 2)
            with (
                cache.acquire(keys[0], computing(keys[0])) as one,
                cache.acquire(keys[1], computing(keys[1])) as two,
            ):
                assert [one.value, two.value] == [f"voice of {key}" for key in keys]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(client, range(8)))
    stats = cache.stats()
    assert stats.hits + stats.misses == 8 * 300 * 2
    assert (stats.in_use, stats.size) == (0, 3)


def test_a_handle_tells_whether_its_user_had_to_wait_for_the_computation() -> None:
    cache: PromptCache[str] = PromptCache(2)
    with cache.acquire("a", lambda: "A") as first, cache.acquire("a", never) as second:
        assert (first.hit, second.hit) == (False, True)


def test_evicted_values_are_counted() -> None:
    cache: PromptCache[str] = PromptCache(1)
    for key in "aabc":
        cache.acquire(key, lambda key=key: key).release()  # type: ignore[misc]
    assert cache.num_evicted == 2


def test_what_is_forgotten_while_it_is_held_or_computed_serves_nobody_after() -> None:
    cache: PromptCache[str] = PromptCache(2)
    held = cache.acquire("a", lambda: "old")

    def outdated() -> str:
        cache.forget_all()
        return "old"

    with cache.acquire("b", outdated) as handle:
        assert handle.value == "old"
    assert held.value == "old"
    held.release()
    for key in "ab":
        with cache.acquire(key, lambda: "new") as handle:
            assert handle.value == "new"


def test_a_failure_after_forgetting_leaves_the_new_value_alone() -> None:
    cache: PromptCache[str] = PromptCache(2)

    def failing() -> str:
        cache.forget_all()
        cache.acquire("a", lambda: "new").release()
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        cache.acquire("a", failing)
    assert cache.acquire("a", never).value == "new"
