from __future__ import annotations

import os

import pytest

from light_tts.decode import heap
from light_tts.decode.heap import HeapTrimmer, bound_compiled_shapes


def test_the_heap_is_trimmed_after_work_and_once_after_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("light_tts.decode.heap.time.monotonic", lambda: clock[0])
    calls: list[int] = []

    def trim(keep: int) -> int:
        calls.append(keep)
        return 1

    trimmer = HeapTrimmer(trim)
    for moment, worked, expected in (
        (100.0, False, 0),
        (100.0, True, 1),
        (100.9, True, 1),
        (101.0, False, 2),
        (109.0, False, 2),
    ):
        clock[0] = moment
        if worked:
            trimmer.worked()
        trimmer.turn()
        assert len(calls) == expected
    assert set(calls) == {0}


def test_the_c_library_here_is_asked_without_harm() -> None:
    trimmer = HeapTrimmer()
    trimmer.worked()
    trimmer.turn()


def test_the_environment_has_the_last_word_on_compiled_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    monkeypatch.setenv(name, "7")
    bound_compiled_shapes()
    assert os.environ[name] == "7"
    monkeypatch.delenv(name)
    bound_compiled_shapes()
    assert os.environ[name] == str(heap.COMPILED_SHAPES)
