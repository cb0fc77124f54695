from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from light_tts.models.flow.cfm import SolverState, solve, time_steps
from light_tts.models.flow.estimator_state import EstimatorState, Velocity
from light_tts.models.layers.ragged import Frames
from test.models.flow.estimators import CHUNK, AnyEstimator, Inputs, load_estimator, recording_of
from test.parity.recording import Recording

TOLERANCE = 2e-5
STREAM_TOLERANCE = 5e-5  # noise of the estimator, over all steps
STEPS = 10
RATE = 0.7


@pytest.fixture(scope="module")
def estimator(model_dir: Path) -> AnyEstimator:
    return load_estimator(model_dir)


@pytest.fixture(scope="module")
def recording(model_dir: Path) -> Recording:
    return recording_of(model_dir)


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


class Drift:
    """An estimator whose velocity is mu + t: the integral is known, and so is what it was given."""

    def __init__(self) -> None:
        self.bound: dict[str, Tensor] = {}

    def bind(
        self, mu: Tensor, spks: Tensor, cond: Tensor, frames: Frames, state: EstimatorState | None
    ) -> Velocity:
        self.bound = {"mu": mu, "spks": spks, "cond": cond}
        self.frames = frames

        def velocity(
            x: Tensor, time: Tensor, state: EstimatorState | None, keep_state: bool
        ) -> tuple[Tensor, EstimatorState | None]:
            assert len(x) == len(mu)
            if not mu.chunk(2)[1].any():  # guided: both halves start from the same noise
                assert torch.equal(*x.chunk(2))
            return mu.transpose(1, 2) + time[:, :, None], None

        return velocity

    def embed_times(self, t: Tensor) -> Tensor:
        return t[:, None]


def solve_whole(
    estimator: AnyEstimator,
    inputs: Inputs,
    lens: list[int] | None = None,
    chunk: int = 0,
    steps: int = STEPS,
    rate: float = RATE,
) -> Tensor:
    lengths = torch.tensor(lens or [inputs.num_frames] * len(inputs.x))
    frames = Frames.whole(lengths, inputs.num_frames, chunk)
    return solve(estimator, inputs.x, inputs.mu, inputs.spks, inputs.cond, frames, rate, steps)[0]


def recorded_inputs(recording: Recording, mu: str) -> Inputs:
    mu_frames = recording.tensor(mu).transpose(1, 2)
    prompt = recording.tensor("prompt_feat").transpose(1, 2)
    cond = torch.zeros_like(mu_frames)
    cond[:, :, : prompt.shape[2]] = prompt
    noise = recording.tensor("rand_noise_prefix")[:, :, : mu_frames.shape[2]]
    return Inputs(noise, mu_frames, torch.zeros(1), recording.tensor("spk_proj"), cond)


def test_times_are_the_recorded_ones_to_the_bit(recording: Recording) -> None:
    times, deltas = time_steps(STEPS)
    assert torch.equal(times, recording.tensor("cfm.t"))
    assert sum(deltas) == pytest.approx(1.0)


def test_steps_match_the_recorded_reference(estimator: AnyEstimator, recording: Recording) -> None:
    inputs = recorded_inputs(recording, "enc.full.mu")
    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def observe(step: int, t: float, x: Tensor, conditioned: Tensor, unconditioned: Tensor) -> None:
        assert step == len(seen)
        assert t == recording.tensor("cfm.t")[step]
        seen.append((x, conditioned, unconditioned))

    num_frames = inputs.num_frames
    frames = Frames.whole(torch.tensor([num_frames]), num_frames)
    mel, state = solve(
        estimator, inputs.x, inputs.mu, inputs.spks, inputs.cond, frames, RATE, STEPS, observer=observe
    )
    assert state is None
    before = torch.cat([seen[step][0] for step in (0, 1, 5, 9)])
    torch.testing.assert_close(before, recording.tensor("cfm.x_before_steps_0_1_5_9"), atol=TOLERANCE, rtol=0)
    for index, name in ((1, "cfm.est_cond_step0"), (2, "cfm.est_uncond_step0")):
        torch.testing.assert_close(seen[0][index], recording.tensor(name), atol=TOLERANCE, rtol=0)
    expected = recording.tensor("mel.stream0.final1")
    torch.testing.assert_close(mel[:, :, -expected.shape[2] :], expected, atol=TOLERANCE, rtol=0)


def test_streaming_masks_match_the_recorded_reference(estimator: AnyEstimator, recording: Recording) -> None:
    # CosyVoice3's mu comes without attention, so its recording holds only one
    mu = "enc.full_stream.mu" if "enc.full_stream.mu" in recording else "enc.full.mu"
    mel = solve_whole(estimator, recorded_inputs(recording, mu), chunk=CHUNK)
    expected = recording.tensor("mel.stream1.final1")
    torch.testing.assert_close(mel[:, :, -expected.shape[2] :], expected, atol=TOLERANCE, rtol=0)
    assert (expected - recording.tensor("mel.stream0.final1")).abs().max() > 1e-3


def test_guidance_extrapolates_from_the_unconditioned_velocity() -> None:
    inputs = Inputs.random(2, 7)
    drift = Drift()
    times, deltas = time_steps(STEPS)
    frames = Frames(torch.tensor([0, 4]), torch.tensor([7, 5]), 7, CHUNK, 4)
    mel, _ = solve(drift, inputs.x, inputs.mu, inputs.spks, inputs.cond, frames, RATE, STEPS)
    integral = float((times * torch.tensor(deltas)).sum())
    torch.testing.assert_close(mel, inputs.x + (1 + RATE) * inputs.mu + integral)
    for name, given in drift.bound.items():
        conditioned, unconditioned = given.chunk(2)
        assert torch.equal(conditioned, getattr(inputs, name))
        assert not unconditioned.any()
    assert drift.frames.past_lens.tolist() == [0, 4, 0, 4]
    assert drift.frames.new_lens.tolist() == [7, 5, 7, 5]


