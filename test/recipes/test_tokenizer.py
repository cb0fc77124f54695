from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from light_tts.encode.features import whisper_log_mel
from light_tts.models.speech_tokenizer import SpeechTokenizer
from recipes.mini.corpus import Corpus
from recipes.mini.encoders import frozen_path
from recipes.mini.models import ge2e
from recipes.mini.models.encoders_onnx import export_tokenizer
from recipes.mini.models.stored import Precision, StoredWeights, store
from recipes.mini.models.token_decoder import TokenDecoder, code_distribution
from recipes.mini.models.tokenizer import (
    NUM_CODES,
    WINDOW,
    TokenEncoder,
    TokenizerShape,
    codes_of,
    digits_of,
    quantised,
)
from recipes.mini.train import tokenizer
from recipes.mini.train.checkpoint import load_latest
from recipes.mini.train.loop import read_log
from test.recipes.encoder_parts import CPU, settings_for, write_work

SHAPE = TokenizerShape(width=48, blocks=2, heads=3, inner=64)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def random_encoder(
    precision: Precision = "float16", shape: TokenizerShape = SHAPE
) -> tuple[TokenEncoder, StoredWeights]:
    """Untrained, but with codes all over the range."""
    torch.manual_seed(1)
    encoder = TokenEncoder(shape)
    torch.nn.init.normal_(encoder.project.weight, std=0.4)
    weights = store(encoder.state_dict(), precision)
    encoder.load_state_dict(weights.floats())
    return encoder.eval(), weights


@torch.inference_mode()
def encoded(encoder: TokenEncoder, log_mel: Tensor) -> Tensor:
    return encoder(log_mel[None], torch.tensor([log_mel.shape[1]]))[0].long()


@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_the_onnx_file_gives_the_codes_of_the_module(tmp_path: Path, precision: Precision) -> None:
    encoder, weights = random_encoder(precision)
    path = tmp_path / "speech_tokenizer_v2.onnx"
    export_tokenizer(SHAPE, weights, path)
    shipped = SpeechTokenizer(path, NUM_CODES)
    seen = set()
    for num_frames in (1, 2, 3, 4, 5, 50, 333, 700, 2999):
        log_mel = torch.randn(128, num_frames)
        codes = shipped(log_mel)
        hidden = encoder.hidden(log_mel[None], torch.tensor([num_frames]))[0][0].detach()
        clear = ((hidden.abs() - 0.5).abs() > 1e-5).all(dim=1)  # 0.5 but for noise rounds either way
        assert torch.equal(codes[clear], encoded(encoder, log_mel)[clear])
        assert int((~clear).sum()) <= 1
        assert len(codes) == math.ceil(math.ceil(num_frames / 2) / 2)
        seen |= set(codes.tolist())
    assert len(seen) > 25


def test_the_weights_are_packed_in_the_onnx_file(tmp_path: Path) -> None:
    shape = TokenizerShape(width=96, blocks=2, heads=3, inner=384)
    sizes = {}
    for precision in ("int8", "float16"):
        encoder, weights = random_encoder(precision, shape)
        path = tmp_path / f"{precision}.onnx"
        export_tokenizer(shape, weights, path)
        sizes[precision] = path.stat().st_size / sum(p.numel() for p in encoder.parameters())
    assert 1.0 < sizes["int8"] < 1.15
    assert 2.0 < sizes["float16"] < 2.15


@pytest.mark.parametrize("num_frames", [9, 97, 98, 99, 100])
def test_a_padded_batch_gives_the_codes_of_each_row_alone(num_frames: int) -> None:
    encoder, _ = random_encoder()
    long, short = torch.randn(128, 300), torch.randn(128, num_frames)
    batch = torch.stack([long, torch.cat([short, torch.randn(128, 300 - num_frames)], dim=1)])
    with torch.inference_mode():
        codes = encoder(batch, torch.tensor([300, num_frames])).long()
    assert torch.equal(codes[0], encoded(encoder, long))
    alone = encoded(encoder, short)
    assert torch.equal(codes[1, : len(alone)], alone)


def test_the_onnx_file_hears_no_frame_beyond_the_told_length(tmp_path: Path) -> None:
    _, weights = random_encoder()
    path = tmp_path / "t.onnx"
    export_tokenizer(SHAPE, weights, path)
    model = SpeechTokenizer(path, NUM_CODES)._model
    log_mel = torch.randn(1, 128, 90)
    one = model.run(log_mel.numpy(), torch.tensor([61], dtype=torch.int32).numpy())
    log_mel[:, :, 61:] = 7.0
    two = model.run(log_mel.numpy(), torch.tensor([61], dtype=torch.int32).numpy())
    assert one[0, :16].tolist() == two[0, :16].tolist()


def test_a_code_depends_on_what_is_near_and_not_on_where_it_is() -> None:
    encoder, _ = random_encoder(shape=TokenizerShape(48, 1, 3, 64))
    middle = torch.randn(128, 4 * (2 * WINDOW + 20))
    middle[5, 300] = 9.0  # the loudest place, which sets the level, is there in either case
    before = torch.randn(128, 4 * 37)
    alone, later = encoded(encoder, middle), encoded(encoder, torch.cat([before, middle], dim=1))[37:]
    inside = slice(WINDOW + 5, -5)  # 3 codes of convolution in the block, 1 at the start
    assert torch.equal(alone[inside], later[inside])
    assert not torch.equal(alone[:WINDOW], later[:WINDOW])


def test_codes_do_not_depend_on_the_level_of_a_recording() -> None:
    encoder, _ = random_encoder()
    wav = torch.randn(16_000) * torch.linspace(0.01, 1, 16_000)
    loud, quiet = whisper_log_mel(wav), whisper_log_mel(0.05 * wav)
    assert float((loud - quiet).abs().min()) > 0.1
    assert torch.equal(encoded(encoder, loud), encoded(encoder, quiet))


