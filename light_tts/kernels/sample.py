"""Repetition-aware sampling of a whole batch, and the update of what the device knows of each sequence."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from light_tts.kernels.lang import const, jit, overlap, power_of_two, tl, wait_for_earlier
from light_tts.kernels.philox import waiting_times
from light_tts.kernels.seat_table import MAX_WINDOW, SEAT_WIDTH, Column

NOT_FINITE = -1
SURPLUS = -2  # of a sequence that had ended

_WIDTH = const(SEAT_WIDTH)
_MAX_WINDOW = const(MAX_WINDOW)
_LAST_TOKEN = const(Column.LAST_TOKEN)
_DRAWN = const(Column.DRAWN)
_MIN_LEN = const(Column.MIN_LEN)
_MAX_LEN = const(Column.MAX_LEN)
_DONE = const(Column.DONE)
_BAN_START = const(Column.BAN_START)
_BAN_STOP = const(Column.BAN_STOP)
_STOP_START = const(Column.STOP_START)
_SEED_LOW = const(Column.SEED_LOW)
_SEED_HIGH = const(Column.SEED_HIGH)
_TOP_K = const(Column.TOP_K)
_WIN_SIZE = const(Column.WIN_SIZE)
_REPEATS = const(Column.REPEATS)
_TEMPERATURE = const(Column.TEMPERATURE)
_TOP_P = const(Column.TOP_P)
_WINDOW = const(Column.WINDOW)


def sample_reference(logits: Tensor, seats: Tensor, row_seat: Tensor, out: Tensor) -> None:
    """The next token of each row's sequence: what `llm.sampler.ras_sample` says, with Philox's numbers.

    logits: (B, num_ids) float32
    row_seat: (B,) int32, no seat twice but the one that is nobody's
    seats: see `seat_table`; LAST_TOKEN, DRAWN, DONE and the window are brought up to date
    out: (B,) int32, gets the tokens, or NOT_FINITE or SURPLUS
    """
    index = row_seat.long()
    chosen = seats[index]
    drawn = chosen[:, Column.DRAWN].long()
    ids = torch.arange(logits.shape[1], device=logits.device)
    scores, finite = _scores(logits, chosen, drawn, ids)
    low, high = (chosen[:, c].long() & 0xFFFFFFFF for c in (Column.SEED_LOW, Column.SEED_HIGH))
    first, second = (
        waiting_times(ids[None], drawn[:, None], attempt, low[:, None], high[:, None]).log()
        for attempt in (0, 1)
    )
    kept = _nucleus(scores, chosen)
    token = (scores - first).masked_fill(~kept, -torch.inf).argmax(dim=-1)
    age = (drawn[:, None] - 1 - torch.arange(MAX_WINDOW, device=logits.device)) % MAX_WINDOW
    recent = age < torch.minimum(chosen[:, Column.WIN_SIZE].long(), drawn)[:, None]
    repeats = ((chosen[:, Column.WINDOW :] == token[:, None]) & recent).sum(dim=-1)
    others = (scores - second).scatter(1, token[:, None], -torch.inf).argmax(dim=-1)
    token = torch.where(repeats >= chosen[:, Column.REPEATS], others, token)
    _update(seats, index, chosen, token.int(), finite, out)


def _scores(logits: Tensor, chosen: Tensor, drawn: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Logits with banned ids out, over the temperature, the largest 0; and which rows were finite."""
    finite = logits.isfinite().all(dim=-1)
    banned = (ids >= chosen[:, Column.BAN_START, None]) & (ids < chosen[:, Column.BAN_STOP, None])
    banned &= (drawn < chosen[:, Column.MIN_LEN])[:, None]
    temperature = chosen[:, Column.TEMPERATURE].view(torch.float32)
    scores = logits.masked_fill(banned, -torch.inf) / temperature[:, None]
    return scores - scores.amax(dim=-1, keepdim=True), finite


def _nucleus(scores: Tensor, chosen: Tensor) -> Tensor:
    """(B, num_ids) bool: the most probable ids, by id where equal, until their mass or their number is reached."""
    order = scores.argsort(dim=-1, descending=True, stable=True)
    values = scores.softmax(dim=-1).gather(1, order)
    before = F.pad(values.cumsum(dim=-1)[:, :-1], (1, 0))
    top_p = chosen[:, Column.TOP_P].view(torch.float32)
    rank = torch.arange(scores.shape[1], device=scores.device)
    kept = (before < top_p[:, None]) & (rank < chosen[:, Column.TOP_K, None])
    kept[:, 0] = True
    return torch.zeros_like(kept).scatter(1, order, kept)


def _update(seats: Tensor, index: Tensor, chosen: Tensor, token: Tensor, finite: Tensor, out: Tensor) -> None:
    was_done = chosen[:, Column.DONE] != 0
    drawn = chosen[:, Column.DRAWN]
    ended = ~finite | (token >= chosen[:, Column.STOP_START]) | (drawn + 1 >= chosen[:, Column.MAX_LEN])
    out.copy_(torch.where(was_done, SURPLUS, torch.where(finite, token, NOT_FINITE)))
    new = chosen.clone()
    new[:, Column.LAST_TOKEN] = token
    new[:, Column.DRAWN] = drawn + 1
    new[:, Column.DONE] = ended.int()
    new.scatter_(1, Column.WINDOW + (drawn.long() % MAX_WINDOW)[:, None], token[:, None])
    seats[index] = torch.where(was_done[:, None], chosen, new)


