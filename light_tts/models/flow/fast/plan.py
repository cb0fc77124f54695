"""The shape of one call of the fast flow, and its inputs as one upload."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from light_tts.models.flow.fast.pool import Lease
from light_tts.models.flow.flow_state import FlowRow

BATCHES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
PAST_TOKENS = (256, 1024, 4096, 8192)  # how far back the token encoder looks; the noise ends the rest


@dataclass(frozen=True, slots=True)
class Plan:
    """batch: rows, padded; tokens: new ones of each, padded; lookahead: tokens after them

    chunk: streaming attention chunk in tokens, 0 for whole utterances
    past_tokens: bound of what came before; None where rows begin here and keep nothing
    """

    batch: int
    tokens: int
    lookahead: int
    chunk: int
    past_tokens: int | None = None

    @classmethod
    def fit(cls, rows: Sequence[FlowRow], unit: int, lookahead: int, chunk: int, keeps: bool) -> Plan:
        """The smallest of the shapes in use that holds these rows. unit: tokens, in a multiple of which it comes."""
        longest, past = max(row.num_new for row in rows), max(row.state.num_tokens for row in rows)
        step = unit if longest <= 40 * unit else 8 * unit
        return cls(
            next((size for size in BATCHES if size >= len(rows)), len(rows)),
            -(-longest // step) * step,
            lookahead,
            chunk,
            next(bound for bound in PAST_TOKENS if bound >= past) if keeps else None,
        )


@dataclass(frozen=True, slots=True)
class Inputs:
    """numbers: int32, all there is to know of the rows; speakers: (B, mel); cond: (B, frames, mel), prompts' mels"""

    numbers: Tensor
    speakers: Tensor
    cond: Tensor


@dataclass(frozen=True, slots=True)
class Columns:
    """Numbers of the rows as the device reads them, (B,) int64 each but the first two.

    tokens, present: (B, N + look-ahead); new_lens, past_lens: in tokens
    key_rows: (halves, B), where the estimator's keys of each row begin; base: first frame of each row's lease
    read, write: entries of the tails, of the first half
    """

    tokens: Tensor
    present: Tensor
    new_lens: Tensor
    past_lens: Tensor
    key_rows: Tensor
    base: Tensor
    read: Tensor
    write: Tensor


_NUM_COLUMNS = 7


def num_numbers(plan: Plan) -> int:
    return plan.batch * (2 * (plan.tokens + plan.lookahead) + _NUM_COLUMNS)


def pack(
    plan: Plan, rows: Sequence[FlowRow], leases: Sequence[Lease | None], parities: Sequence[int]
) -> Tensor:
    """(num_numbers,) int32 on the CPU. What no row fills has no tokens, and memory that is nobody's."""
    width = plan.tokens + plan.lookahead
    numbers = torch.zeros(num_numbers(plan), dtype=torch.int32)
    tokens, present = numbers[: 2 * plan.batch * width].view(2, plan.batch, width)
    columns = numbers[2 * plan.batch * width :].view(_NUM_COLUMNS, plan.batch)
    for index, (row, lease, parity) in enumerate(zip(rows, leases, parities, strict=True)):
        known = row.tokens[: row.num_new + (0 if row.finalize else plan.lookahead)]
        tokens[index, : len(known)] = known.clamp(min=0)
        present[index, : len(known)] = 1
        places = (0, 0, 0, 0, 0)
        if lease is not None:
            places = (
                lease.key_row(0),
                lease.key_row(lease.pool.shape.halves - 1),
                lease.start,
                lease.entry(parity, 0),
                lease.entry(1 - parity, 0),
            )
        columns[:, index] = torch.tensor((row.num_new, row.state.num_tokens, *places), dtype=torch.int32)
    return numbers


def unpack(plan: Plan, numbers: Tensor) -> Columns:
    """The inverse of `pack`, on the device."""
    width = plan.tokens + plan.lookahead
    tokens, present = numbers[: 2 * plan.batch * width].view(2, plan.batch, width)
    columns = numbers[2 * plan.batch * width :].view(_NUM_COLUMNS, plan.batch).long()
    new_lens, past_lens, first, last, base, read, write = columns.unbind(0)
    return Columns(tokens.long(), present, new_lens, past_lens, torch.stack([first, last]), base, read, write)
