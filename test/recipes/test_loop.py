from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from recipes.mini.errors import RecipeError
from recipes.mini.train.checkpoint import (
    KEPT,
    Checkpoint,
    checkpoints,
    load_latest,
    save_checkpoint,
)
from recipes.mini.train.loop import (
    Parts,
    Plan,
    TimeBudget,
    Trainer,
    adamw,
    cosine,
    plot_losses,
    read_log,
    seed_stage,
    train_stage,
)
from recipes.mini.train.train_state import averaged_weights

CPU = torch.device("cpu")
EXACT = Plan(max_steps=20, warmup_steps=3, log_every=5, compact=False)


class Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Guess:
    """Learns a linear map; uses every kind of randomness, and batch norm."""

    def __init__(self, bad_steps: tuple[int, ...] = (), stop_at: int = 10**9) -> None:
        self.rng = seed_stage(7, "guess")
        self.net = nn.Sequential(nn.Linear(6, 40), nn.BatchNorm1d(40), nn.Dropout(0.2), nn.Linear(40, 2))
        self.optimizer = adamw([self.net], 0.01)
        self.budget = TimeBudget(1e9)
        self.steps_here = 0
        self._bad_steps = bad_steps
        self._stop_at = stop_at

    def parts(self) -> Parts:
        return Parts({"net": self.net}, {"main": self.optimizer}, {"net": 0.99}, {"stage": self.rng})

    def next_batch(self) -> Tensor:
        x = torch.from_numpy(self.rng.standard_normal((16, 6))).float()
        return x * math.nan if self.steps_here in self._bad_steps else x

    def loss(self, batch: Tensor, progress: Tensor) -> dict[str, Tensor]:
        self.steps_here += 1
        if self.steps_here == self._stop_at:
            self.budget.stop()
        noise = 0.01 * torch.randn(16, 2)
        return {"loss": (self.net(batch) - batch[:, :2] + noise).square().mean()}


def run(folder: Path, stage: Guess, plan: Plan = EXACT) -> Guess:
    train_stage(stage, folder, plan, CPU, stage.budget)
    return stage


def test_twenty_steps_equal_ten_a_resume_and_ten_bit_by_bit(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", Guess())
    first = run(tmp_path / "pieces", Guess(stop_at=10))
    assert first.steps_here == 10
    torch.randn(99)  # what happens elsewhere in between does not matter
    second = run(tmp_path / "pieces", Guess())
    assert second.steps_here == 10
    for one, two in zip(whole.net.state_dict().values(), second.net.state_dict().values(), strict=True):
        assert torch.equal(one, two)
    one, two = load_latest(tmp_path / "whole"), load_latest(tmp_path / "pieces")
    assert one is not None
    assert two is not None
    assert one.tensors.keys() == two.tensors.keys()
    assert all(torch.equal(value, two.tensors[name]) for name, value in one.tensors.items())
    assert one.facts["generators"] == two.facts["generators"]
    logs = [read_log(tmp_path / name / "losses.jsonl") for name in ("whole", "pieces")]
    assert [(line["step"], line["loss"]) for line in logs[0]] == [
        (line["step"], line["loss"]) for line in logs[1]
    ]


def test_the_loss_falls_and_the_average_lags_behind(tmp_path: Path) -> None:
    stage = run(tmp_path, Guess(), Plan(max_steps=150, log_every=10))
    lines = read_log(tmp_path / "losses.jsonl")
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    checkpoint = load_latest(tmp_path)
    assert checkpoint is not None
    assert checkpoint.step == 150
    average = averaged_weights(checkpoint, "net")["0.weight"]
    live = stage.net.state_dict()["0.weight"]
    assert 1e-4 < float((average - live).abs().max()) < 0.3


@pytest.mark.parametrize("bad", [(0,), (4, 5), (19,)])
def test_a_batch_that_is_not_finite_changes_nothing_but_the_count(
    tmp_path: Path, bad: tuple[int, ...]
) -> None:
    stage = run(tmp_path, Guess(bad_steps=bad))
    assert all(bool(value.isfinite().all()) for value in stage.net.state_dict().values())
    checkpoint = load_latest(tmp_path)
    assert checkpoint is not None
    assert checkpoint.facts["skipped"] == len(bad)
    assert all(bool(value.isfinite().all()) for value in checkpoint.tensors.values())
    assert float(checkpoint.tensors["optimizer.main.0.step"]) == 20 - len(bad)
    lines = read_log(tmp_path / "losses.jsonl")
    assert lines[-1]["skipped"] == len(bad)
    assert all(math.isfinite(value) for line in lines for value in line.values())


def test_a_skipped_step_leaves_weights_and_moments_as_they_are(tmp_path: Path) -> None:
    net = nn.Linear(3, 1)
    parts = Parts({"net": net}, {"main": adamw([net], 0.1)})
    with Trainer(tmp_path, Plan(max_steps=9, warmup_steps=0), parts, CPU, TimeBudget(1e9)) as trainer:
        assert trainer.goes_on()
        trainer.update("main", net(torch.ones(1, 3)).sum())
        before = [value.clone() for value in trainer.state.snapshot().tensors.values()]
        trainer.update("main", net(torch.full((1, 3), math.inf)).sum())
        after = list(trainer.state.snapshot().tensors.values())
        assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))
        trainer.update("main", net(torch.ones(1, 3)).sum())
        assert not torch.equal(net.weight, before[-1])
        trainer.end_step({})


