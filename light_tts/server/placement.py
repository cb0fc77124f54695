"""Which process computes where, and what the GPUs have."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pynvml

from light_tts.config import ServerConfig


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """Bytes of the GPU that this process would call cuda:INDEX."""

    index: int
    used: int
    total: int

    @property
    def free(self) -> int:
        return self.total - self.used


def count_gpus() -> int:
    """GPUs that torch will see: none without a driver, or where torch is built for the CPU only."""
    if _torch_is_for_cpu():
        return 0
    with _nvml() as there:
        return len(_visible(pynvml.nvmlDeviceGetCount())) if there else 0


def gpu_memory(num_gpus: int) -> list[GpuMemory]:
    """Memory of the first `num_gpus` visible GPUs; empty where that cannot be asked."""
    if num_gpus == 0:
        return []
    with _nvml() as there:
        if not there:
            return []
        try:
            names = _visible(pynvml.nvmlDeviceGetCount())[:num_gpus]
            return [_memory_of(index, name) for index, name in enumerate(names)]
        except pynvml.NVMLError:
            return []


def table(config: ServerConfig) -> list[str]:
    """One line per process: name, device, what it does at once."""
    at_once = {
        "encode": f"{config.encode_paral_num} at once",
        "llm": f"{config.gpt_paral_num} sequences, {config.max_total_token_num} KV tokens",
        "decode": f"{config.decode_paral_num} batches of {config.decode_max_batch_size}",
    }
    rows = [(child.stage.value, child.index, child.device) for child in config.children()]
    lines = [
        f"{stage} {index}".ljust(12) + device.ljust(10) + at_once[stage] for stage, index, device in rows
    ]
    return ["process".ljust(12) + "device".ljust(10) + "work", *lines]


def _torch_is_for_cpu() -> bool:
    try:
        return importlib.metadata.version("torch").endswith("+cpu")
    except importlib.metadata.PackageNotFoundError:
        return True


@contextmanager
def _nvml() -> Iterator[bool]:
    """Whether the driver answers."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield False
        return
    try:
        yield True
    finally:
        pynvml.nvmlShutdown()


def _visible(count: int) -> list[str]:
    """Numbers or UUIDs of the GPUs in CUDA's order; CUDA stops at the first name that it does not know."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return [str(index) for index in range(count)]
    names: list[str] = []
    for name in (part.strip() for part in listed.split(",")):
        known = int(name) < count if name.isdecimal() else name.startswith(("GPU-", "MIG-"))
        if not known:
            break
        names.append(name)
    return names


def _memory_of(index: int, name: str) -> GpuMemory:
    by_number = name.isdecimal()
    handle = (
        pynvml.nvmlDeviceGetHandleByIndex(int(name)) if by_number else pynvml.nvmlDeviceGetHandleByUUID(name)
    )
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return GpuMemory(index, int(memory.used), int(memory.total))
