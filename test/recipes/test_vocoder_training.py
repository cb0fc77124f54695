from __future__ import annotations

import dataclasses
import math
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from light_tts.encode.features import prompt_mel
from light_tts.models.vocoder.hift import HiFT
from light_tts.models.vocoder.resblock import ResBlock
from light_tts.models.vocoder.source_noise import SourceNoise
from recipes.mini.corpus import FRAME, Corpus
from recipes.mini.errors import RecipeError
from recipes.mini.losses import adversarial_loss, discriminator_loss, feature_loss, mel_distance
from recipes.mini.models.discriminators import Discriminators
from recipes.mini.settings import Settings
from recipes.mini.testing import write_tiny_corpus
from recipes.mini.train import vocoder
from recipes.mini.train.checkpoint import load_latest
from recipes.mini.train.loop import TimeBudget, read_log
from recipes.mini.train.train_state import averaged_weights
from recipes.mini.train.vocoder import STAGE, learning_rates, new_generator
from recipes.mini.train.vocoder_data import FLOW_MELS, Batches, FlowMels, batch_shape, perturb
from recipes.mini.train.vocoder_step import DISCRIMINATORS, GENERATOR, PITCH, VocoderStep, decoder_parts

CPU = torch.device("cpu")


def tiny(**changes: object) -> Settings:
    """Smaller than `Settings.tiny()`, and timeless: progress is a matter of steps alone."""
    settings = Settings.tiny()
    model = dataclasses.replace(settings.model, hift_channels=16, hift_f0_channels=8)
    section = dataclasses.replace(settings.vocoder, max_seconds=math.inf, **changes)  # type: ignore[arg-type]
    return dataclasses.replace(settings, model=model, vocoder=section)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    write_tiny_corpus(folder, 0, 10)
    return folder


@pytest.fixture
def corpus(work: Path) -> Corpus:
    corpus = Corpus(work / "corpus", CPU)
    corpus.refresh()
    return corpus


def make_batches(settings: Settings, corpus: Corpus, flow_mels: FlowMels | None = None) -> Batches:
    config = settings.model_config()
    return Batches(settings.vocoder, corpus, config.hift, config.mel, 7, flow_mels)


def write_flow_mels(folder: Path, corpus: Corpus, longer: int = 0) -> None:
    """The teacher's own mels, two louder, of every utterance."""
    mels = []
    for number in range(len(corpus)):
        wav, _ = corpus.whole(np.array([number]))
        mel = prompt_mel(wav[0], Settings.tiny().model_config().mel) + 2
        mels.append(torch.cat([mel, mel[:longer]]))
    folder.mkdir(parents=True)
    tensors = {
        "job": torch.from_numpy(corpus.job),
        "frames": torch.tensor([len(mel) for mel in mels]),
        "mel": torch.cat(mels).half(),
    }
    save_file(tensors, folder / "part-000.safetensors")


def train(
    settings: Settings, corpus: Corpus, folder: Path, stop_after: int | None = None
) -> dict[str, Tensor]:
    """Everything that the training leaves, uncompacted, so that it can be compared bit by bit."""
    plan = dataclasses.replace(vocoder.plan(settings), compact=False, log_every=5)
    budget = TimeBudget(math.inf) if stop_after is None else StepBudget(stop_after)
    vocoder.train_on(settings, corpus, folder, budget, plan)
    checkpoint = load_latest(folder)
    assert checkpoint is not None
    return checkpoint.tensors


class StepBudget(TimeBudget):
    """Ends after so many looks at what is left: one a step."""

    def __init__(self, steps: int) -> None:
        super().__init__(math.inf)
        self._steps = steps

    @property
    def left(self) -> float:
        self._steps -= 1
        return float(self._steps >= 0)