def test_two_optimizers_share_one_trainer(tmp_path: Path) -> None:
    def gan() -> tuple[Parts, nn.Linear, nn.Linear]:
        seed_stage(1, "gan")
        makes, judges = nn.Linear(4, 4), nn.Linear(4, 1)
        modules = {"generator": makes, "discriminator": judges}
        optimizers = {"generator": adamw([makes], 0.01), "discriminator": adamw([judges], 0.02)}
        return Parts(modules, optimizers, {"generator": 0.9}), makes, judges

    def train(folder: Path, steps: int) -> tuple[Tensor, Tensor]:
        parts, makes, judges = gan()
        with Trainer(folder, Plan(max_steps=6, compact=False), parts, CPU, TimeBudget(1e9)) as trainer:
            for _ in range(steps):
                assert trainer.goes_on()
                fake = makes(torch.randn(8, 4))
                real = torch.randn(8, 4) + 2
                judged = judges(real) - 1, judges(fake.detach())
                trainer.update("discriminator", judged[0].square().mean() + judged[1].square().mean())
                adversarial = (judges(fake) - 1).square().mean()
                trainer.update("generator", adversarial)
                trainer.end_step({"adversarial": adversarial})
        return makes.weight.detach(), judges.weight.detach()

    whole = train(tmp_path / "whole", 6)
    train(tmp_path / "pieces", 2)
    pieces = train(tmp_path / "pieces", 4)
    assert all(torch.equal(one, two) for one, two in zip(whole, pieces, strict=True))
    norms = read_log(tmp_path / "whole" / "losses.jsonl")[-1]
    assert norms["norm_generator"] > 0
    assert norms["norm_discriminator"] > 0


def test_training_stops_at_the_budget_and_saves_on_the_way(tmp_path: Path) -> None:
    clock = Clock()
    net = nn.Linear(2, 1)
    parts = Parts({"net": net}, {"main": adamw([net], 0.1)})
    plan = Plan(max_steps=1000, max_seconds=200.0, save_every_s=10.0)
    with Trainer(tmp_path, plan, parts, CPU, TimeBudget(25.0, clock)) as trainer:
        while trainer.goes_on():
            trainer.update("main", net(torch.ones(1, 2)).sum())
            clock.now += 1.0
            trainer.end_step({})
            if trainer.step == 12:
                assert [path.name for path in checkpoints(tmp_path)] == ["step-00000011"]
        assert trainer.step == 25
    clock.now += 1000.0  # between two sessions no training time passes
    with Trainer(tmp_path, plan, parts, CPU, TimeBudget(25.0, clock)) as trainer:
        assert trainer.step == 25
        assert trainer.goes_on()
        assert trainer.progress == pytest.approx(25.0 / 200.0)