@jit()
def _waiting_times(ids, draw, attempt, seed_low, seed_high):
    word, _, _, _ = tl.philox_impl(ids, draw, attempt, ids * 0, seed_low, seed_high)
    return -tl.log(((word >> 9).to(tl.float32) + 0.5) * 1.1920928955078125e-07)  # 2 ** -23


@jit()
def _kept(chances, ids, top_k, top_p):
    """The nucleus, without sorting: halve the interval that holds the smallest probability in it, bit by bit."""
    bits = chances.to(tl.int32, bitcast=True)  # of numbers that are not negative: in the same order
    low = top_k * 0
    high = low + 0x3F800001  # no probability is above 1
    for _ in range(30):
        middle = (low + high) // 2
        above = bits >= middle
        enough = (tl.sum(above.to(tl.int32), axis=0) >= top_k) | (
            tl.sum(tl.where(above, chances, 0.0), axis=0) >= top_p
        )
        low = tl.where(enough, middle, low)
        high = tl.where(enough, high, middle)
    over = bits > low
    equal = bits == low
    missing = top_k - tl.sum(over.to(tl.int32), axis=0)
    mass = tl.sum(tl.where(over, chances, 0.0), axis=0)
    rank = tl.cumsum(equal.to(tl.int32), axis=0)  # by id, from 1
    edge = low.to(tl.float32, bitcast=True)
    return over | (
        equal & (rank <= missing) & ((mass + (rank - 1).to(tl.float32) * edge < top_p) | (rank == 1))
    )


@jit("num_ids")
def _kernel(logits, seats, row_seat, out, num_ids, BLOCK: tl.constexpr, PDL: tl.constexpr):
    wait_for_earlier(PDL)
    row = tl.program_id(0)
    seat = seats + tl.load(row_seat + row).to(tl.int64) * _WIDTH
    done = tl.load(seat + _DONE)
    if done != 0:
        tl.store(out + row, -2)
    else:
        drawn = tl.load(seat + _DRAWN)
        ids = tl.arange(0, BLOCK)
        inside = ids < num_ids
        scores = tl.load(logits + row.to(tl.int64) * num_ids + ids, mask=inside, other=float("-inf"))
        bad = inside & ((tl.abs(scores) < float("inf")) == 0)
        finite = tl.sum(bad.to(tl.int32), axis=0) == 0
        banned = (ids >= tl.load(seat + _BAN_START)) & (ids < tl.load(seat + _BAN_STOP))
        banned = banned & (drawn < tl.load(seat + _MIN_LEN))
        scores = tl.where(banned, float("-inf"), scores)
        scores = scores / tl.load(seat + _TEMPERATURE).to(tl.float32, bitcast=True)
        scores -= tl.max(scores, axis=0)
        chances = tl.exp(scores)
        chances = chances / tl.sum(chances, axis=0)
        top_p = tl.load(seat + _TOP_P).to(tl.float32, bitcast=True)
        kept = _kept(chances, ids, tl.load(seat + _TOP_K), top_p)
        low = tl.load(seat + _SEED_LOW).to(tl.uint32, bitcast=True)
        high = tl.load(seat + _SEED_HIGH).to(tl.uint32, bitcast=True)
        counter = ids.to(tl.uint32, bitcast=True)
        draw = counter * 0 + drawn.to(tl.uint32, bitcast=True)
        races = scores - tl.log(_waiting_times(counter, draw, counter * 0, low, high))
        token = tl.argmax(tl.where(kept, races, float("-inf")), axis=0)
        place = tl.arange(0, _MAX_WINDOW)
        age = (drawn - 1 - place + 2 * _MAX_WINDOW * (drawn + 1)) % _MAX_WINDOW  # never negative on the way
        recent = age < tl.minimum(tl.load(seat + _WIN_SIZE), drawn)
        same = (tl.load(seat + _WINDOW + place) == token) & recent
        if tl.sum(same.to(tl.int32), axis=0) >= tl.load(seat + _REPEATS):
            races = scores - tl.log(_waiting_times(counter, draw, counter * 0 + 1, low, high))
            token = tl.argmax(tl.where(ids == token, float("-inf"), races), axis=0)
        token = token.to(tl.int32)
        ended = (token >= tl.load(seat + _STOP_START)) | (drawn + 1 >= tl.load(seat + _MAX_LEN))
        tl.store(out + row, tl.where(finite, token, -1))
        tl.store(seat + _WINDOW + drawn % _MAX_WINDOW, token)
        tl.store(seat + _LAST_TOKEN, token)
        tl.store(seat + _DRAWN, drawn + 1)
        tl.store(seat + _DONE, (ended | (finite == 0)).to(tl.int32))


def sample_triton(logits: Tensor, seats: Tensor, row_seat: Tensor, out: Tensor, pdl: int = 0) -> None:
    """As the reference."""
    num_ids = logits.shape[1]
    _kernel[(len(logits),)](
        logits,
        seats,
        row_seat,
        out,
        num_ids,
        BLOCK=power_of_two(num_ids),
        PDL=pdl,
        num_warps=16 if num_ids > 2048 else 4,
        **overlap(pdl),
    )
