"""Random models in the released layout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from light_tts.bench.command import NAMES
from light_tts.bench.random_model import (
    PROMPT_TOKENS,
    QWEN_05B,
    SIZES,
    VOICE,
    write_random_model,
    write_settings,
)
from light_tts.encode.prompt_encoder import PromptEncoder
from light_tts.encode.voices import VoiceStore
from light_tts.models.checkpoint import PARTS
from light_tts.models.loader import load_models
from light_tts.models.model_yaml import read_model_config
from test.support.random_model import full_size_manifest
from test.support.random_model import write_random_model as write_by_manifest

CPU = torch.device("cpu")


def test_the_command_line_offers_every_size() -> None:
    assert set(NAMES) == set(SIZES)


@pytest.mark.parametrize("version", [2, 3])
def test_the_full_size_is_the_released_models(version: int, golden: Path, tmp_path: Path) -> None:
    """Keys and shapes of these configurations are those of the released files: see test/models/test_full_size.py."""
    manifest = full_size_manifest(golden, version)
    empty = replace(manifest, shapes={part: {} for part in PARTS})
    released = read_model_config(write_by_manifest(tmp_path / "released", empty, golden / "cosyvoice2"))
    ours = write_settings(tmp_path / "ours", f"cosyvoice{version}-0.5b")
    assert ours == released
    assert QWEN_05B.items() <= manifest.qwen_config.items()


@pytest.mark.parametrize("version", [2, 3])
def test_the_bundled_encoders_serve_both_versions(version: int, tmp_path: Path) -> None:
    config = write_settings(tmp_path, f"cosyvoice{version}-0.5b")
    assert PromptEncoder(tmp_path, config, device="cpu", intra_op_threads=1).identity


def test_a_random_model_loads_with_its_voice_and_gives_numbers(tmp_path: Path) -> None:
    models = load_models(write_random_model(tmp_path, "mini", CPU), CPU, torch.float32)
    voice = VoiceStore(tmp_path / "voices", models.config.spk_embed_dim).get(VOICE)
    assert len(voice.features.speech_token) == PROMPT_TOKENS
    for module in (models.speech_lm, models.flow, models.vocoder):
        assert all(bool(torch.isfinite(value).all()) for value in module.state_dict().values())
