from __future__ import annotations

from light_tts.llm.decode_router import DecodeRouter


def _router(*indices: int) -> DecodeRouter:
    router = DecodeRouter()
    for index in indices:
        router.ready(index)
    return router


def test_nobody_is_chosen_where_nobody_is_there() -> None:
    router = _router(0)
    router.lost(0)
    assert router.choose("a", 0, "voice", "http") is None
    assert router.indices == []


def test_the_least_loaded_is_chosen_and_closing_lowers_the_load() -> None:
    router = _router(0, 1, 2)
    chosen = [router.choose("a", number, f"voice{number}", "http") for number in range(6)]
    assert chosen == [0, 1, 2, 0, 1, 2]
    router.close(1, "a", 1)
    router.close(1, "a", 1)
    router.close(0, "a", 1)
    assert [router.load(index) for index in range(3)] == [2, 1, 2]
    assert router.choose("b", 0, "other", "http") == 1


def test_of_equals_the_one_that_knows_the_voice_is_chosen() -> None:
    router = _router(0, 1)
    for number, voice in enumerate(("x", "y")):
        assert router.choose("a", number, voice, "http") == number
    for number in range(2):
        router.close(number, "a", number)
    assert router.choose("b", 0, "y", "http") == 1
    assert router.choose("b", 1, "y", "http") == 0, "load counts more than the voice"


def test_a_lost_process_comes_back_empty() -> None:
    router = _router(0, 1)
    router.choose("a", 0, "x", "http")
    assert router.requests_of("http") == {"a"}
    assert router.requests_of("other") == set()
    assert router.lost(0) == {("a", 0): "http"}
    assert router.lost(0) == {}
    assert router.choose("a", 1, "x", "http") == 1
    router.close(0, "a", 0)
    router.ready(0)
    assert router.load(0) == 0
    router.ready(1)
    assert router.load(1) == 1, "said twice, it is still the same process"


def test_only_so_many_voices_are_remembered() -> None:
    router = _router(0, 1)
    assert router.choose("a", 0, "first", "http") == 0
    router.close(0, "a", 0)
    for number in range(1, 65):
        router.choose("hold", number, "held", "http")  # so that 0 is the less loaded one
        assert router.choose("a", number, f"voice{number}", "http") is not None
    assert len(router._peers[0].voices) <= 64
