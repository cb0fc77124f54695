"""How the language model steps, keeps its KV cache and reads it: decided here and nowhere else."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from importlib.util import find_spec


@dataclass(frozen=True, slots=True)
class LlmBackend:
    """step, attention, kv_cache: what runs; notes: what was asked for and does not run as its name says

    step: "host": the host samples, and launches a step when it has the last one's tokens; "device": all of it is one
        CUDA graph, launched ahead
    """

    step: str
    attention: str
    kv_cache: str
    notes: tuple[str, ...]


def choose_backend(
    mode: Collection[str], device: str, dtype: str, *, triton: bool | None = None
) -> LlmBackend:
    """mode: values of --mode; device: "cpu" or "cuda:N"; dtype: of the model
    triton: whether it is installed; None looks

    On a GPU in half precision everything runs in Triton's kernels, whether `triton_flashdecoding` asks for them or not;
    elsewhere attention is PyTorch's, on a CPU its plain operators and on a GPU its fused one. The two int8 modes are
    the same.
    """
    int8 = sorted({"triton_int8kv", "ppl_int8kv"} & set(mode))
    kv_cache = "int8" if int8 else dtype
    if triton is None:
        triton = find_spec("triton") is not None
    if device != "cpu" and dtype in ("float16", "bfloat16") and triton:
        return LlmBackend("device", "triton-flash", kv_cache, ())
    attention = "torch-eager" if device == "cpu" else "torch-sdpa"
    notes = [
        f"--mode {name}: keys and values are kept in 8 bits, by PyTorch's own operators" for name in int8
    ]
    if "triton_flashdecoding" in mode:
        notes.append(
            f"--mode triton_flashdecoding: not to be had on {_here(device, dtype)}, attention runs as {attention}"
        )
    return LlmBackend("host", attention, kv_cache, tuple(notes))


def _here(device: str, dtype: str) -> str:
    if device == "cpu":
        return device
    if dtype == "float32":
        return f"{device} in {dtype}"
    return f"{device} without the package triton"
