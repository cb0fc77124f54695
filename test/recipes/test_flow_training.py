from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from light_tts.models.flow.estimator_state import EstimatorState
from light_tts.models.flow.flow_state import FlowInput
from light_tts.models.flow.token_to_mel import Flow
from light_tts.models.layers.ragged import Frames
from recipes.mini.corpus import Corpus
from recipes.mini.errors import RecipeError
from recipes.mini.jobs_table import Jobs
from recipes.mini.settings import Settings
from recipes.mini.train.checkpoint import load_latest
from recipes.mini.train.flow import STAGE, plan, prompt_for, read_tape, released_weights, train_on
from recipes.mini.train.flow_data import FlowBatch, MelTape, RowKind
from recipes.mini.train.flow_mels import write_flow_mels
from recipes.mini.train.flow_model import FullRows, Question, conditions, new_flow, objective, velocity
from recipes.mini.train.loop import TimeBudget, read_log
from recipes.mini.train.recorded import Gradients
from recipes.mini.train.utterances import Utterances, read_utterances
from recipes.mini.train.vocoder_data import FLOW_MELS, FlowMels
from test.recipes.interrupted import Interrupted
from test.recipes.tiny_codes import write_tiny_work

CPU = torch.device("cpu")
SETTINGS = Settings.tiny()
CFG = SETTINGS.model_config().flow


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    write_tiny_work(folder, 12)
    return folder


@pytest.fixture(scope="module")
def tape(work: Path) -> MelTape:
    return read_tape(SETTINGS, work, CPU)[0]


@pytest.fixture(scope="module")
def utterances(work: Path) -> Utterances:
    return read_utterances(work, Jobs(work / "text"), 729)


def random_flow() -> Flow:
    torch.manual_seed(0)
    return new_flow(CFG)


def random_batch(num_rows: int, num_tokens: int, *, final: bool = False) -> FlowBatch:
    torch.manual_seed(1)
    mel = torch.randn(num_rows, 2 * num_tokens, 80)
    return FlowBatch(
        torch.randint(0, 729, (num_rows, num_tokens)),
        torch.randint(0, 729, (num_rows, 3)),
        torch.full((num_rows,), final),
        torch.nn.functional.normalize(torch.randn(num_rows, 192), dim=1),
        mel,
        torch.randn_like(mel),
        torch.rand(num_rows),
        torch.zeros(num_rows, dtype=torch.int64),
        torch.zeros(num_rows, dtype=torch.bool),
    )


def error_of(flow: Flow, batch: FlowBatch, frames: Frames, sigma_min: float = 1e-6) -> Tensor:
    """Of the velocity, (B, 2 T, 80)."""
    question = Question.of(batch, sigma_min)
    return velocity(flow, question, frames, conditions(flow, batch, frames), ~batch.dropped) - question.wanted


@pytest.mark.parametrize("chunk", [0, 25])
def test_full_rows_compute_what_whole_frames_do(chunk: int) -> None:
    flow, batch = random_flow(), random_batch(2, 60)
    plain = Frames.whole(torch.tensor([60, 60]), 60, chunk)
    fast = FullRows.of(2, 60, chunk)
    results = []
    for frames in (plain, fast):
        results.append((conditions(flow, batch, frames)[0], error_of(flow, batch, frames)))
    torch.testing.assert_close(results[0], results[1])
    other = conditions(flow, batch, FullRows.of(2, 60, 25 - chunk))[0]
    assert not torch.allclose(other, results[0][0])


def test_a_row_that_is_not_final_sees_what_a_longer_one_shows_it() -> None:
    flow, batch = random_flow(), random_batch(2, 50)
    mu, _, _ = conditions(flow, batch, FullRows.of(2, 50, 25))
    longer = torch.cat([batch.tokens, batch.context], dim=1)
    expected, _ = flow.condition(longer, Frames.whole(torch.tensor([53, 53]), 53, 25))
    torch.testing.assert_close(mu, expected[:, :, :100], atol=1e-5, rtol=1e-4)
    ended, _, _ = conditions(flow, replace(batch, final=torch.tensor([True, False])), FullRows.of(2, 50, 25))
    assert not torch.allclose(ended[0], mu[0])
    torch.testing.assert_close(ended[1], mu[1])


class Spy(nn.Module):
    """An estimator that answers with zeros and remembers what it was given."""

    def forward(
        self, x: Tensor, mu: Tensor, t: Tensor, spks: Tensor, cond: Tensor, frames: Frames
    ) -> tuple[Tensor, EstimatorState | None]:
        self.given = (x, mu, t, spks, cond)
        self.frames = frames
        return torch.zeros_like(x), None


