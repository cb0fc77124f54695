"""The bundled voice is found where it is installed, and its absence says what to give instead."""

from __future__ import annotations

from pathlib import Path

import pytest

import light_tts.models.bundled as bundled
from light_tts.errors import ModelNotFound


def test_the_bundled_voice_is_a_directory_or_none() -> None:
    folder = bundled.bundled_model_dir()
    assert folder is None or (folder / "cosyvoice2.yaml").is_file()


def test_a_given_directory_wins(tmp_path: Path) -> None:
    assert bundled.resolve_model_dir(tmp_path) == bundled.resolve_model_dir(str(tmp_path)) == tmp_path


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="nowhere"):
        bundled.resolve_model_dir(tmp_path / "nowhere")


def test_without_a_bundled_voice_the_option_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "bundled_model_dir", lambda: None)
    with pytest.raises(ModelNotFound, match="--model_dir"):
        bundled.resolve_model_dir(None)
