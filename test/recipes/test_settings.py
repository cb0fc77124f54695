"""Settings survive the way through JSON, refuse what is no setting, and say the same as the exported yaml."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from light_tts.models.model_yaml import read_model_config
from recipes.mini import layout
from recipes.mini.errors import RecipeError
from recipes.mini.settings import ModelSettings, Settings


@pytest.mark.parametrize("settings", [Settings.default(), Settings.tiny()], ids=["default", "tiny"])
def test_settings_come_back_from_json_as_they_were(settings: Settings, tmp_path: Path) -> None:
    settings.save(tmp_path / "a" / "settings.json")
    assert Settings.load(tmp_path / "a" / "settings.json") == settings


def test_a_changed_number_comes_back_changed() -> None:
    model = dataclasses.replace(ModelSettings(), lm_layers=3)
    settings = dataclasses.replace(Settings(), seed=7, model=model)
    assert Settings.from_json(settings.to_json()) == settings != Settings()


def test_what_is_left_out_keeps_its_default() -> None:
    assert Settings.from_json('{"seed": 5, "model": {"lm_layers": 4}}') == Settings(
        seed=5, model=ModelSettings(lm_layers=4)
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "not JSON"),
        ("[]", "must be an object"),
        ('{"sed": 1}', "sed"),
        ('{"model": {"layers": 1}}', "layers"),
        ('{"seed": "1"}', "settings.seed"),
        ('{"seed": true}', "settings.seed"),
        ('{"seed": 1.5}', "settings.seed"),
        ('{"flow": {"squared": 1}}', "settings.flow.squared"),
        ('{"text": {"speed": [1.0]}}', "must have 2 values"),
        ('{"text": {"speed": 1.0}}', "must be a list"),
        ('{"flow": {"row_tokens": [64, "x"]}}', "settings.flow.row_tokens"),
    ],
)
def test_what_is_no_setting_is_named(text: str, named: str) -> None:
    with pytest.raises(RecipeError, match=named):
        Settings.from_json(text)


def test_a_whole_number_serves_as_a_fraction() -> None:
    lr = Settings.from_json('{"lm": {"lr": 1}}').lm.lr
    assert lr == 1.0
    assert isinstance(lr, float)


@pytest.mark.parametrize("settings", [Settings.default(), Settings.tiny()], ids=["default", "tiny"])
def test_the_yaml_says_what_the_modules_are_built_from(settings: Settings, tmp_path: Path) -> None:
    model = dataclasses.replace(settings.model, sampling_win_size=12, sampling_tau_r=0.25, flow_cfg_rate=0.4)
    settings = dataclasses.replace(settings, model=model)
    (tmp_path / layout.QWEN_DIR).mkdir()
    (tmp_path / layout.YAML_NAME).write_text(layout.model_yaml(model), "utf-8")
    (tmp_path / layout.QWEN_DIR / "config.json").write_text(layout.qwen_config(model), "utf-8")
    assert read_model_config(tmp_path) == settings.model_config()


def test_every_number_of_the_model_is_in_the_yaml_or_the_config() -> None:
    """A dimension that the exporter forgot would only show when the weights do not fit."""
    model = ModelSettings()
    texts = layout.model_yaml(model) + layout.qwen_config(model)
    for field in dataclasses.fields(ModelSettings):
        value = getattr(model, field.name)
        changed = dataclasses.replace(model, **{field.name: value + 1})
        assert layout.model_yaml(changed) + layout.qwen_config(changed) != texts, field.name


def test_tokenizer_files_are_json_with_every_symbol() -> None:
    symbols = {layout.END_OF_TEXT: 0, layout.UNKNOWN: 1, "z_ma1": 2}
    document = json.loads(layout.tokenizer_json(symbols))
    assert document["model"]["vocab"] == symbols
    assert json.loads(layout.tokenizer_config())["unk_token"] == layout.UNKNOWN
