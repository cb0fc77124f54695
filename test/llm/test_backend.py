from __future__ import annotations

import pytest

from light_tts.llm.backend import choose_backend


def test_without_a_mode_there_is_nothing_to_say() -> None:
    backend = choose_backend((), "cpu", "float32")
    assert (backend.attention, backend.kv_cache, backend.notes) == ("torch-eager", "float32", ())
    assert choose_backend((), "cuda:0", "bfloat16").attention == "torch-sdpa"


@pytest.mark.parametrize("mode", [("triton_int8kv",), ("ppl_int8kv",), ("triton_int8kv", "ppl_int8kv")])
def test_both_names_mean_eight_bits(mode: tuple[str, ...]) -> None:
    assert choose_backend(mode, "cpu", "float32").kv_cache == "int8"


def test_what_cannot_be_had_is_said() -> None:
    (note,) = choose_backend(("triton_flashdecoding",), "cpu", "float32").notes
    assert "triton_flashdecoding" in note
    assert "torch-eager" in note