def test_the_estimator_is_asked_on_the_straight_way_from_noise_to_mel() -> None:
    flow = random_flow()
    spy = Spy()
    flow.decoder._modules["estimator"] = spy
    batch = replace(random_batch(3, 30), time=torch.tensor([0.0, 0.5, 1.0]))
    frames = FullRows.of(3, 30, 25)
    error = error_of(flow, batch, frames, sigma_min=0.0)
    x, _, t, _, _ = spy.given
    torch.testing.assert_close(t, torch.tensor([0.0, 1 - math.sqrt(0.5), 1.0]))
    torch.testing.assert_close(x[0].T, batch.noise[0])
    torch.testing.assert_close(x[2].T, batch.mel[2], atol=1e-6, rtol=1e-5)
    # from any point on the way, the velocity leads to the mel
    torch.testing.assert_close(x[1].T - (1 - t[1]) * error[1], batch.mel[1], atol=1e-5, rtol=1e-5)
    assert (spy.frames.num_new, spy.frames.chunk) == (60, 50)


def test_dropped_rows_follow_nothing_and_prompts_are_given() -> None:
    flow = random_flow()
    spy = Spy()
    flow.decoder._modules["estimator"] = spy
    batch = replace(
        random_batch(2, 30), dropped=torch.tensor([True, False]), prompt_frames=torch.tensor([20, 12])
    )
    frames = FullRows.of(2, 30, 0)
    error_of(flow, batch, frames)
    _, mu, _, spks, cond = spy.given
    for given in (mu, spks, cond):
        assert not bool(given[0].any())
        assert bool(given[1].any())
    assert torch.equal(cond[1, :, :12].T, batch.mel[1, :12])
    assert not bool(cond[1, :, 12:].any())


def test_gradients_reach_every_weight() -> None:
    flow, batch = random_flow(), random_batch(2, 30)
    gradients = Gradients(objective(flow, SETTINGS.flow), list(flow.parameters()), record=True)
    losses = gradients(RowKind(30, True), batch.tensors())
    assert not losses["loss"].requires_grad
    frames = FullRows.of(2, 30, 25)
    error = error_of(flow, batch, frames)
    torch.testing.assert_close(losses["velocity"], error.square().mean())
    mu = conditions(flow, batch, frames)[0]
    torch.testing.assert_close(losses["mean"], (mu.transpose(1, 2) - batch.mel).abs().mean())
    torch.testing.assert_close(losses["loss"], losses["velocity"] + 0.25 * losses["mean"])
    # keys shift all scores of a query alike, which softmax does not see
    blind = [
        name for name, p in flow.named_parameters() if p.grad is None or float(p.grad.abs().max()) < 1e-9
    ]
    assert all(name.endswith("linear_k.bias") for name in blind)


class Constant(nn.Module):
    """An estimator that answers `answer` where it is told mu, and `alone` where not."""

    def __init__(self, answer: float, alone: float) -> None:
        super().__init__()
        self.answer = nn.Parameter(torch.tensor(answer))
        self.alone = alone

    def forward(
        self, x: Tensor, mu: Tensor, t: Tensor, spks: Tensor, cond: Tensor, frames: Frames
    ) -> tuple[Tensor, EstimatorState | None]:
        told = mu.flatten(1).any(1)[:, None, None]
        return torch.where(told, self.answer, self.alone).expand_as(x), None


def test_guided_batches_lead_to_the_solvers_guided_velocity() -> None:
    flow = random_flow()
    batch = random_batch(4, 10)
    batch = replace(batch, mel=batch.noise + 3.0)  # the straight velocity is 3 everywhere
    settings = replace(SETTINGS.flow, guidance=0.7, weight_mean=0.0)
    guided = 3.0 + 0.7 * (3.0 - 1.0)
    for answer, sign in ((guided, 0), (guided + 0.1, 1), (guided - 0.1, -1)):
        estimator = Constant(answer, alone=1.0)
        flow.decoder._modules["estimator"] = estimator
        loss = objective(flow, settings)(RowKind(10, False, guided=True), batch.tensors())["loss"]
        (slope,) = torch.autograd.grad(loss, [estimator.answer])
        assert round(float(slope) * 10) == 0 if sign == 0 else float(slope) * sign > 0.01
    # what follows nothing learns the plain velocity
    flow.decoder._modules["estimator"] = Constant(9.0, alone=3.0)
    dropped = replace(batch, dropped=torch.ones(4, dtype=torch.bool))
    loss = objective(flow, settings)(RowKind(10, False, guided=True), dropped.tensors())["loss"]
    assert float(loss.detach()) < 1e-8


def test_half_precision_is_close_to_single() -> None:
    flow, batch = random_flow(), random_batch(2, 30)
    exact = objective(flow, SETTINGS.flow)(RowKind(30, True), batch.tensors())["velocity"]
    with torch.autocast("cpu", torch.bfloat16):
        frames = FullRows.of(2, 30, 25)
        error = error_of(flow, batch, frames)
    torch.testing.assert_close(error.square().mean(), exact, atol=0.0, rtol=0.02)


def test_loss_falls(tape: MelTape, utterances: Utterances, tmp_path: Path) -> None:
    settings = replace(SETTINGS, flow=replace(SETTINGS.flow, warmup_steps=5, validate_every=30, lr=4e-3))
    course = replace(plan(settings), max_steps=60, log_every=10)
    folder = tmp_path / STAGE
    assert train_on(settings, tape, utterances, folder, TimeBudget(math.inf), course) == 60
    lines = read_log(folder / "losses.jsonl")
    assert lines[0]["velocity"] < 5.0, "the first velocities lead to the mean mel"
    assert lines[-1]["loss"] < 0.85 * lines[0]["loss"]
    validated = [line for line in lines if "valid_loss" in line]
    assert validated[-1]["valid_loss_streaming"] < validated[0]["valid_loss_streaming"]
    assert validated[-1]["valid_mel"] < validated[0]["valid_mel"]
    assert all(line["skipped"] == 0 for line in lines)