def test_without_guidance_no_unconditioned_row_is_computed() -> None:
    inputs, drift = Inputs.random(2, 7), Drift()
    frames = Frames.whole(torch.tensor([7, 5]), 7, 0)
    given = (inputs.x, inputs.mu, inputs.spks, inputs.cond, frames)
    plain, _ = solve(drift, *given, 0.0, STEPS)
    assert all(len(value) == 2 for value in drift.bound.values())
    nearly, _ = solve(Drift(), *given, 1e-9, STEPS)
    torch.testing.assert_close(plain, nearly)


def test_batch_equals_single(estimator: AnyEstimator) -> None:
    lens = [60, 23, 41]
    inputs = Inputs.random(3, 60)
    batch = solve_whole(estimator, inputs.pieces([0] * 3, lens), lens, steps=4)
    for row, length in enumerate(lens):
        single = solve_whole(estimator, inputs.row(row, length), steps=4)
        torch.testing.assert_close(batch[row : row + 1, :, :length], single, atol=STREAM_TOLERANCE, rtol=0)


@pytest.mark.parametrize("rate", [RATE, 0.0])
def test_streams_of_different_age_equal_their_whole_runs(estimator: AnyEstimator, rate: float) -> None:
    """Three streams join at different times; every round is one batch."""
    lens = [170, 130, 64]
    inputs = Inputs.random(3, 170)
    expected = [
        solve_whole(estimator, inputs.row(row, lens[row]), chunk=CHUNK, steps=3, rate=rate)[0]
        for row in range(3)
    ]
    past = [0, 0, 0]
    states: list[SolverState | None] = [None, None, None]
    for new in ([50, 0, 0], [100, 50, 0], [20, 50, 50], [0, 30, 14]):
        active = [row for row in range(3) if new[row]]
        starts, lengths = [past[row] for row in active], [new[row] for row in active]
        rows = Inputs(*(value[active] for value in (inputs.x, inputs.mu, inputs.t, inputs.spks, inputs.cond)))
        piece = rows.pieces(starts, lengths)
        frames = Frames(torch.tensor(starts), torch.tensor(lengths), max(lengths), CHUNK, max(starts))
        stacked = SolverState.stack([states[row] for row in active])
        mel, batch = solve(
            estimator, piece.x, piece.mu, piece.spks, piece.cond, frames, rate, 3, stacked, keep_state=True
        )
        assert batch is not None
        for index, (row, state) in enumerate(zip(active, batch.split(), strict=True)):
            wanted = expected[row][:, past[row] : past[row] + new[row]]
            torch.testing.assert_close(mel[index, :, : new[row]], wanted, atol=STREAM_TOLERANCE, rtol=0)
            past[row] += new[row]
            states[row] = state
            assert state.past_lens.tolist() == [past[row]]
    assert past == lens


def test_the_caller_keeps_its_noise_and_state(estimator: AnyEstimator) -> None:
    inputs = Inputs.random(1, 70)
    noise = inputs.x.clone()
    first = Frames.whole(torch.tensor([50]), 50, CHUNK)
    start = inputs.row(0, 50)
    _, state = solve(estimator, start.x, start.mu, start.spks, start.cond, first, RATE, 2, keep_state=True)
    assert state is not None
    assert torch.equal(inputs.x, noise)
    before = [tensor.clone() for step in state.steps for tensor in (*step.tails, step.past)]
    rest = inputs.pieces([50], [20])
    frames = Frames(torch.tensor([50]), torch.tensor([20]), 20, CHUNK, 50)
    one, other = (
        solve(estimator, rest.x, rest.mu, rest.spks, rest.cond, frames, RATE, 2, state)[0] for _ in range(2)
    )
    assert torch.equal(one, other)
    after = [tensor for step in state.steps for tensor in (*step.tails, step.past)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_stacking_one_stream_or_only_beginners_copies_nothing(estimator: AnyEstimator) -> None:
    start = Inputs.random(1, 50)
    frames = Frames.whole(torch.tensor([50]), 50, CHUNK)
    _, state = solve(estimator, start.x, start.mu, start.spks, start.cond, frames, RATE, 1, keep_state=True)
    assert SolverState.stack([state]) is state
    assert SolverState.stack([None]) is None
    assert SolverState.stack([None, None]) is None


def test_bfloat16_estimator_stays_close_and_x_stays_float32(model_dir: Path, recording: Recording) -> None:
    estimator = load_estimator(model_dir).bfloat16()
    inputs = recorded_inputs(recording, "enc.full.mu")
    low = inputs.to(torch.bfloat16)
    frames = Frames.whole(torch.tensor([inputs.num_frames]), inputs.num_frames)
    mel, _ = solve(estimator, inputs.x, low.mu, low.spks, low.cond, frames, RATE, STEPS)
    assert mel.dtype == torch.float32
    expected = recording.tensor("mel.stream0.final1")
    error = mel[:, :, -expected.shape[2] :] - expected
    assert error.square().mean().sqrt() < 0.03 * expected.square().mean().sqrt()
