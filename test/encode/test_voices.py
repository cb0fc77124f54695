from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from light_tts.encode.features import PromptFeatures
from light_tts.encode.voice_file import Voice, VoiceInfo
from light_tts.encode.voices import VoiceStore, import_spk2info
from light_tts.errors import CorruptFile, InvalidInput, ModelNotFound, UnsafeFile, VoiceNotFound


def a_voice(name: str = "alice", num_tokens: int = 50, fill: float = 0.5) -> Voice:
    features = PromptFeatures(
        torch.arange(num_tokens), torch.full((2 * num_tokens, 80), fill), torch.full((192,), fill), "", 2.0
    )
    info = VoiceInfo(
        name=name, prompt_text="今天天气很好。", language="zh", description="calm", source="alice.wav"
    )
    return Voice(info, features)


def assert_same_features(actual: PromptFeatures, expected: PromptFeatures) -> None:
    assert torch.equal(actual.speech_token, expected.speech_token)
    assert torch.equal(actual.prompt_mel, expected.prompt_mel)
    assert torch.equal(actual.speaker_embedding, expected.speaker_embedding)


def test_a_saved_voice_comes_back_as_it_was(tmp_path: Path) -> None:
    store = VoiceStore(tmp_path / "voices")
    assert store.list() == []
    saved = store.save(a_voice())
    loaded = store.get("alice")
    assert_same_features(loaded.features, saved.features)
    assert loaded.info == saved.info == store.info("alice")
    assert replace(loaded.info, created_at="") == a_voice().info
    assert loaded.info.created_at.endswith("+00:00")
    assert loaded.features.duration_s == 2.0
    assert loaded.prompt_text_ids is None


def test_names_are_listed_in_order_and_strangers_files_are_not(tmp_path: Path) -> None:
    store = VoiceStore(tmp_path)
    for name in ("bob", "alice", "C_3-x"):
        store.save(a_voice(name))
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".alice.0.part").write_text("x")
    (tmp_path / "a b.safetensors").write_text("x")
    assert store.list() == ["C_3-x", "alice", "bob"]


def test_saving_again_replaces_and_deleting_removes(tmp_path: Path) -> None:
    store = VoiceStore(tmp_path)
    store.save(a_voice())
    first_hash = store.get("alice").features.content_hash
    store.save(a_voice(fill=0.25))
    assert store.get("alice").features.prompt_mel[0, 0] == 0.25
    assert store.get("alice").features.content_hash != first_hash
    store.delete("alice")
    assert store.list() == []
    assert os.listdir(tmp_path) == []
    for call in (store.get, store.info, store.delete):
        with pytest.raises(VoiceNotFound, match="no voice 'alice'"):
            call("alice")


BAD_NAMES = ["", "a/b", "../alice", "..", "a b", "alice\n", "声音", "a.b", "a" * 129, "alice\x00"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_outside_the_pattern_is_refused(tmp_path: Path, name: str) -> None:
    store = VoiceStore(tmp_path / "voices")
    (tmp_path / "alice.safetensors").write_bytes(b"secret")
    with pytest.raises(InvalidInput, match="voice name"):
        store.save(a_voice(name))
    for call in (store.get, store.info, store.delete):
        with pytest.raises(VoiceNotFound):
            call(name)
    assert (tmp_path / "alice.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"speech_token": torch.arange(49)}, r"prompt_mel is .* must be torch.float32 \[98, 80\]"),
        ({"speech_token": torch.arange(50, dtype=torch.int32)}, "speech_token is torch.int32"),
        ({"speech_token": torch.arange(50) - 1}, "speech_token holds -1"),
        ({"speech_token": torch.zeros(2, 25, dtype=torch.int64)}, "speech_token is torch.int64"),
        ({"prompt_mel": torch.full((100, 80), float("nan"))}, "prompt_mel holds numbers that are not finite"),
        ({"speaker_embedding": torch.zeros(191)}, r"speaker_embedding is .* must be torch.float32 \[192\]"),
        (
            {"speech_token": torch.zeros(751, dtype=torch.int64), "prompt_mel": torch.zeros(1502, 80)},
            "limit 750",
        ),
        ({"extra": torch.zeros(1)}, "must hold"),
    ],
)
def test_numbers_that_are_no_voice_are_refused_on_the_way_in_and_out(
    tmp_path: Path, change: dict[str, Tensor], reason: str
) -> None:
    store = VoiceStore(tmp_path)
    store.save(a_voice())
    tensors = load_file(tmp_path / "alice.safetensors") | change
    save_file(tensors, tmp_path / "alice.safetensors", {"light_tts_voice": '{"name": "alice"}'})
    with pytest.raises(CorruptFile, match=reason):
        store.get("alice")
    if "extra" not in change:
        features = PromptFeatures(**change | _rest(change), content_hash="", duration_s=2.0)
        with pytest.raises(InvalidInput, match=reason):
            store.save(Voice(VoiceInfo(name="bob"), features))
    assert store.list() == ["alice"]


