"""An exported directory is a model: small, in half precision on disk, exact in float32 in memory, healthy."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from light_tts.models.checkpoint import read_weights
from light_tts.models.loader import load_models
from recipes.mini import layout
from recipes.mini.encoders import speaker_shape, tokenizer_shape
from recipes.mini.errors import RecipeError
from recipes.mini.export import (
    MAX_BYTES,
    OnnxWriters,
    check_model,
    export_model,
    file_sizes,
    size_table,
    untrained,
    with_measured_sampling,
    with_weight_norm,
    write_model,
)
from recipes.mini.models.encoders_onnx import export_speaker, export_tokenizer
from recipes.mini.models.speaker import SpeakerNet, folded
from recipes.mini.models.stored import store
from recipes.mini.models.tokenizer import TokenEncoder
from recipes.mini.settings import Settings
from recipes.mini.testing import write_tiny_corpus

VOCABULARY = [
    layout.END_OF_TEXT,
    layout.UNKNOWN,
    *", . ? !".split(),
    *"z_ni3 z_hao3 e_HH_AH0 e_L_OW1".split(),
]


def onnx_writers(settings: Settings) -> OnnxWriters:
    """Untrained encoders, as the recipe stores and exports them."""
    torch.manual_seed(1)
    token_shape, voice_shape = tokenizer_shape(settings.tokenizer), speaker_shape(settings.speaker)
    tokenizer = store(TokenEncoder(token_shape).state_dict(), "int8")
    speaker = store(folded(SpeakerNet(voice_shape).state_dict()), "int8")
    return OnnxWriters(
        lambda path: export_tokenizer(token_shape, tokenizer, path),
        lambda path: export_speaker(voice_shape, speaker, path),
    )


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = Settings.tiny()
    folder = tmp_path_factory.mktemp("export") / "model"
    return write_model(folder, settings, untrained(settings, VOCABULARY), onnx_writers(settings))


def test_the_doctor_finds_no_error(model_dir: Path) -> None:
    assert check_model(model_dir).healthy


def test_the_directory_has_the_released_layout(model_dir: Path) -> None:
    assert set(file_sizes(model_dir)) == {
        "llm.safetensors", "flow.safetensors", "hift.safetensors", "cosyvoice2.yaml", "campplus.onnx",
        "speech_tokenizer_v2.onnx", "CosyVoice-BlankEN/config.json", "CosyVoice-BlankEN/tokenizer.json",
        "CosyVoice-BlankEN/tokenizer_config.json", "ATTRIBUTION.md",
    }  # fmt: skip
    text = (model_dir / "ATTRIBUTION.md").read_text("utf-8")
    assert "Kokoro-82M" in text
    assert "Apache-2.0" in text


def test_weights_lie_in_half_precision_and_run_in_single(model_dir: Path) -> None:
    settings = Settings.tiny()
    original = untrained(settings, VOCABULARY)
    models = load_models(model_dir, torch.device("cpu"), torch.float32)
    for part, module, weights in (
        ("llm", models.speech_lm, original.llm),
        ("flow", models.flow, original.flow),
        ("hift", models.vocoder, original.hift),
    ):
        stored = load_file(model_dir / f"{part}.safetensors")
        assert {value.dtype for value in stored.values()} == {torch.float16}
        loaded = module.state_dict()
        assert loaded.keys() == weights.keys()
        for name, value in loaded.items():
            assert value.dtype == torch.float32, name
            torch.testing.assert_close(value, weights[name].float(), rtol=2e-3, atol=1e-6, msg=name)


def test_loading_half_precision_takes_seconds_at_most(tmp_path: Path) -> None:
    """The bundled voice's own size: 13 million numbers."""
    settings = Settings.default()
    folder = write_model(
        tmp_path / "model", settings, untrained(settings, VOCABULARY), onnx_writers(settings)
    )
    start = time.process_time()
    load_models(folder, torch.device("cpu"), torch.float32)
    assert time.process_time() - start < 3.0
    assert sum(file_sizes(folder).values()) < MAX_BYTES - 700_000  # room for the voices
    check_model(folder)


