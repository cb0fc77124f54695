from __future__ import annotations

import dataclasses
import math
import zipfile
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from light_tts.models.speaker_encoder import SpeakerEncoder
from recipes.mini.corpus import Corpus, Jobs
from recipes.mini.errors import RecipeError
from recipes.mini.models import ge2e
from recipes.mini.models.encoders_onnx import export_speaker
from recipes.mini.models.speaker import (
    EMBED_DIM,
    SpeakerNet,
    SpeakerShape,
    folded,
    plain_speaker_net,
)
from recipes.mini.models.stored import Precision, StoredWeights, store
from recipes.mini.train import speaker
from recipes.mini.train.loop import read_log
from test.recipes.encoder_parts import CPU, settings_for, write_work

SHAPE = SpeakerShape(width=32, blocks=3, pooled=48)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def trained_a_little() -> SpeakerNet:
    """Random weights, and statistics of batch norm that are not the initial ones."""
    torch.manual_seed(2)
    net = SpeakerNet(SHAPE)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    for scale in (1.0, 2.0, 3.0):
        net(scale * torch.randn(6, 90, 80) + 0.5)
    return net.eval()


def stored(precision: Precision) -> tuple[SpeakerNet, StoredWeights]:
    weights = store(folded(trained_a_little().state_dict()), precision)
    return plain_speaker_net(SHAPE, weights.floats()), weights


def test_folding_batch_norm_changes_nothing() -> None:
    net = trained_a_little()
    plain = plain_speaker_net(SHAPE, folded(net.state_dict()))
    fbank = 2 * torch.randn(4, 77, 80)
    with torch.no_grad():
        torch.testing.assert_close(plain(fbank), net(fbank), atol=1e-5, rtol=0)
    assert not any("running" in name for name in plain.state_dict())


@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_the_onnx_file_gives_the_embedding_of_the_module(tmp_path: Path, precision: Precision) -> None:
    net, weights = stored(precision)
    path = tmp_path / "campplus.onnx"
    export_speaker(SHAPE, weights, path)
    shipped = SpeakerEncoder(path, EMBED_DIM)
    for num_frames in (1, 20, 311):
        fbank = 2 * torch.randn(num_frames, 80)
        torch.testing.assert_close(shipped(fbank), net(fbank[None])[0], atol=1e-4, rtol=0)
    batch = 2 * torch.randn(3, 50, 80)
    torch.testing.assert_close(
        torch.from_numpy(shipped._model.run(batch.numpy())), net(batch), atol=1e-4, rtol=0
    )


def test_eight_bits_are_enough_though_channels_differ_a_thousandfold() -> None:
    net = trained_a_little()
    assert isinstance(net.norm, torch.nn.BatchNorm1d)
    assert net.norm.running_var is not None
    net.norm.running_var *= torch.logspace(-3, 3, len(net.norm.running_var))
    net.project.weight.data *= net.norm.running_var.sqrt()  # so that all channels matter
    weights = folded(net.state_dict())
    packed = plain_speaker_net(SHAPE, store(weights, "int8").floats())
    fbank = 2 * torch.randn(6, 80, 80)
    assert float((packed(fbank) * net(fbank)).sum(dim=1).min().detach()) > 0.995


def test_embeddings_have_unit_length_in_half_precision_too() -> None:
    net, _ = stored("float16")
    net.project.bias.fill_(1e6)  # far beyond what half precision holds
    lengths = net(torch.randn(5, 60, 80)).half().float().norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(5), atol=1e-3, rtol=0)