def _rest(change: dict[str, Tensor]) -> dict[str, Tensor]:
    features = a_voice().features
    names = ("speech_token", "prompt_mel", "speaker_embedding")
    return {name: getattr(features, name) for name in names if name not in change}


@pytest.mark.parametrize(
    "description",
    [None, "{", "[]", '{"name": 3}', '{"name": "alice", "colour": "red"}', "[" * 100_000],
)
def test_a_file_whose_description_cannot_be_used_is_corrupt(tmp_path: Path, description: str | None) -> None:
    store = VoiceStore(tmp_path)
    store.save(a_voice())
    tensors = load_file(tmp_path / "alice.safetensors")
    metadata = {} if description is None else {"light_tts_voice": description}
    save_file(tensors, tmp_path / "alice.safetensors", metadata)
    for call in (store.get, store.info):
        with pytest.raises(CorruptFile, match=r"alice\.safetensors"):
            call("alice")


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.999])
def test_a_truncated_file_is_corrupt_and_stays_deletable(tmp_path: Path, keep: float) -> None:
    store = VoiceStore(tmp_path)
    store.save(a_voice())
    path = tmp_path / "alice.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    for call in (store.get, store.info):
        with pytest.raises(CorruptFile, match=r"alice\.safetensors"):
            call("alice")
    store.delete("alice")
    assert store.list() == []


def test_a_huge_file_is_refused_without_reading_it(tmp_path: Path) -> None:
    with (tmp_path / "alice.safetensors").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(CorruptFile, match="bytes, limit"):
        VoiceStore(tmp_path).get("alice")


def test_too_long_texts_are_refused(tmp_path: Path) -> None:
    voice = a_voice()
    with pytest.raises(InvalidInput, match="description has 5000 characters, limit 4096"):
        VoiceStore(tmp_path).save(replace(voice, info=replace(voice.info, description="x" * 5000)))


def test_a_reader_sees_the_old_voice_or_the_new_one(tmp_path: Path) -> None:
    store = VoiceStore(tmp_path)
    store.save(a_voice(fill=0.0))
    done = threading.Event()

    def write() -> None:
        for fill in range(1, 60):
            store.save(a_voice(fill=float(fill)))
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        features = store.get("alice").features
        assert float(features.prompt_mel.min()) == float(features.prompt_mel.max())
        assert float(features.speaker_embedding[0]) == float(features.prompt_mel[0, 0])
    writer.join()
    assert os.listdir(tmp_path) == ["alice.safetensors"]


def test_a_loaded_voice_outlives_its_file(tmp_path: Path) -> None:
    store = VoiceStore(tmp_path)
    store.save(a_voice())
    voice = store.get("alice")
    (tmp_path / "alice.safetensors").write_bytes(b"")
    assert float(voice.features.prompt_mel.sum()) == 0.5 * 100 * 80


def zero_shot_entry(num_tokens: int = 75) -> dict[str, Tensor]:
    """What CosyVoice's `add_zero_shot_spk` keeps."""
    token = torch.arange(num_tokens, dtype=torch.int32)[None]
    length = torch.tensor([num_tokens], dtype=torch.int32)
    return {
        "prompt_text": torch.arange(5, dtype=torch.int32)[None],
        "prompt_text_len": torch.tensor([5], dtype=torch.int32),
        "llm_prompt_speech_token": token,
        "llm_prompt_speech_token_len": length,
        "flow_prompt_speech_token": token,
        "flow_prompt_speech_token_len": length,
        "prompt_speech_feat": torch.randn(1, 2 * num_tokens, 80),
        "prompt_speech_feat_len": 2 * length,
        "llm_embedding": torch.randn(1, 192),
        "flow_embedding": torch.randn(1, 192),
    }


