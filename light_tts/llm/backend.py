"""How the language model keeps its KV cache and reads it: decided here and nowhere else."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LlmBackend:
    """attention, kv_cache: what runs; notes: what was asked for and does not run as its name says"""

    attention: str
    kv_cache: str
    notes: tuple[str, ...]


def choose_backend(mode: Collection[str], device: str, dtype: str) -> LlmBackend:
    """mode: values of --mode; device: "cpu" or "cuda:N"; dtype: of the model

    There are no Triton kernels here yet: attention is PyTorch's, on a CPU its plain operators and on a GPU its fused
    one. The two int8 modes are the same.
    """
    attention = "torch-eager" if device == "cpu" else "torch-sdpa"
    int8 = sorted({"triton_int8kv", "ppl_int8kv"} & set(mode))
    notes = [
        f"--mode {name}: keys and values are kept in 8 bits, by PyTorch's own operators" for name in int8
    ]
    if "triton_flashdecoding" in mode:
        notes.append(f"--mode triton_flashdecoding: not to be had on {device}, attention runs as {attention}")
    return LlmBackend(attention, "int8" if int8 else dtype, tuple(notes))
