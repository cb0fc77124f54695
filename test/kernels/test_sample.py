"""The batched sampler's reference against the sampler of a single sequence, and its rules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from light_tts.kernels.sample import NOT_FINITE, SURPLUS, sample_reference
from light_tts.kernels.seat_table import MAX_WINDOW, Column, new_seats
from light_tts.llm.philox_sampler import PhiloxSampler
from light_tts.llm.request import SamplingParams
from light_tts.llm.sequence import Constraint
from test.gpu.cases import Inputs, random_seats

IDS = 120


def _params(seat: Tensor) -> SamplingParams:
    numbers = [int(number) for number in seat]
    floats = seat[Column.TEMPERATURE : Column.TOP_P + 1].view(torch.float32)
    low, high = (numbers[column] & 0xFFFFFFFF for column in (Column.SEED_LOW, Column.SEED_HIGH))
    window = numbers[Column.WIN_SIZE]
    tau_r = (numbers[Column.REPEATS] - 0.5) / window
    return SamplingParams(
        float(floats[0]),
        float(floats[1]),
        numbers[Column.TOP_K],
        window,
        tau_r,
        (high & 0x7FFFFFFF) << 32 | low,
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_batch_draws_what_single_sequences_draw(seed: int) -> None:
    inputs = Inputs(torch.device("cpu"), torch.float32, torch.Generator().manual_seed(seed))
    seats = random_seats(inputs, 12, IDS)
    seats[:, Column.SEED_HIGH] &= 0x7FFFFFFF
    histories: list[list[int]] = []
    for seat in seats[:-1]:
        drawn = int(seat[Column.DRAWN])
        history = torch.randint(0, IDS - 3, (drawn,), generator=inputs.generator).tolist()
        for index, token in enumerate(history):
            seat[Column.WINDOW + index % MAX_WINDOW] = token
        histories.append(history)
    samplers = [PhiloxSampler(_params(seat)) for seat in seats[:-1]]
    rows = torch.tensor([3, 0, 7, 11, 12, 5, 12], dtype=torch.int32)
    for _ in range(6):
        logits = torch.randn(len(rows), IDS, generator=inputs.generator) * 2
        logits[:, :3] += 4
        expected = []
        for row, seat in enumerate(rows.tolist()):
            if seats[seat, Column.DONE]:
                expected.append(SURPLUS)
                continue
            early = len(histories[seat]) < int(seats[seat, Column.MIN_LEN])
            banned = (slice(IDS - 3, IDS),) if early else ()
            token = samplers[seat].pick(
                logits[row].log_softmax(dim=0), histories[seat], Constraint(banned=banned)
            )
            histories[seat].append(token)
            expected.append(token)
        out = torch.full((len(rows),), -9, dtype=torch.int32)
        sample_reference(logits, seats, rows, out)
        assert out.tolist() == expected
        for row, seat in enumerate(rows.tolist()):
            token = expected[row]
            if token != SURPLUS:
                ended = token >= IDS - 3 or len(histories[seat]) >= int(seats[seat, Column.MAX_LEN])
                assert bool(seats[seat, Column.DONE]) == ended
                assert int(seats[seat, Column.LAST_TOKEN]) == token


def test_rows_that_are_not_finite_end_without_a_token_and_alone() -> None:
    inputs = Inputs(torch.device("cpu"), torch.float32, torch.Generator().manual_seed(1))
    seats = random_seats(inputs, 3, IDS)
    logits = torch.randn(3, IDS, generator=inputs.generator)
    logits[1, 4], logits[2, 5] = float("nan"), float("inf")
    out = torch.zeros(3, dtype=torch.int32)
    sample_reference(logits, seats, torch.arange(3, dtype=torch.int32), out)
    assert out[0] >= 0
    assert out[1:].tolist() == [NOT_FINITE, NOT_FINITE]
    assert seats[1:3, Column.DONE].tolist() == [1, 1]


def test_a_row_of_nobody_is_left_as_it_is() -> None:
    seats = new_seats(2, torch.device("cpu"))
    before, out = seats.clone(), torch.zeros(2, dtype=torch.int32)
    sample_reference(torch.randn(2, IDS), seats, torch.tensor([2, 2], dtype=torch.int32), out)
    assert out.tolist() == [SURPLUS, SURPLUS]
    assert np.array_equal(seats.numpy(), before.numpy())
