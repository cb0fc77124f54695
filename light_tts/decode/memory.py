"""How much memory streams may take on this machine, and how much they do take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

import psutil
import torch
from torch import Tensor

from light_tts.config import ServerConfig
from light_tts.decode.budget import StateBudget
from light_tts.messages import Stage
from light_tts.models.flow.fast.pool import Lease

CPU_SHARE = 0.5  # of the memory that is free at start, for all decode processes together
GPU_STATE_SHARE = (
    0.8  # of what a process has besides its weights; the rest is for activations and fragmentation
)
POOL_SHARE = 0.9  # of a pool that streams are promised: leases are rounded up, and leave gaps
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def state_limit_bytes(config: ServerConfig, index: int) -> int:
    """The limit of a decode process's `StateBudget`; call it once the model is loaded.

    Full-size models keep 1.8 to 2.3 MB per mel frame (50 a second, those of the prompt included) in fp16, twice
    that in fp32: 1 GB for a 3 s prompt and 7 s of speech.
    GPU: `gpu_memory_fraction` of the device, shared equally by our processes on it, without what this process has
    taken already, and no more than is free; of that GPU_STATE_SHARE.
    CPU: CPU_SHARE of the memory that is free, also within the container's limit, shared by the decode processes.
    """
    device = config.device_of(Stage.DECODE, index)
    if device == "cpu":
        return round(_free_ram() * CPU_SHARE / config.decode_process_num)
    free, total = torch.cuda.mem_get_info(torch.device(device))
    sharers = sum(child.device == device for child in config.children())
    own = config.gpu_memory_fraction * total / max(1, sharers) - torch.cuda.memory_reserved(device)
    return round(max(0.0, min(own, free)) * GPU_STATE_SHARE)


def budget_for(config: ServerConfig, index: int, pool_bytes: int = 0) -> StateBudget:
    """The budget of a decode process. While a batch of several streams runs, their states exist four times: apart as
    before, stacked, stacked with what is new, and apart again; of a single stream there are the old and the new.

    pool_bytes: memory taken beforehand, in which streams stay where they are and batches copy nothing
    """
    if pool_bytes:
        return StateBudget(round(POOL_SHARE * pool_bytes))
    return StateBudget(
        state_limit_bytes(config, index),
        in_flight=config.decode_paral_num * config.decode_max_batch_size,
        copies=1 if config.decode_max_batch_size == 1 else 3,
    )


def _free_ram() -> int:
    free: int = psutil.virtual_memory().available
    for name in _CGROUP_LIMITS:
        path = Path(name)
        text = path.read_text().strip() if path.exists() else ""
        if text.isdigit():
            free = min(free, int(text))
    return free


def state_bytes(state: object) -> int:
    """Memory of all tensors in dataclasses, tuples and lists, and of leases; what several share counts once."""
    sizes = dict(_sizes(state))
    return sum(sizes.values())


def _sizes(value: object) -> Iterator[tuple[int, int]]:
    """What is held: an identity, and its bytes."""
    if isinstance(value, Tensor):
        storage = value.untyped_storage()
        yield storage.data_ptr(), storage.nbytes()
    elif isinstance(value, Lease):
        yield -1 - value.slot, value.num_bytes
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _sizes(item)
    elif is_dataclass(value):
        for item in fields(value):
            yield from _sizes(getattr(value, item.name))