def test_a_padded_batch_gives_the_embedding_of_each_row_alone() -> None:
    net, _ = stored("float16")
    long, short = torch.randn(120, 80), torch.randn(35, 80)
    batch = torch.stack([long, torch.cat([short, torch.zeros(85, 80)])])
    mask = (torch.arange(120) < torch.tensor([[120], [35]])).float()
    together = net(batch, mask)
    torch.testing.assert_close(together[0], net(long[None])[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(together[1], net(short[None])[0], atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def teacher() -> ge2e.GE2E:
    torch.manual_seed(0)
    return ge2e.GE2E().requires_grad_(False).eval()


def by_hand(teacher: ge2e.GE2E, wave: Tensor, starts: list[int]) -> Tensor:
    """The mean over windows of 160 frames that begin at the frames `starts`."""
    mel = ge2e._linear_mel(ge2e._levelled(wave))
    parts = []
    for start in starts:
        _, (hidden, _) = teacher.lstm(mel[:, start : start + 160])
        out = torch.relu(teacher.linear(hidden[-1]))
        parts.append(out / out.norm())
    mean = torch.stack(parts).mean(dim=0)
    return mean / mean.norm()


@pytest.mark.parametrize(
    ("num_samples", "starts"),
    [(8000, [0]), (25_600, [0]), (31_000, [0]), (32_000, [0, 77]), (3 * 16_000, [0, 77, 154])],
)
def test_the_teacher_hears_windows_of_which_three_quarters_are_there(
    teacher: ge2e.GE2E, num_samples: int, starts: list[int]
) -> None:
    wave = 0.1 * torch.randn(1, num_samples)
    torch.testing.assert_close(teacher(wave), by_hand(teacher, wave, starts), atol=1e-5, rtol=0)


def test_the_teacher_raises_quiet_recordings_to_its_level(teacher: ge2e.GE2E) -> None:
    wave = 0.01 * torch.randn(1, 30_000)
    torch.testing.assert_close(teacher(wave), teacher(wave * 0.05), atol=1e-5, rtol=0)
    assert not torch.allclose(teacher(20 * wave), teacher(wave), atol=1e-4)


def test_the_teacher_comes_out_of_its_wheel(tmp_path: Path) -> None:
    state = ge2e.GE2E().state_dict()
    torch.save({"step": 1, "model_state": {**state, "similarity_weight": torch.ones(1)}}, tmp_path / "p.pt")
    wheel = tmp_path / "r.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(tmp_path / "p.pt", "resemblyzer/pretrained.pt")
    ge2e.convert_ge2e(wheel, tmp_path / "g.safetensors")
    assert {
        name: value.dtype for name, value in load_file(tmp_path / "g.safetensors").items()
    } == dict.fromkeys(state, torch.float16)
    loaded = ge2e.load_ge2e(tmp_path / "g.safetensors", CPU)
    torch.testing.assert_close(loaded.linear.weight, state["linear.weight"], atol=1e-4, rtol=0)
    (tmp_path / "other.whl").write_bytes(b"no archive")
    with pytest.raises(RecipeError, match=r"not the wheel of Resemblyzer==0\.1\.4"):
        ge2e.convert_ge2e(tmp_path / "other.whl", tmp_path / "h.safetensors")
    with pytest.raises(RecipeError, match="does not hold the weights"):
        ge2e.load_ge2e(tmp_path / "h.safetensors", CPU)


def test_only_natural_voices_are_assigned_to_speakers(tmp_path: Path) -> None:
    work = write_work(tmp_path, 4)
    corpus, jobs = Corpus(work / "corpus", CPU), Jobs(work / "text")
    corpus.refresh()
    settings = dataclasses.replace(settings_for(1).speaker, batch_size=10)
    teacher = ge2e.load_ge2e(work / ge2e.FILE_NAME, CPU)
    batch = speaker.SpeakerStage(settings, corpus, jobs, teacher, CPU).next_batch()
    assert len(batch.fbank) == len(batch.target) == 10
    assert len(batch.speaker) == 4
    assert set(batch.speaker.tolist()) <= set(jobs.speaker.tolist())
    torch.testing.assert_close(batch.fbank.mean(dim=1), torch.zeros(10, 80), atol=1e-3, rtol=0)


def test_the_margin_is_taken_from_the_right_speaker_alone(tmp_path: Path) -> None:
    work = write_work(tmp_path, 4)
    settings = dataclasses.replace(settings_for(1).speaker, softmax_scale=10.0, softmax_margin=0.2)
    corpus, jobs = Corpus(work / "corpus", CPU), Jobs(work / "text")
    stage = speaker.SpeakerStage(settings, corpus, jobs, ge2e.load_ge2e(work / ge2e.FILE_NAME, CPU), CPU)
    prototypes = F.normalize(stage._head.speakers.detach(), dim=1)
    loss, right = stage._speaker_loss(prototypes[:3], torch.tensor([0, 1, 3]))
    cosine = prototypes[:3] @ prototypes.T
    expected = [
        -math.log(
            math.exp(10 * (cosine[k, label] - 0.2))
            / (
                math.exp(10 * (cosine[k, label] - 0.2))
                + sum(math.exp(10 * cosine[k, j]) for j in range(4) if j != label)
            )
        )
        for k, label in enumerate([0, 1, 3])
    ]
    assert float(loss.detach()) == pytest.approx(sum(expected) / 3, rel=1e-4)
    assert float(right) == pytest.approx(2 / 3)


def test_training_learns_and_resumes(tmp_path: Path) -> None:
    work, checkpoints = write_work(tmp_path / "work", 12), tmp_path / "checkpoints"
    settings = settings_for(30)
    first = dataclasses.replace(settings, speaker=dataclasses.replace(settings.speaker, max_steps=10))
    speaker.train(first, work, checkpoints, CPU, 1e9)
    speaker.train(settings, work, checkpoints, CPU, 1e9)
    early, late = read_log(checkpoints / "speaker" / "losses.jsonl")
    assert (early["step"], late["step"]) == (10, 30)
    for name in ("distil", "relations", "softmax", "loss"):
        assert late[name] < early[name], name
    assert math.isfinite(late["accuracy"])
    assert late["skipped"] == 0