def test_a_finished_stage_is_left_as_it_is(tmp_path: Path) -> None:
    run(tmp_path, Guess())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.bin")}
    assert run(tmp_path, Guess()).steps_here == 0
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.bin")}


def test_sigterm_ends_training_with_a_checkpoint(tmp_path: Path) -> None:
    class Killed(Guess):
        def loss(self, batch: Tensor, progress: Tensor) -> dict[str, Tensor]:
            if self.steps_here == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().loss(batch, progress)

    before = signal.getsignal(signal.SIGTERM)
    assert run(tmp_path, Killed()).steps_here == 4
    assert signal.getsignal(signal.SIGTERM) is before
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000004"]


def test_an_error_leaves_the_last_whole_checkpoint(tmp_path: Path) -> None:
    run(tmp_path, Guess(stop_at=5))

    class Broken(Guess):
        def loss(self, batch: Tensor, progress: Tensor) -> dict[str, Tensor]:
            raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        run(tmp_path, Broken())
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000005"]


def test_the_schedule_warms_up_and_falls_along_a_cosine() -> None:
    plan = Plan(max_steps=100, warmup_steps=10, final_lr=0.1)
    assert cosine(plan, 0, 0.0) == pytest.approx(0.1)
    assert cosine(plan, 9, 0.0) == pytest.approx(1.0)
    assert cosine(plan, 50, 0.5) == pytest.approx(0.55)
    assert cosine(plan, 100, 1.0) == pytest.approx(0.1)
    late = Plan(max_steps=100, warmup_steps=0, decay_from=0.8)
    assert cosine(late, 80, 0.8) == pytest.approx(1.0)
    assert cosine(late, 90, 0.9) == pytest.approx(0.51)


def test_the_learning_rate_of_a_group_is_a_share_of_its_own(tmp_path: Path) -> None:
    one, two = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    groups = [{"params": [one], "lr": 0.4}, {"params": [two], "lr": 0.1}]
    parts = Parts({}, {"main": torch.optim.AdamW(groups, fused=True)})
    plan = Plan(max_steps=10, warmup_steps=4)
    with Trainer(tmp_path, plan, parts, CPU, TimeBudget(1e9)) as trainer:
        for _ in range(2):
            assert trainer.goes_on()
            trainer.update("main", one.sum() + two.sum())
            trainer.end_step({})
        rates = [group["lr"] for group in parts.optimizers["main"].param_groups]
    assert rates[0] == pytest.approx(4 * rates[1])
    assert rates[0] == pytest.approx(0.4 * cosine(plan, 1, 0.1))


def test_parts_are_small_and_only_the_newest_checkpoints_stay(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(1000), "b": torch.arange(7), "c": torch.tensor(2.5)}
    for step in range(4):
        folder = save_checkpoint(tmp_path, Checkpoint(step, tensors, {"x": [1]}), part_bytes=1500)
    assert max(path.stat().st_size for path in folder.glob("*.bin")) <= 1500
    assert len(list(folder.glob("*.bin"))) == 3
    assert len(checkpoints(tmp_path)) == KEPT
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert (loaded.step, loaded.facts) == (3, {"x": [1]})
    assert all(torch.equal(tensors[name], loaded.tensors[name]) for name in tensors)


