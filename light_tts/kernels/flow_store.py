"""New keys and values to their places in the memory of streams."""

from __future__ import annotations

from torch import Tensor

from light_tts.kernels.lang import jit, power_of_two, tl


def store_rows_reference(memory: Tensor, places: Tensor, rows: Tensor) -> None:
    """memory: (M, size), changed in place; places: (N,) int64; rows: (N, size), whose rows may be apart in memory.

    Of several rows for one place any may win.
    """
    memory.index_copy_(0, places, rows)


@jit()
def _store(memory, places, rows, stride, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    value = tl.load(rows + row * stride + column, mask=column < SIZE)
    tl.store(memory + tl.load(places + row) * SIZE + column, value, mask=column < SIZE)


def store_rows_triton(memory: Tensor, places: Tensor, rows: Tensor) -> None:
    """As the reference; memory is contiguous."""
    count, size = rows.shape
    _store[(count,)](
        memory,
        places,
        rows,
        rows.stride(0),
        SIZE=size,
        BLOCK=power_of_two(size),
        num_warps=2 if size <= 1024 else 4,
    )