def test_speakers_are_imported_from_spk2info(tmp_path: Path) -> None:
    entry, embedding = zero_shot_entry(), torch.randn(1, 192)
    torch.save({"cloned": entry, "中文女": {"embedding": embedding}}, tmp_path / "spk2info.pt")
    voices = import_spk2info(tmp_path / "spk2info.pt")
    assert list(voices) == ["cloned", "中文女"]
    cloned, trained = voices["cloned"], voices["中文女"]
    assert torch.equal(cloned.features.speech_token, torch.arange(75))
    assert torch.equal(cloned.features.prompt_mel, entry["prompt_speech_feat"][0])
    assert torch.equal(cloned.features.speaker_embedding, entry["flow_embedding"][0])
    assert cloned.prompt_text_ids is not None
    assert cloned.prompt_text_ids.tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(trained.features.speaker_embedding, embedding[0])
    assert trained.features.speech_token.shape == (0,)
    assert trained.features.prompt_mel.shape == (0, 80)
    assert trained.prompt_text_ids is None


def test_an_imported_speaker_can_be_saved_under_a_valid_name(tmp_path: Path) -> None:
    torch.save({"中文女": zero_shot_entry()}, tmp_path / "spk2info.pt")
    imported = import_spk2info(tmp_path / "spk2info.pt")["中文女"]
    store = VoiceStore(tmp_path / "voices")
    with pytest.raises(InvalidInput, match="voice name"):
        store.save(imported)
    store.save(replace(imported, info=replace(imported.info, name="female")))
    loaded = store.get("female")
    assert_same_features(loaded.features, imported.features)
    assert loaded.prompt_text_ids is not None
    assert loaded.prompt_text_ids.tolist() == [0, 1, 2, 3, 4]


class Marker:
    """Unpickling one creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path(self.path),)  # type: ignore[return-value]


def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    torch.save({"x": {"embedding": Marker(marker)}}, tmp_path / "spk2info.pt")
    with pytest.raises(UnsafeFile, match=r"spk2info\.pt"):
        import_spk2info(tmp_path / "spk2info.pt")
    assert not marker.exists()
    torch.load(tmp_path / "spk2info.pt", weights_only=False)
    assert marker.exists(), "the file of this test is harmless, so the test shows nothing"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([torch.zeros(3)], "holds a list"),
        ({"a": torch.zeros(192)}, "speaker 'a': is a Tensor"),
        ({"a": {}}, "embedding is missing"),
        ({"a": {"embedding": torch.zeros(1, 100)}}, r"must be torch.float32 \[192\]"),
        ({"a": {"embedding": "text"}}, "embedding is a str"),
        ({"a": {**zero_shot_entry(), "prompt_speech_feat": torch.zeros(1, 149, 80)}}, "prompt_mel is"),
        ({"a": {**zero_shot_entry(), "flow_prompt_speech_token": torch.zeros(1, 900)}}, "prompt_mel is"),
    ],
)
def test_a_damaged_spk2info_is_corrupt(tmp_path: Path, content: object, reason: str) -> None:
    torch.save(content, tmp_path / "spk2info.pt")
    with pytest.raises(CorruptFile, match=reason):
        import_spk2info(tmp_path / "spk2info.pt")


def test_a_missing_or_truncated_spk2info_is_named(tmp_path: Path) -> None:
    path = tmp_path / "spk2info.pt"
    with pytest.raises(ModelNotFound, match=r"spk2info\.pt"):
        import_spk2info(path)
    torch.save({"a": {"embedding": torch.zeros(1, 192)}}, path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(CorruptFile, match=r"spk2info\.pt"):
        import_spk2info(path)


def test_the_description_is_readable_in_the_file(tmp_path: Path) -> None:
    VoiceStore(tmp_path).save(a_voice())
    data = (tmp_path / "alice.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert json.loads(header["__metadata__"]["light_tts_voice"])["prompt_text"] == "今天天气很好。"