def test_codes_are_numbers_of_six_digits() -> None:
    codes = torch.arange(NUM_CODES)
    digits = digits_of(codes)
    assert torch.equal(codes_of(digits).long(), codes)
    assert digits.unique().tolist() == [-1.0, 0.0, 1.0]
    assert NUM_CODES == 729
    assert int(codes_of(torch.full((6,), 0.9989))) == 728


def test_rounding_passes_the_gradient() -> None:
    hidden = torch.tensor([0.2, 0.7, -0.9], requires_grad=True)
    rounded = quantised(hidden)
    (rounded * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert rounded.tolist() == [0.0, 1.0, -1.0]
    assert hidden.grad is not None
    assert hidden.grad.tolist() == [1.0, 2.0, 3.0]


def test_the_distribution_of_codes_counts_frames_and_can_be_differentiated() -> None:
    codes = torch.tensor([[5, 5, 700, 31], [728, 5, 0, 0]])
    hidden = digits_of(codes).requires_grad_()
    mask = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]])
    share = code_distribution(hidden, mask, sharpness=40.0)
    assert float(share.detach().sum()) == pytest.approx(1.0, abs=1e-5)
    torch.testing.assert_close(
        share.detach().sort(descending=True).values[:5],
        torch.tensor([3, 1, 1, 1, 0]) / 6.0,
        atol=1e-4,
        rtol=0,
    )
    share.square().sum().backward()
    assert hidden.grad is not None
    assert bool((hidden.grad[1, 2:] == 0).all())


def test_pitch_and_phones_follow_the_speed() -> None:
    phone = torch.arange(20)[None].repeat(2, 1)
    f0 = torch.full((2, 20), 100.0)
    pitch, phones = tokenizer._retimed(f0, phone, torch.tensor([2.0, 0.5]), 8)
    assert phones[0].tolist() == [1, 3, 5, 7, 9, 11, 13, 15]
    assert phones[1].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert pitch[:, 0].tolist() == [200.0, 50.0]


def test_what_lies_beyond_an_utterance_does_not_count() -> None:
    decoder = TokenDecoder(32, 0.0).eval()
    digits, speaker = torch.randint(-1, 2, (1, 10, 6)).float(), torch.rand(1, 256)
    mask = (torch.arange(10) < 6).float()[None]
    decoded = decoder(digits, mask, speaker)

    def losses(garbage: float) -> dict[str, float]:
        f0, mel, phone = (
            torch.full((1, 20), 150.0),
            torch.zeros(1, 20, 80),
            torch.ones(1, 20, dtype=torch.long),
        )
        f0[0, 12:], mel[0, 12:], phone[0, 12:] = garbage, garbage, int(garbage)
        features = torch.zeros(1, 128, 40)
        batch = tokenizer.TokenBatch(features, features, torch.tensor([24]), speaker, mel, f0, phone)
        found = tokenizer._reconstruction(decoded, batch, (torch.arange(20) < 12).float()[None])
        return {name: float(value.detach()) for name, value in found.items()}

    assert losses(0.0) == losses(99.0)


def test_codes_of_a_recording_are_drawn_to_those_of_the_clean_voice() -> None:
    settings = dataclasses.replace(settings_for(1).tokenizer, dropout=0.5)
    stage = tokenizer.TokenizerStage(settings, Corpus(Path("nowhere"), CPU), ge2e.GE2E(), CPU)
    clean, frames = torch.randn(2, 128, 80), torch.tensor([80, 60])
    targets = torch.zeros(2, 40, 80), torch.zeros(2, 40), torch.ones(2, 40, dtype=torch.long)

    def losses(heard: Tensor) -> dict[str, Tensor]:
        return stage.loss(
            tokenizer.TokenBatch(heard, clean, frames, torch.rand(2, 256), *targets), torch.tensor(1.0)
        )

    stage._encoder.train()
    stage._encoder.blocks.apply(lambda module: setattr(module, "p", 0.0))  # dropout of what is heard
    same, other = losses(clean), losses(torch.randn(2, 128, 80))
    assert float(same["consistency"].detach()) == pytest.approx(0.0, abs=1e-6)
    assert float(same["survived"]) == 1.0
    assert float(other["consistency"].detach()) > 0.01
    assert stage._encoder.training
    other["consistency"].backward()
    assert stage._encoder.conv1.weight.grad is not None


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_work(tmp_path_factory.mktemp("work"), 12)


def test_training_learns_resumes_and_stops_when_frozen(work: Path, tmp_path: Path) -> None:
    settings = settings_for(30)
    first = dataclasses.replace(settings, tokenizer=dataclasses.replace(settings.tokenizer, max_steps=10))
    tokenizer.train(first, work, tmp_path, CPU, 1e9)
    assert len(read_log(tmp_path / "tokenizer" / "losses.jsonl")) == 1
    tokenizer.train(settings, work, tmp_path, CPU, 1e9)
    early, late = read_log(tmp_path / "tokenizer" / "losses.jsonl")
    assert (early["step"], late["step"]) == (10, 30)
    assert early["skipped"] == late["skipped"] == 0
    for name in ("phone", "mel", "loss"):
        assert late[name] < early[name], name
    checkpoint = load_latest(tmp_path / "tokenizer")
    assert checkpoint is not None
    frozen = frozen_path(work, "tokenizer")
    frozen.parent.mkdir()
    frozen.touch()
    tokenizer.train(settings_for(50), work, tmp_path, CPU, 1e9)
    again = load_latest(tmp_path / "tokenizer")
    assert again is not None
    assert again.step == 30
    frozen.unlink()
    frozen.parent.rmdir()
