"""Token ids to embeddings, and what each row of a step works on."""

from __future__ import annotations

import torch
from torch import Tensor

from light_tts.kernels.lang import const, jit, overlap, power_of_two, tl, wait_for_earlier
from light_tts.kernels.seat_table import SEAT_WIDTH, Column

_WIDTH = const(SEAT_WIDTH)
_LAST_TOKEN = const(Column.LAST_TOKEN)
_POSITION = const(Column.POSITION)
_KV_START = const(Column.KV_START)
_DONE = const(Column.DONE)


def embed_reference(ids: Tensor, speech_table: Tensor, text_table: Tensor) -> Tensor:
    """ids: (N,) int32, row of `speech_table`, or -1 - row of `text_table`. Returns (N, hidden)."""
    ids = ids.long()
    speech, text = speech_table[ids.clamp_min(0)], text_table[(-1 - ids).clamp_min(0)]
    return torch.where((ids < 0)[:, None], text, speech)


@jit()
def _embed_kernel(ids, speech_table, text_table, out, size, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < size
    token = tl.load(ids + row).to(tl.int64)
    if token < 0:
        numbers = tl.load(text_table + (-1 - token) * size + column, mask=inside)
        tl.store(out + row * size + column, numbers, mask=inside)
    else:
        numbers = tl.load(speech_table + token * size + column, mask=inside)
        tl.store(out + row * size + column, numbers, mask=inside)


def embed_triton(ids: Tensor, speech_table: Tensor, text_table: Tensor) -> Tensor:
    """As the reference."""
    size = speech_table.shape[1]
    out = torch.empty((len(ids), size), dtype=speech_table.dtype, device=ids.device)
    if len(ids):
        _embed_kernel[(len(ids),)](
            ids, speech_table, text_table, out, size, BLOCK=power_of_two(size), num_warps=4
        )
    return out


def begin_step_reference(
    seats: Tensor,
    row_seat: Tensor,
    speech_table: Tensor,
    scratch_slot: int,
    x: Tensor,
    squares: Tensor,
    row_start: Tensor,
    row_pos: Tensor,
) -> None:
    """Each row takes its seat's last token in, at the next position; rows that have ended take the scratch slot.

    seats: see `seat_table`, positions move on by one; row_seat: (B,) int32
    x: (B, hidden), gets the embeddings; squares: (parts, B) float32, its row 0 gets the sums of their squares
    row_start, row_pos: (B,) int32, get the first slot and the position of each row's sequence
    """
    index = row_seat.long()
    chosen = seats[index]
    done = chosen[:, Column.DONE] != 0
    position = chosen[:, Column.POSITION]
    row_start.copy_(torch.where(done, scratch_slot, chosen[:, Column.KV_START]))
    row_pos.copy_(torch.where(done, 0, position))
    # Not written where done: several rows may share the seat that is nobody's.
    seats[:, Column.POSITION].index_add_(0, index, (~done).int())
    # What an ended one said last may be no token at all.
    x.copy_(speech_table[chosen[:, Column.LAST_TOKEN].long().masked_fill(done, 0)])
    squares[0].copy_(x.float().square().sum(dim=-1))


@jit("scratch_slot")
def _begin_kernel(
    seats, row_seat, table, scratch_slot, x, squares, row_start, row_pos, size, BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    wait_for_earlier(PDL)
    row = tl.program_id(0)
    seat = seats + tl.load(row_seat + row).to(tl.int64) * _WIDTH
    done = tl.load(seat + _DONE) != 0
    position = tl.load(seat + _POSITION)
    start = tl.load(seat + _KV_START)
    token = tl.where(done, 0, tl.load(seat + _LAST_TOKEN)).to(tl.int64)
    tl.store(row_start + row, tl.where(done, scratch_slot, start))
    tl.store(row_pos + row, tl.where(done, 0, position))
    tl.store(seat + _POSITION, position + 1, mask=done == 0)
    column = tl.arange(0, BLOCK)
    inside = column < size
    numbers = tl.load(table + token * size + column, mask=inside, other=0.0)
    tl.store(x + row * size + column, numbers, mask=inside)
    wide = numbers.to(tl.float32)
    tl.store(squares + row, tl.sum(wide * wide, axis=0))


def begin_step_triton(
    seats: Tensor,
    row_seat: Tensor,
    speech_table: Tensor,
    scratch_slot: int,
    x: Tensor,
    squares: Tensor,
    row_start: Tensor,
    row_pos: Tensor,
    pdl: int = 0,
) -> None:
    """As the reference."""
    size = speech_table.shape[1]
    _begin_kernel[(len(row_seat),)](
        seats,
        row_seat,
        speech_table,
        scratch_slot,
        x,
        squares,
        row_start,
        row_pos,
        size,
        BLOCK=power_of_two(size),
        PDL=pdl,
        num_warps=4,
        **overlap(pdl),
    )