def test_a_resumed_run_ends_where_an_unbroken_one_does(
    tape: MelTape, utterances: Utterances, tmp_path: Path
) -> None:
    course = replace(plan(SETTINGS), max_steps=8, compact=False)

    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    assert train_on(SETTINGS, tape, utterances, whole, TimeBudget(math.inf), course) == 8
    assert train_on(SETTINGS, tape, utterances, pieces, Interrupted(3), course) == 3
    assert train_on(SETTINGS, tape, utterances, pieces, TimeBudget(math.inf), course) == 8
    ends = [load_latest(folder) for folder in (whole, pieces)]
    assert ends[0] is not None
    assert ends[1] is not None
    for name, value in ends[0].tensors.items():
        assert torch.equal(value, ends[1].tensors[name]), name


def solved_distance(flow: Flow, tape: MelTape, utterances: Utterances, index: int) -> float:
    """Mean distance of the solver's mel from the true one, in natural logarithms."""
    prompt = prompt_for(tape, index, utterances.speaker)
    with torch.inference_mode():
        (mel,) = flow([FlowInput(tape.tokens(index), prompt)])
    return float((mel.T - tape.mels(index)).abs().mean())


def test_four_utterances_are_learnt_and_solved_in_ten_steps(tmp_path: Path) -> None:
    write_tiny_work(tmp_path, 5)
    flow_settings = replace(
        SETTINGS.flow, row_tokens=(40,), batch_tokens=240, lr=4e-3, warmup_steps=10, ema_decay=0.95,
        validate_every=10_000,
    )  # fmt: skip
    settings = replace(SETTINGS, flow=flow_settings)
    tape, utterances = read_tape(settings, tmp_path, CPU)
    course = replace(plan(settings), max_steps=160, log_every=40)
    train_on(settings, tape, utterances, tmp_path / STAGE, TimeBudget(math.inf), course)
    flow = Flow(CFG)
    flow.load_state_dict(released_weights(settings, tmp_path))
    mean = tape.mel.float().mean(dim=0)
    learnt = np.flatnonzero(~utterances.held_out(flow_settings.validation)).tolist()
    assert len(learnt) == 4
    by_the_mean = [float((tape.mels(index) - mean).abs().mean()) for index in learnt]
    solved = [solved_distance(flow, tape, utterances, index) for index in learnt]
    untrained = [solved_distance(random_flow(), tape, utterances, index) for index in learnt]
    assert sum(solved) < 0.4 * sum(untrained)
    assert sum(solved) < 0.85 * sum(by_the_mean)


def test_the_vocoder_can_read_what_the_flow_spoke(
    work: Path, tape: MelTape, utterances: Utterances, tmp_path: Path
) -> None:
    copy = tmp_path / "work"
    shutil.copytree(work, copy)
    course = replace(plan(SETTINGS), max_steps=1)
    train_on(SETTINGS, tape, utterances, tmp_path / STAGE, TimeBudget(math.inf), course)
    hours = float(tape.num.sum()) / 25 / 3600
    some = write_flow_mels(SETTINGS, copy, tmp_path, CPU, hours / 3)
    assert 2 <= some < len(utterances)
    count = write_flow_mels(SETTINGS, copy, tmp_path, CPU, hours)
    assert count == len(utterances)
    mels = FlowMels(copy / FLOW_MELS, 80, CPU)
    corpus = Corpus(work / "corpus", CPU)
    corpus.refresh()
    assert len(mels.matches(corpus)) == count
    assert sorted(mels.job.tolist()) == utterances.job.tolist()
    assert bool(mels.mel.isfinite().all())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_recorded_steps_compute_what_unrecorded_ones_do() -> None:
    flow = random_flow().cuda()
    plain = Gradients(objective(flow, SETTINGS.flow), list(flow.parameters()), record=False)
    recorded = Gradients(objective(flow, SETTINGS.flow), list(flow.parameters()), record=True)
    batch = random_batch(2, 60)
    for step in range(10):
        kind = RowKind(60, streaming=step % 2 > 0)
        inputs = [tensor.cuda() for tensor in replace(batch, mel=batch.mel + step).tensors()]
        losses = recorded(kind, inputs)
        gradients = [p.grad.clone() for p in flow.parameters() if p.grad is not None]
        expected = plain(kind, inputs)
        torch.testing.assert_close(losses, expected, atol=0.0, rtol=1e-3)
        for ours, parameter in zip(gradients, flow.parameters(), strict=True):
            assert parameter.grad is not None
            torch.testing.assert_close(ours, parameter.grad, atol=1e-3, rtol=0.05)


def test_no_checkpoint_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="train flow makes it"):
        released_weights(SETTINGS, tmp_path)