@pytest.mark.parametrize("damage", ["missing part", "changed byte", "cut state", "no state"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, damage: str) -> None:
    for step in (1, 2):
        folder = save_checkpoint(tmp_path, Checkpoint(step, {"a": torch.full((9,), step)}, {}))
    part, state = folder / "part-000.bin", folder / "state.json"
    if damage == "missing part":
        part.unlink()
    elif damage == "changed byte":
        part.write_bytes(part.read_bytes()[:-1] + b"\x07")
    elif damage == "cut state":
        state.write_bytes(state.read_bytes()[:40])
    else:
        state.unlink()
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert loaded.step == 1
    for path in checkpoints(tmp_path):
        (path / "state.json").write_text("{}")
    with pytest.raises(RecipeError, match="delete them to start again"):
        load_latest(tmp_path)


def test_a_checkpoint_of_other_modules_is_refused(tmp_path: Path) -> None:
    run(tmp_path, Guess(stop_at=2))

    class Wider(Guess):
        def __init__(self) -> None:
            super().__init__()
            self.net[0] = nn.Linear(6, 40, bias=False)
            self.optimizer = adamw([self.net], 0.01)

    with pytest.raises(RecipeError, match="not of this stage with these settings"):
        run(tmp_path, Wider())


def test_compact_checkpoints_halve_averages_and_moments_only(tmp_path: Path) -> None:
    net = nn.Linear(64, 64)
    parts = Parts({"net": net}, {"main": adamw([net], 0.1)}, {"net": 0.9})
    with Trainer(tmp_path, Plan(max_steps=1), parts, CPU, TimeBudget(1e9)) as trainer:
        assert trainer.goes_on()
        trainer.update("main", net(torch.ones(1, 64)).sum())
        trainer.end_step({})
    loaded = load_latest(tmp_path)
    assert loaded is not None
    kinds = {name: value.dtype for name, value in loaded.tensors.items()}
    assert kinds["model.net.weight"] == kinds["model.net.bias"] == torch.float32
    assert kinds["ema.net.weight"] == torch.float16
    assert kinds["optimizer.main.0.exp_avg_sq"] == torch.bfloat16
    again = nn.Linear(64, 64)
    parts = Parts({"net": again}, {"main": adamw([again], 0.1)}, {"net": 0.9})
    with Trainer(tmp_path, Plan(max_steps=1), parts, CPU, TimeBudget(1e9)) as trainer:
        assert torch.equal(again.weight, net.weight)
        assert parts.optimizers["main"].state_dict()["state"][0]["exp_avg"].dtype == torch.float32
        assert trainer.ema("net").weights["weight"].dtype == torch.float32


def test_an_optimizer_that_cannot_skip_a_step_is_refused(tmp_path: Path) -> None:
    net = nn.Linear(2, 2)
    with pytest.raises(TypeError, match="not fused"):
        Trainer(tmp_path, EXACT, Parts({}, {"main": torch.optim.AdamW(net.parameters())}), CPU, TimeBudget(1))


def test_stages_draw_different_numbers_from_one_seed() -> None:
    draws = [(seed_stage(5, name).random(), float(torch.rand(()))) for name in ("a", "b", "a")]
    assert draws[0] == draws[2]
    assert draws[0][0] != draws[1][0]
    assert draws[0][1] != draws[1][1]


def test_a_resume_forgets_the_log_after_its_checkpoint(tmp_path: Path) -> None:
    run(tmp_path, Guess(stop_at=10))
    with (tmp_path / "losses.jsonl").open("a") as file:
        file.write(json.dumps({"step": 15, "loss": 1.0}) + "\n" + '{"step": 20, "lo')
    run(tmp_path, Guess())
    assert [line["step"] for line in read_log(tmp_path / "losses.jsonl")] == [5, 10, 15, 20]


def test_loss_curves_are_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run(tmp_path, Guess())
    assert (tmp_path / "losses.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_without_a_log_there_is_no_picture(tmp_path: Path) -> None:
    assert plot_losses(tmp_path) is None


def test_generators_of_numpy_are_remembered_through_json() -> None:
    rng = np.random.default_rng(3)
    state = json.loads(json.dumps(rng.bit_generator.state))
    expected = rng.random(5)
    rng.bit_generator.state = state
    assert np.array_equal(rng.random(5), expected)
