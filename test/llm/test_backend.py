from __future__ import annotations

import pytest

from light_tts.llm.backend import choose_backend


def test_without_a_mode_there_is_nothing_to_say() -> None:
    backend = choose_backend((), "cpu", "float32")
    assert (backend.attention, backend.kv_cache, backend.notes) == ("torch-eager", "float32", ())
    assert choose_backend((), "cuda:0", "bfloat16", triton=False).attention == "torch-sdpa"


def test_a_gpu_in_half_precision_steps_by_itself_where_triton_is() -> None:
    for mode, kv_cache in (((), "float16"), (("triton_flashdecoding", "ppl_int8kv"), "int8")):
        backend = choose_backend(mode, "cuda:1", "float16", triton=True)
        assert (backend.step, backend.attention, backend.kv_cache) == ("device", "triton-flash", kv_cache)
        assert backend.notes == ()
    assert choose_backend((), "cuda:0", "float32", triton=True).step == "host"
    assert choose_backend((), "cpu", "bfloat16", triton=True).step == "host"


@pytest.mark.parametrize(
    ("dtype", "reason"), [("float32", "in float32"), ("float16", "without the package triton")]
)
def test_why_a_kernel_is_not_to_be_had_is_said(dtype: str, reason: str) -> None:
    (note,) = choose_backend(("triton_flashdecoding",), "cuda:0", dtype, triton=False).notes
    assert reason in note


@pytest.mark.parametrize("mode", [("triton_int8kv",), ("ppl_int8kv",), ("triton_int8kv", "ppl_int8kv")])
def test_both_names_mean_eight_bits(mode: tuple[str, ...]) -> None:
    assert choose_backend(mode, "cpu", "float32").kv_cache == "int8"


def test_what_cannot_be_had_is_said() -> None:
    (note,) = choose_backend(("triton_flashdecoding",), "cpu", "float32").notes
    assert "triton_flashdecoding" in note
    assert "torch-eager" in note