def test_weight_norm_has_the_released_names_and_folds_back() -> None:
    settings = Settings.tiny()
    hift = untrained(settings, VOCABULARY).hift
    released = with_weight_norm(hift)
    assert "conv_pre.parametrizations.weight.original0" in released
    assert released["ups.0.parametrizations.weight.original0"].shape == (hift["ups.0.weight"].shape[0], 1, 1)
    plain = {"source_downs.0.weight", "m_source.l_linear.weight", "f0_predictor.classifier.weight"}
    assert plain < released.keys()
    assert not any(
        name.endswith(".weight")
        for name in released.keys() - plain - {"source_downs.1.weight", "source_downs.2.weight"}
    )


def test_the_released_names_are_those_of_the_released_checkpoint(model_dir: Path) -> None:
    golden = Path(__file__).parents[1] / "golden" / "manifest_cosyvoice2.json"
    released = json.loads(golden.read_text("utf-8"))["modules"]["hift"]["state_dict"]
    assert set(load_file(model_dir / "hift.safetensors")) == set(released)


def test_weights_that_half_precision_cannot_hold_are_refused(tmp_path: Path) -> None:
    settings = Settings.tiny()
    weights = untrained(settings, VOCABULARY)
    name = next(iter(weights.flow))
    broken = dict(weights.flow) | {name: torch.full_like(weights.flow[name], 1e6)}
    with pytest.raises(RecipeError, match=name):
        write_model(
            tmp_path / "model", settings, dataclasses.replace(weights, flow=broken), onnx_writers(settings)
        )
    assert not (tmp_path / "model").exists()


def test_weights_of_other_settings_do_not_pass_the_doctor(tmp_path: Path) -> None:
    settings = Settings.tiny()
    other = dataclasses.replace(settings, model=dataclasses.replace(settings.model, lm_layers=1))
    folder = write_model(tmp_path / "model", other, untrained(settings, VOCABULARY), onnx_writers(settings))
    with pytest.raises(RecipeError, match="llm"):
        check_model(folder)


def test_a_directory_above_the_limit_is_refused(model_dir: Path) -> None:
    with pytest.raises(RecipeError, match="limit 0 MB"):
        check_model(model_dir, max_bytes=1000)


def test_the_table_of_sizes_adds_up(model_dir: Path) -> None:
    lines = size_table(model_dir).splitlines()
    assert lines[-1] == f"| **all, limit 32** | **{sum(file_sizes(model_dir).values()) / 1e6:.2f}** |"
    assert len(lines) == 3 + len(file_sizes(model_dir))


def test_a_new_export_replaces_the_old_one_with_its_voices(tmp_path: Path) -> None:
    settings = Settings.tiny()
    folder = tmp_path / "model"
    (folder / "voices").mkdir(parents=True)
    (folder / "voices" / "old.safetensors").write_bytes(b"old")
    write_model(folder, settings, untrained(settings, VOCABULARY), onnx_writers(settings))
    assert not (folder / "voices").exists()


@pytest.mark.parametrize(("counted", "written"), [(0.25, 0.25), (1.05, 1.0)])
def test_the_sampler_follows_the_counted_repetitions(counted: float, written: float, tmp_path: Path) -> None:
    facts = tmp_path / "codes.json"
    assert with_measured_sampling(Settings.default(), facts) == Settings.default()
    facts.write_text(json.dumps({"win_size": 11, "tau_r": counted}), "utf-8")
    model = with_measured_sampling(Settings.default(), facts).model
    assert (model.sampling_win_size, model.sampling_tau_r) == (11, written)


def test_folded_weights_are_the_plain_ones(model_dir: Path) -> None:
    original: dict[str, Tensor] = dict(untrained(Settings.tiny(), VOCABULARY).hift)
    for name, value in read_weights(model_dir, "hift").items():
        torch.testing.assert_close(value.float(), original[name], rtol=2e-3, atol=1e-6, msg=name)


def test_a_stage_that_was_never_trained_is_named(tmp_path: Path) -> None:
    write_tiny_corpus(tmp_path / "work", 0, 2)
    with pytest.raises(RecipeError, match="train vocoder"):
        export_model(Settings.tiny(), tmp_path / "work", tmp_path / "checkpoints", tmp_path / "model")
