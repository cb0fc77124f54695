"""What both estimators promise about streams and batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from light_tts.models.flow.estimator_state import EstimatorState
from light_tts.models.layers.ragged import Frames
from test.models.flow.estimators import CHUNK, AnyEstimator, Inputs, evaluate, load_estimator, whole

TOLERANCE = 2e-5  # float32 noise: the same sums in another order; the recordings' own noise is 2e-5


@pytest.fixture(scope="module")
def estimator(model_dir: Path) -> AnyEstimator:
    return load_estimator(model_dir)


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def advance(
    estimator: AnyEstimator,
    inputs: Inputs,
    past: list[int],
    new: list[int],
    state: EstimatorState | None,
) -> tuple[Tensor, EstimatorState]:
    """Frames [past, past + new) of each row, continued from `state`."""
    frames = Frames(torch.tensor(past), torch.tensor(new), max(new), CHUNK, max(past))
    out, kept = evaluate(estimator, inputs.pieces(past, new), frames, state, keep_state=True)
    assert kept is not None
    return out, kept


@pytest.mark.parametrize("borders", [[50], [150], [50, 100, 150], [100, 150], [50, 100]])
def test_stream_equals_whole(estimator: AnyEstimator, borders: list[int]) -> None:
    inputs = Inputs.random(2, 187)
    state, parts = None, []
    for start, end in zip([0, *borders], [*borders, 187], strict=True):
        part, state = advance(estimator, inputs, [start] * 2, [end - start] * 2, state)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 2), whole(estimator, inputs, CHUNK), atol=TOLERANCE, rtol=0)


def test_streams_with_different_pasts_run_in_one_batch(estimator: AnyEstimator) -> None:
    past, rounds = [0, 50, 150, 100], [[100, 50, 50, 50], [37, 100, 0, 19]]  # one ends without a frame more
    lens = [137, 200, 200, 169]
    inputs = Inputs.random(4, 200)
    expected = [whole(estimator, inputs.row(row, length), CHUNK)[0] for row, length in enumerate(lens)]
    states: list[EstimatorState | None] = [None]
    for row in range(1, 4):
        alone = inputs.row(row, past[row])
        states.append(advance(estimator, alone, [0], [past[row]], None)[1])

    for new in rounds:
        out, batch = advance(estimator, inputs, past, new, EstimatorState.stack(states))
        for row, (start, length) in enumerate(zip(past, new, strict=True)):
            torch.testing.assert_close(
                out[row, :, :length], expected[row][:, start : start + length], atol=TOLERANCE, rtol=0
            )
        past = [a + b for a, b in zip(past, new, strict=True)]
        states = list(batch.split(torch.tensor(past)))
    assert past == lens


@pytest.mark.parametrize("chunk", [0, CHUNK])
def test_batch_equals_single(estimator: AnyEstimator, chunk: int) -> None:
    lens = [120, 31, 1, 75]
    inputs = Inputs.random(4, 120)
    frames = Frames.whole(torch.tensor(lens), 120, chunk)
    batch, _ = evaluate(estimator, inputs.pieces([0] * 4, lens), frames)
    for row, length in enumerate(lens):
        single = whole(estimator, inputs.row(row, length), chunk)
        torch.testing.assert_close(batch[row : row + 1, :, :length], single, atol=TOLERANCE, rtol=0)


def test_a_chunk_does_not_see_the_next_and_full_attention_does(estimator: AnyEstimator) -> None:
    inputs = Inputs.random(1, 120)
    changed = Inputs.random(1, 120)
    changed.mu[:, :, 100:] += 1
    difference = [(whole(estimator, inputs, c) - whole(estimator, changed, c)).abs() for c in (CHUNK, 0)]
    assert difference[0][:, :, :100].max() == 0
    assert difference[0][:, :, 100:].max() > 0.1
    assert difference[1][:, :, :100].max() > 1e-3


def test_a_state_is_never_changed(estimator: AnyEstimator) -> None:
    inputs = Inputs.random(2, 120)
    first, state = advance(estimator, inputs, [0, 0], [50, 50], None)
    before = [tensor.clone() for tensor in (first, *state.tails, state.past)]
    one, _ = advance(estimator, inputs, [50, 50], [50, 20], state)
    other, _ = advance(estimator, inputs, [50, 50], [50, 20], state)
    assert torch.equal(one[0], other[0])
    after = (first, *state.tails, state.past)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_split_rows_own_their_memory(estimator: AnyEstimator) -> None:
    inputs = Inputs.random(2, 100)
    _, state = advance(estimator, inputs, [0, 0], [100, 50], None)
    for row in state.split(torch.tensor([100, 50])):
        for tensor in (*row.tails, row.past):
            assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


def test_a_stack_of_beginners_is_no_state() -> None:
    assert EstimatorState.stack([None, None]) is None