def test_residual_blocks_have_the_gradient_of_what_they_compute() -> None:
    """Their activations work in place, which autograd must survive."""
    torch.manual_seed(0)
    block = ResBlock(2, 3, (1, 2), causal=False).double()
    x = torch.randn(1, 2, 1, 9, dtype=torch.float64, requires_grad=True)
    weights = [weight.detach().clone().requires_grad_() for weight in block.parameters()]
    names = [name for name, _ in block.named_parameters()]

    def run(x: Tensor, *weights: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(block, dict(zip(names, weights, strict=True)), (x,))
        return result

    assert torch.autograd.gradcheck(run, (x, *weights))


def test_learning_rates_fall_in_two_phases() -> None:
    s = dataclasses.replace(Settings.default().vocoder, gan_from=0.25)
    assert learning_rates(s, 0, 0.0)[GENERATOR] == pytest.approx(s.lr_alone / s.warmup_steps)
    late = 10 * s.warmup_steps
    assert learning_rates(s, late, 0.0)[GENERATOR] == pytest.approx(s.lr_alone)
    assert learning_rates(s, late, 0.2499)[GENERATOR] == pytest.approx(s.lr_gan, rel=1e-2)
    assert learning_rates(s, late, 0.25)[GENERATOR] == pytest.approx(s.lr_gan)
    assert learning_rates(s, late, 0.25)[DISCRIMINATORS] == pytest.approx(s.lr_discriminators)
    assert list(learning_rates(s, late, 1.0).values()) == pytest.approx([s.lr_final] * 3)
    falling = [learning_rates(s, late, share / 20)[GENERATOR] for share in range(21)]
    assert falling == sorted(falling, reverse=True)


def test_a_game_from_the_first_step_has_rates_too() -> None:
    s = dataclasses.replace(Settings.default().vocoder, gan_from=0.0)
    assert learning_rates(s, s.warmup_steps, 0.0)[GENERATOR] == pytest.approx(s.lr_gan)


def test_late_batches_have_longer_pieces_and_as_much_audio() -> None:
    s = Settings.default().vocoder
    early, late = batch_shape(s, 0.0), batch_shape(s, s.long_crops_from)
    assert late[1] > early[1]
    assert late[0] * late[1] == early[0] * early[1]


def test_a_batch_is_a_matter_of_its_step(corpus: Corpus) -> None:
    batches = make_batches(tiny(), corpus)
    first, other, again = batches.draw(3, 0.0), batches.draw(4, 0.0), batches.draw(3, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(first.tensors(), again.tensors(), strict=True))
    assert not torch.equal(first.wav, other.wav)
    assert not torch.equal(first.noise, other.noise)
    assert bool(first.guided)
    assert not bool(batches.draw(3, 0.5).guided)


def test_mels_belong_to_their_waves(corpus: Corpus) -> None:
    settings = tiny(perturbed=0.0)
    batch = make_batches(settings, corpus).draw(0, 0.0)
    assert batch.mel.shape == (2, 80, 16)
    assert batch.wav.shape == (2, 16 * FRAME)
    assert batch.f0.shape == (2, 16)
    assert batch.noise.shape == (2, 16 * FRAME, 9)
    alone = prompt_mel(batch.wav, settings.model_config().mel).transpose(1, 2)
    # The outer frames of a crop hear what is around it.
    torch.testing.assert_close(batch.mel[..., 2:-2], alone[..., 2:-2], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(batch.mel[..., :1], alone[..., :1], atol=1e-2)


def test_held_out_utterances_are_never_drawn(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus.job = np.arange(len(corpus)) + 45  # 50 is among them
    batches = make_batches(tiny(), corpus)
    drawn: set[int] = set()
    crops = corpus.crops

    def watched(index: np.ndarray, *args: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        drawn.update(index.tolist())
        return crops(index, *args)

    monkeypatch.setattr(corpus, "crops", watched)
    for step in range(1, 60):
        batches.draw(step, 0.0)
    assert batches.held_out(5).tolist() == [5]
    assert drawn == set(range(10)) - {5}


def test_a_corpus_of_held_out_utterances_alone_is_refused(corpus: Corpus) -> None:
    corpus.job = np.arange(len(corpus)) * 50
    with pytest.raises(RecipeError, match="none to train on"):
        make_batches(tiny(), corpus)


def test_perturbation_changes_its_share_of_the_rows_a_little() -> None:
    mel = torch.randn(200, 20, 30, generator=torch.Generator().manual_seed(1))
    same = perturb(mel, 0.0, 0.3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(same, mel)
    changed = perturb(mel, 0.3, 0.3, torch.Generator().manual_seed(0))
    rows = (changed - mel).abs().amax((1, 2)) > 1e-6
    assert 0.4 < rows.float().mean() < 0.6  # 1 - 0.7 * 0.7 of them
    blurred = perturb(mel, 1.0, 0.0, torch.Generator().manual_seed(0))
    assert (blurred.var((1, 2)) < mel.var((1, 2))).all()


def test_the_flows_mels_are_used_for_their_share_of_the_rows(corpus: Corpus, tmp_path: Path) -> None:
    write_flow_mels(tmp_path / FLOW_MELS, corpus)
    settings = tiny(batch_size=4, flow_mels=0.5, perturbed=0.0)
    flow_mels = FlowMels(tmp_path / FLOW_MELS, 80, CPU)
    for step in range(1, 6):
        batch = make_batches(settings, corpus, flow_mels).draw(step, 0.0)
        alone = prompt_mel(batch.wav, settings.model_config().mel).transpose(1, 2)
        surplus = (batch.mel - alone)[..., 2:-2].mean((1, 2))
        torch.testing.assert_close(surplus, torch.tensor([0.0, 0, 2, 2]), atol=2e-2, rtol=0)
    assert batch.f0.shape == (4, 16)
    assert batch.f0[2:].any()


def test_mels_of_another_length_than_their_utterance_are_left_out(corpus: Corpus, tmp_path: Path) -> None:
    write_flow_mels(tmp_path / FLOW_MELS, corpus, longer=1)
    flow_mels = FlowMels(tmp_path / FLOW_MELS, 80, CPU)
    assert len(flow_mels.matches(corpus)) == 0
    settings = tiny(perturbed=0.0)
    plain = make_batches(settings, corpus).draw(1, 0.0)
    assert torch.equal(make_batches(settings, corpus, flow_mels).draw(1, 0.0).mel, plain.mel)


def test_damaged_mels_of_the_flow_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="holds no part"):
        FlowMels(tmp_path, 80, CPU)
    path = tmp_path / "part-000.safetensors"
    path.write_bytes(b"no tensors")
    with pytest.raises(RecipeError, match="no mels of the flow"):
        FlowMels(tmp_path, 80, CPU)
    save_file({"job": torch.tensor([1]), "frames": torch.tensor([4]), "mel": torch.zeros(3, 80)}, path)
    with pytest.raises(RecipeError, match="do not fit"):
        FlowMels(tmp_path, 80, CPU)


def test_each_part_gets_the_gradient_of_its_own_loss(corpus: Corpus) -> None:
    settings = tiny()
    s = settings.vocoder
    torch.manual_seed(0)
    generator = new_generator(settings.model_config().hift)
    discriminators = Discriminators(s.period_channels, s.spectrum_channels)
    batch = make_batches(settings, corpus).draw(1, 0.5)
    losses = VocoderStep(generator, discriminators, s)(batch, adversarial=True)
    found = {name: _gradients(module) for name, module in _named(generator, discriminators)}
    assert {PITCH, GENERATOR, DISCRIMINATORS} < set(losses)

    # The same, one after the other and with everything cut that must not flow.
    f0 = generator.f0(batch.mel)
    source = generator.source(f0.detach(), [SourceNoise.recorded(row) for row in batch.noise])
    wav = generator.decode(batch.mel, source)
    pitch_loss = s.weight_f0 * (f0 - batch.f0).abs().mean()
    real, fake = discriminators(batch.wav), discriminators(wav.detach())
    players_loss = discriminator_loss([j.score for j in real], [j.score for j in fake])
    heard = discriminators(wav)
    generator_loss = (
        s.weight_mel * mel_distance(wav, batch.wav, 24_000)
        + adversarial_loss([j.score for j in heard])
        + s.weight_features * feature_loss([j.features for j in heard], [j.features for j in real])
    )
    expected = {PITCH: pitch_loss, DISCRIMINATORS: players_loss, GENERATOR: generator_loss}
    for name, module in _named(generator, discriminators):
        torch.testing.assert_close(losses[name], expected[name].detach())
        for parameter in module.parameters():
            parameter.grad = None
        expected[name].backward(retain_graph=True, inputs=list(module.parameters()))
        for ours, theirs in zip(found[name], _gradients(module), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_gradients_reach_every_weight_of_the_generator(corpus: Corpus) -> None:
    settings = tiny()
    generator = new_generator(settings.model_config().hift)
    step = VocoderStep(generator, Discriminators((4, 4), (4, 4)), settings.vocoder)
    step(make_batches(settings, corpus).draw(1, 0.0), adversarial=False)
    dead = [
        name for name, weight in generator.named_parameters() if weight.grad is None or not weight.grad.any()
    ]
    assert dead == []


@pytest.mark.parametrize("gan_from", [1.0, 0.4])
def test_forty_steps_bring_the_copy_nearer_and_leave_what_can_be_exported(
    corpus: Corpus, tmp_path: Path, gan_from: float
) -> None:
    settings = tiny(max_steps=40, gan_from=gan_from, lr_alone=2e-3, validate_every=20, ema_decay=0.9)
    train(settings, corpus, tmp_path)
    lines = read_log(tmp_path / "losses.jsonl")
    assert all(math.isfinite(value) for line in lines for value in line.values())
    assert lines[-1]["step"] == 40
    assert lines[-1]["skipped"] == 0
    assert lines[-1]["mel"] < 0.75 * lines[0]["mel"]
    valid = [line["valid_mel"] for line in lines if "valid_mel" in line]
    assert len(valid) == 2
    assert valid[-1] < valid[0]
    assert ("adversarial" in lines[-1]) == (gan_from < 1)
    with wave.open(str(tmp_path / "sample-0.wav")) as file:
        assert file.getframerate() == 24_000
        assert file.getnframes() == corpus.length[0]

    checkpoint = load_latest(tmp_path)
    assert checkpoint is not None
    with torch.device("meta"):
        exported = HiFT(settings.model_config().hift)
    exported.load_state_dict(averaged_weights(checkpoint, GENERATOR), strict=True, assign=True)


def test_a_resumed_training_is_the_unbroken_one(work: Path, tmp_path: Path) -> None:
    """Broken off twice: before the game and in it."""
    settings = tiny(max_steps=12, gan_from=0.5, long_crops_from=0.8, validate_every=4)

    def fresh() -> Corpus:
        return Corpus(work / "corpus", CPU)

    unbroken = train(settings, fresh(), tmp_path / "one")
    train(settings, fresh(), tmp_path / "two", stop_after=4)
    train(settings, fresh(), tmp_path / "two", stop_after=4)
    resumed = train(settings, fresh(), tmp_path / "two")
    assert resumed.keys() == unbroken.keys()
    assert [name for name, value in unbroken.items() if not torch.equal(value, resumed[name])] == []
    both = [read_log(tmp_path / name / "losses.jsonl")[-1] for name in ("one", "two")]
    assert both[0]["step"] == both[1]["step"] == 12


def test_the_stage_trains_from_its_folder_and_stops_at_once_without_time(work: Path, tmp_path: Path) -> None:
    settings = tiny(max_steps=3, gan_from=0.5)
    vocoder.train(settings, work, tmp_path, CPU, 0.0)
    checkpoint = load_latest(tmp_path / STAGE)
    assert checkpoint is not None
    assert checkpoint.step == 0
    vocoder.train(settings, work, tmp_path, CPU, 600.0)
    checkpoint = load_latest(tmp_path / STAGE)
    assert checkpoint is not None
    assert checkpoint.step == 3


def test_the_stage_takes_the_flows_mels_that_lie_there(work: Path, corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "corpus").symlink_to(work / "corpus")
    (tmp_path / FLOW_MELS).mkdir()
    with pytest.raises(RecipeError, match="holds no part"):  # looked at, and found empty
        vocoder.train(tiny(max_steps=1), tmp_path, tmp_path / "checkpoints", CPU, 60.0)
    (tmp_path / FLOW_MELS).rmdir()
    write_flow_mels(tmp_path / FLOW_MELS, corpus)
    vocoder.train(tiny(max_steps=1), tmp_path, tmp_path / "checkpoints", CPU, 60.0)


def _named(generator: HiFT, discriminators: Discriminators) -> list[tuple[str, torch.nn.Module]]:
    return [
        (PITCH, generator.f0_predictor),
        (DISCRIMINATORS, discriminators),
        (GENERATOR, torch.nn.ModuleList(decoder_parts(generator))),
    ]


def _gradients(module: torch.nn.Module) -> list[Tensor]:
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    assert len(gradients) == len(list(module.parameters()))
    return gradients
