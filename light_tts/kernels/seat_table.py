"""What the device knows of each running sequence: a seat, one row of int32 in a table."""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor

MAX_WINDOW = 64  # how far repetition-aware sampling can look back on the device


class Column(IntEnum):
    """LAST_TOKEN: what the sequence reads next; POSITION: tokens it has in the cache, so where that one belongs
    KV_START: its first slot
    DRAWN: tokens drawn so far; from MIN_LEN on it may end, at MAX_LEN it must
    DONE: not 0 once it has ended; nothing is computed for it then, and nothing written to its slots
    BAN_START, BAN_STOP: ids that may not be drawn before MIN_LEN; STOP_START: this id and all above end it
    SEED_LOW, SEED_HIGH: halves of the seed, as bits
    REPEATS: so often in the last WIN_SIZE draws, and an id that is drawn again is masked
    TEMPERATURE, TOP_P: float32, as bits
    WINDOW: the first of MAX_WINDOW columns; draw number n is in WINDOW + n % MAX_WINDOW
    """

    LAST_TOKEN = 0
    POSITION = 1
    KV_START = 2
    DRAWN = 3
    MIN_LEN = 4
    MAX_LEN = 5
    DONE = 6
    BAN_START = 7
    BAN_STOP = 8
    STOP_START = 9
    SEED_LOW = 10
    SEED_HIGH = 11
    TOP_K = 12
    WIN_SIZE = 13
    REPEATS = 14
    TEMPERATURE = 15
    TOP_P = 16
    WINDOW = 32


SEAT_WIDTH = int(Column.WINDOW) + MAX_WINDOW


def new_seats(num_seats: int, device: torch.device) -> Tensor:
    """(num_seats + 1, SEAT_WIDTH) int32: all done; the last is nobody's, for rows that fill a batch up."""
    seats = torch.zeros(num_seats + 1, SEAT_WIDTH, dtype=torch.int32, device=device)
    seats[:, Column.DONE] = 1
    # Numbers that nothing divides by zero with: rows of ended sequences go through all arithmetic.
    seats[:, Column.TOP_K] = 1
    seats[:, Column.TEMPERATURE : Column.TOP_P + 1].view(torch.float32).fill_(1.0)
    return seats
