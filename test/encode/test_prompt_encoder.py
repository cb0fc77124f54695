from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from light_tts.audio import Audio, content_hash
from light_tts.encode.audio import AudioLimits, load_audio
from light_tts.encode.prompt_encoder import PromptEncoder, align
from light_tts.errors import CorruptFile, InvalidAudio, ModelNotFound, PromptTooLong, PromptTooShort
from light_tts.models.config import ModelConfig
from light_tts.models.model_yaml import read_model_config


@pytest.fixture(scope="module")
def recorded(golden: Path) -> dict[str, Tensor]:
    return load_file(golden / "fixtures/audio.safetensors")


@pytest.fixture(scope="module")
def prompt(golden: Path) -> Audio:
    return load_audio(golden / "fixtures/prompt_24k.wav")


@pytest.fixture(scope="module")
def config(golden: Path) -> ModelConfig:
    return read_model_config(golden / "cosyvoice2")


@pytest.fixture(scope="module")
def encoder(golden: Path, config: ModelConfig) -> PromptEncoder:
    return PromptEncoder(golden / "cosyvoice2", config)


@pytest.mark.parametrize("version", [2, 3])
def test_a_prompt_is_encoded_as_recorded(
    golden: Path, recorded: dict[str, Tensor], prompt: Audio, version: int
) -> None:
    model_dir = golden / f"cosyvoice{version}"
    features = PromptEncoder(model_dir, read_model_config(model_dir)).encode(prompt)
    expected = {
        name.rpartition(".")[2]: value
        for name, value in recorded.items()
        if name.startswith(f"v{version}.zero_shot")
    }
    assert torch.equal(features.speech_token[None], expected["flow_prompt_speech_token"].long())
    torch.testing.assert_close(
        features.prompt_mel[None], expected["prompt_speech_feat"], atol=1e-4, rtol=0, check_stride=False
    )
    torch.testing.assert_close(
        features.speaker_embedding[None], expected["flow_embedding"], atol=1e-4, rtol=0
    )
    assert features.duration_s == pytest.approx(3.03)
    assert features.content_hash == content_hash(prompt)


def test_trimming_makes_mel_twice_as_long_as_tokens_and_voice_conversion_does_not_trim(
    encoder: PromptEncoder, recorded: dict[str, Tensor], prompt: Audio
) -> None:
    whole, trimmed = encoder.encode(prompt, trim=False), encoder.encode(prompt)
    assert (len(whole.speech_token), len(whole.prompt_mel)) == (76, 151)
    assert (len(trimmed.speech_token), len(trimmed.prompt_mel)) == (75, 150)
    assert torch.equal(whole.speech_token[None], recorded["v2.speech_token"].long())
    assert torch.equal(encoder.tokenize_source(prompt), whole.speech_token)


@pytest.mark.parametrize(
    ("tokens", "frames", "kept"), [(10, 20, 10), (10, 19, 9), (10, 21, 10), (9, 20, 9), (0, 20, 0)]
)
def test_alignment_keeps_what_both_have(tokens: int, frames: int, kept: int) -> None:
    token, mel = align(torch.arange(tokens), torch.arange(frames * 80.0).view(frames, 80), 2)
    assert token.tolist() == list(range(kept))
    assert torch.equal(mel, torch.arange(kept * 160.0).view(2 * kept, 80))


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("seconds", [0.5, 0.513, 1.999])
def test_every_rate_and_length_gives_aligned_finite_features(
    encoder: PromptEncoder, rate: int, seconds: float
) -> None:
    noise = np.random.default_rng(0).standard_normal(round(rate * seconds)) * 0.1
    features = encoder.encode(Audio(noise.astype(np.float32), rate))
    assert len(features.prompt_mel) == 2 * len(features.speech_token)
    assert len(features.speech_token) == pytest.approx(25 * seconds, abs=1)
    assert bool(torch.isfinite(features.prompt_mel).all())
    assert features.speaker_embedding.shape == (192,)


def test_exactly_30_s_are_accepted(encoder: PromptEncoder) -> None:
    noise = (np.random.default_rng(0).standard_normal(30 * 24_000) * 0.1).astype(np.float32)
    assert len(encoder.encode(Audio(noise, 24_000)).speech_token) == 750


def test_encode_and_tokenize_source_check_the_audio(encoder: PromptEncoder) -> None:
    noise = (np.random.default_rng(0).standard_normal(31 * 24_000) * 0.1).astype(np.float32)
    for call in (encoder.encode, encoder.tokenize_source):
        with pytest.raises(PromptTooLong, match=r"31\.00 s, limit 30 s"):
            call(Audio(noise, 24_000))
        with pytest.raises(PromptTooShort, match=r"0\.10 s"):
            call(Audio(noise[:2400], 24_000))
        with pytest.raises(InvalidAudio, match="silent"):
            call(Audio(np.zeros(24_000, dtype=np.float32), 24_000))
        with pytest.raises(InvalidAudio, match="8000 Hz"):
            call(Audio(noise[:24_000], 8_000))


def test_the_callers_limits_apply(golden: Path, config: ModelConfig, prompt: Audio) -> None:
    encoder = PromptEncoder(golden / "cosyvoice2", config, limits=AudioLimits(max_seconds=3.0))
    with pytest.raises(PromptTooLong, match="limit 3 s"):
        encoder.encode(prompt)


def test_threads_may_share_an_encoder(encoder: PromptEncoder, prompt: Audio) -> None:
    alone = encoder.encode(prompt)
    with ThreadPoolExecutor(4) as pool:
        for features in pool.map(lambda _: encoder.encode(prompt), range(8)):
            assert torch.equal(features.speech_token, alone.speech_token)
            assert torch.equal(features.speaker_embedding, alone.speaker_embedding)


@pytest.mark.parametrize("missing", ["speech_tokenizer_v2.onnx", "campplus.onnx"])
def test_a_missing_model_file_is_named(
    golden: Path, config: ModelConfig, tmp_path: Path, missing: str
) -> None:
    for name in {"speech_tokenizer_v2.onnx", "campplus.onnx"} - {missing}:
        shutil.copy(golden / "cosyvoice2" / name, tmp_path)
    with pytest.raises(ModelNotFound, match=missing):
        PromptEncoder(tmp_path, config)


def test_a_tokenizer_of_another_model_is_refused(golden: Path, config: ModelConfig, prompt: Audio) -> None:
    smaller = replace(config, flow=replace(config.flow, vocab_size=10))
    with pytest.raises(CorruptFile, match="knows 0 to 9"):
        PromptEncoder(golden / "cosyvoice2", smaller).encode(prompt)
