from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from light_tts.encode.audio import AudioLimits
from light_tts.encode.prompt_encoder import PromptEncoder
from light_tts.encode.voice_catalog import VoiceCatalog
from light_tts.encode.voices import VoiceStore
from light_tts.errors import CorruptFile, InvalidAudio, InvalidInput, PromptTooLong, VoiceNotFound
from light_tts.models.model_yaml import read_model_config


@pytest.fixture
def folder(golden: Path, tmp_path: Path) -> Path:
    """A model directory with a voice of its own."""
    shutil.copytree(golden / "cosyvoice2", tmp_path / "model")
    shutil.copy(golden / "fixtures" / "prompt_24k.wav", tmp_path / "model" / "anna.wav")
    write_prompts(tmp_path / "model", [{"name": "anna", "wav": "anna.wav", "text": "ok.", "lang": "zh"}])
    return tmp_path / "model"


def write_prompts(folder: Path, entries: object) -> None:
    (folder / "prompts.json").write_text(json.dumps(entries), encoding="utf-8")


def catalog(folder: Path, store: VoiceStore | None = None) -> VoiceCatalog:
    return VoiceCatalog(folder, PromptEncoder(folder, read_model_config(folder)), 192, store, 4)


def test_a_listed_recording_is_a_voice(folder: Path) -> None:
    voices = catalog(folder)
    assert [(voice.name, voice.kind, voice.language) for voice in voices.list()] == [
        ("anna", "built-in", "zh")
    ]
    voice = voices.get("anna")
    assert voice.info.prompt_text == "ok."
    assert voice.features.prompt_mel.shape == (2 * len(voice.features.speech_token), 80)


def test_the_default_voice_speaks_the_texts_language_if_one_does(folder: Path) -> None:
    entry = {"wav": "anna.wav", "text": "ok."}
    write_prompts(folder, [{**entry, "name": "a", "lang": "en"}, {**entry, "name": "b", "lang": "zh"}])
    voices = catalog(folder)
    assert voices.default("zh").info.name == "b"
    assert voices.default("en").info.name == "a"
    assert voices.default("fr").info.name == "a"


def test_a_registered_voice_wins_over_a_built_in_one(folder: Path, golden: Path, tmp_path: Path) -> None:
    voices = catalog(folder, VoiceStore(tmp_path / "mine"))
    voices.register("anna", golden / "fixtures" / "prompt_24k.wav", "mine", "en")
    assert voices.get("anna").info.prompt_text == "mine"
    assert [voice.kind for voice in voices.list()] == ["registered"]


def test_speakers_of_spk2info_are_voices(folder: Path) -> None:
    torch.save({"中文女": {"embedding": torch.randn(1, 192)}}, folder / "spk2info.pt")
    voice = catalog(folder).get("中文女")
    assert len(voice.features.speech_token) == 0
    assert voice.features.speaker_embedding.shape == (192,)


def test_an_unknown_voice_is_told_with_the_known_ones(folder: Path) -> None:
    with pytest.raises(VoiceNotFound, match=r"nobody.*anna"):
        catalog(folder).get("nobody")


def test_without_voices_the_default_says_what_to_give(folder: Path) -> None:
    (folder / "prompts.json").unlink()
    with pytest.raises(VoiceNotFound, match="prompt_audio"):
        catalog(folder).default("en")


@pytest.mark.parametrize(
    "entries",
    [
        [{"name": "a", "wav": "../../etc/passwd", "text": ""}],
        [{"name": "../a", "wav": "anna.wav", "text": ""}],
        [{"name": "a", "text": ""}],
        {"name": "a"},
        7,
    ],
)
def test_a_list_of_voices_cannot_lead_out_of_the_directory(folder: Path, entries: object) -> None:
    write_prompts(folder, entries)
    with pytest.raises(CorruptFile, match=r"prompts\.json"):
        catalog(folder)


def test_the_same_recording_is_encoded_once(folder: Path, golden: Path) -> None:
    voices, wav = catalog(folder), golden / "fixtures" / "prompt_24k.wav"
    assert voices.encode(wav) is voices.encode(wav.read_bytes())
    assert voices.encode(wav, trim=False) is not voices.encode(wav)


def test_files_that_cannot_be_read_are_bad_audio(folder: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "missing.wav", tmp_path):
        with pytest.raises(InvalidAudio, match=str(path)):
            catalog(folder).encode(path)


def test_registering_needs_a_folder(folder: Path) -> None:
    with pytest.raises(InvalidInput, match="voices_dir"):
        catalog(folder).register("a", folder / "anna.wav", "", "")


@pytest.mark.parametrize("kind", ["device", "pipe", "folder", "missing", "impossible name"])
def test_what_is_no_regular_file_is_refused_without_reading_it(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    paths: dict[str, str | Path] = {
        "device": "/dev/zero",
        "pipe": pipe,
        "folder": tmp_path,
        "missing": "gone.wav",
    }
    with pytest.raises(InvalidAudio, match="no regular file"):
        catalog(folder).encode(paths.get(kind, "a\0b"))


def test_a_huge_file_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("light_tts.encode.voice_catalog.MAX_PROMPT_BYTES", 10)
    (tmp_path / "long.wav").write_bytes(bytes(11))
    with pytest.raises(InvalidAudio, match="more than 10 bytes"):
        catalog(folder).encode(tmp_path / "long.wav")


def test_the_callers_limits_hold_for_recordings_of_requests_but_not_for_the_models_own(
    folder: Path, golden: Path
) -> None:
    encoder = PromptEncoder(folder, read_model_config(folder))
    voices = VoiceCatalog(folder, encoder, 192, None, 4, AudioLimits(max_seconds=1.0))
    with pytest.raises(PromptTooLong, match="limit 1 s"):
        voices.encode(golden / "fixtures" / "prompt_24k.wav")
    assert len(voices.get("anna").features.speech_token) > 25


def test_the_models_own_recordings_stay_however_many_others_come(folder: Path, golden: Path) -> None:
    encoder = PromptEncoder(folder, read_model_config(folder))
    voices = VoiceCatalog(folder, encoder, 192, None, 0)
    voices.prepare()
    anna = voices.get("anna")
    voices.encode(golden / "fixtures" / "prompt_24k.wav")
    assert voices.get("anna") is anna


def test_a_recording_that_cannot_be_used_is_told_and_spoils_no_other(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "bad.wav").write_bytes(b"rubbish")
    entry = {"text": "", "lang": "en"}
    write_prompts(
        folder, [{**entry, "name": "bad", "wav": "bad.wav"}, {**entry, "name": "anna", "wav": "anna.wav"}]
    )
    voices = catalog(folder)
    voices.prepare()
    assert "bad" in caplog.text
    assert voices.get("anna").info.name == "anna"


def test_only_some_of_very_many_voices_are_named_in_an_error(folder: Path) -> None:
    entries = [{"name": f"v{number}", "wav": "anna.wav", "text": ""} for number in range(100)]
    write_prompts(folder, entries)
    with pytest.raises(VoiceNotFound, match=r"v19 and 80 more"):
        catalog(folder).get("nobody")
