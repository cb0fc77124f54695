"""Neighbouring frames laid side by side: causal convolutions as matrix products, batched over streams."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from light_tts.kernels.lang import jit, power_of_two, tl


@dataclass(frozen=True, slots=True)
class Tails:
    """Where a convolution keeps the frames before the new ones.

    memory: (entries, taps - 1, C), contiguous
    read, write: (R,) int32, the entry that a row's left context is in, and the one that the next call's goes to
    new_lens: (R,) int32, valid new frames of each row
    """

    memory: Tensor
    read: Tensor
    write: Tensor
    new_lens: Tensor


def windows_reference(x: Tensor, taps: int, tails: Tails | None) -> Tensor:
    """x: (R, T, C). Returns (R * T, taps * C): each frame's `taps` last, the oldest first; keeps the new tails.

    tails: None puts zeros before the new frames
    """
    rows, frames, channels = x.shape
    ext = extended(x, taps - 1, tails)
    return torch.cat([ext[:, k : k + frames] for k in range(taps)], dim=-1).view(
        rows * frames, taps * channels
    )


def extended(x: Tensor, left: int, tails: Tails | None) -> Tensor:
    """(R, left + T, C): the left context and the new frames; keeps the new tails."""
    if tails is None:
        return torch.cat([x.new_zeros(x.shape[0], left, x.shape[2]), x], dim=1)
    ext = torch.cat([tails.memory.index_select(0, tails.read), x], dim=1)
    last = tails.new_lens[:, None].long() + torch.arange(left, device=x.device)
    tails.memory.index_copy_(
        0, tails.write.long(), ext.gather(1, last[:, :, None].expand(-1, -1, x.shape[2]))
    )
    return ext


@jit("frames")
def _windows(
    x, memory, read, write, new_lens, out, frames,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, TAPS: tl.constexpr, FRAMES: tl.constexpr, TAILS: tl.constexpr
):  # fmt: skip
    row = tl.program_id(1).to(tl.int64)
    frame = tl.program_id(0) * FRAMES + tl.arange(0, FRAMES)
    column = tl.arange(0, BLOCK)
    fits = (column < SIZE)[None, :]
    source = x + row * frames * SIZE
    if TAILS:
        entry = memory + tl.load(read + row).to(tl.int64) * (TAPS - 1) * SIZE
        after = memory + tl.load(write + row).to(tl.int64) * (TAPS - 1) * SIZE
        length = tl.load(new_lens + row)
    for tap in tl.static_range(TAPS):
        at = frame + tap - (TAPS - 1)
        inside = fits & (frame < frames)[:, None]
        value = tl.load(
            source + at[:, None] * SIZE + column[None, :], mask=inside & (at >= 0)[:, None], other=0.0
        )
        if TAILS:
            place = (at + TAPS - 1)[:, None] * SIZE + column[None, :]
            value += tl.load(entry + place, mask=inside & (at < 0)[:, None], other=0.0)
        to = out + (row * frames + frame)[:, None] * (TAPS * SIZE) + tap * SIZE + column[None, :]
        tl.store(to, value, mask=inside)
    if TAILS:  # noqa: SIM102  # known when the kernel is compiled
        if tl.program_id(0) == 0:
            for k in tl.static_range(TAPS - 1):
                last = length + k - (TAPS - 1)
                own = source + last * SIZE + column
                kept = tl.load(own, mask=(column < SIZE) & (last >= 0), other=0.0)
                older = entry + (last + TAPS - 1) * SIZE + column
                kept += tl.load(older, mask=(column < SIZE) & (last < 0), other=0.0)
                tl.store(after + k * SIZE + column, kept, mask=column < SIZE)


def windows_triton(x: Tensor, taps: int, tails: Tails | None) -> Tensor:
    """As the reference; x is contiguous, and no row reads the entry that another writes."""
    rows, frames, channels = x.shape
    out = torch.empty(rows * frames, taps * channels, dtype=x.dtype, device=x.device)
    block = power_of_two(channels)
    per = max(1, 4096 // block)
    unused = out if tails is None else None
    _windows[(-(-frames // per), rows)](
        x,
        unused if tails is None else tails.memory,
        unused if tails is None else tails.read,
        unused if tails is None else tails.write,
        unused if tails is None else tails.new_lens,
        out,
        frames,
        SIZE=channels,
        BLOCK=block,
        TAPS=taps,
        FRAMES=per,
        TAILS=tails is not None,
        num_warps=4,
    )
    return out
