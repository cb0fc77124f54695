from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from light_tts.encode.voice_header import read_info
from light_tts.encode.voices import VoiceStore
from light_tts.errors import VoiceMismatch
from light_tts.messages import LlmTask, RequestFailed, StoreVoices, TextAppend, VoicesStored
from light_tts.voice_info import VoiceInfo, default_voices_dir
from test.encode.support import HTTP, Bench, bench, request
from test.encode.test_voices import a_voice


@pytest.fixture
def recording(golden: Path) -> bytes:
    return (golden / "fixtures" / "prompt_24k.wav").read_bytes()


@pytest.fixture
def tools(golden: Path, tmp_path: Path) -> Iterator[Bench]:
    folder = tmp_path / "model"
    shutil.copytree(golden / "cosyvoice3", folder)
    VoiceStore(folder / "voices").save(a_voice("own"))
    with bench(folder, voices_dir=tmp_path / "voices") as made:
        yield made


def ask(request_id: str, info: VoiceInfo, *, timeout_s: float = 60.0, **fields: Any) -> StoreVoices:
    return StoreVoices(request_id, HTTP, time.time() + timeout_s, info, **fields)


def answer(tools: Bench, message: StoreVoices) -> VoicesStored | RequestFailed:
    tools.service.take(message)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for sent in tools.sent.all(HTTP, message.request_id):
            if isinstance(sent, VoicesStored | RequestFailed):
                return sent
        time.sleep(0.005)
    raise AssertionError("no answer")


def stored(tools: Bench, message: StoreVoices) -> VoiceInfo:
    told = answer(tools, message)
    assert isinstance(told, VoicesStored), told
    return told.voices[0]


def key_of(tools: Bench, request_id: str) -> str:
    tools.sent.wait(request_id)
    (task,) = (m for m in tools.sent.all(request_id=request_id) if isinstance(m, LlmTask))
    return task.voice.key


def test_a_voice_speaks_from_the_moment_its_registration_is_answered(tools: Bench, recording: bytes) -> None:
    info = stored(tools, ask("s", VoiceInfo(name="mia", prompt_text="ok."), recording=recording))
    assert info.encoder == tools.catalog.encoder_id != ""
    assert info.created_at
    tools.service.take(request("r", voice="mia"))
    assert key_of(tools, "r")


def test_who_speaks_with_a_voice_keeps_it_when_it_is_replaced_or_deleted(
    tools: Bench, recording: bytes, tmp_path: Path
) -> None:
    stored(tools, ask("a", VoiceInfo(name="mia", prompt_text="ok."), recording=recording))
    tools.service.take(request("open", "hello quick ", text_open=True, voice="mia"))
    while not tools.tasks("open"):
        tools.service.take(TextAppend("open", "fox and more words. "))
        time.sleep(0.01)
    old = tools.tasks("open")[0].voice
    stored(
        tools,
        ask("b", VoiceInfo(name="mia"), blend=(("mia", 1.0), ("own", 1.0)), prompt_of="own", replace=True),
    )
    tools.service.take(request("next", voice="mia"))
    new = key_of(tools, "next")
    assert new != old.key
    VoiceStore(tmp_path / "voices").delete("mia")
    tools.service.take(TextAppend("open", "And so it goes on. " * 20, end=True))
    tools.sent.wait("open")
    assert {task.voice.key for task in tools.tasks("open")} == {old.key}
    tools.service.take(request("late", voice="mia"))
    failed = tools.sent.wait("late")
    assert isinstance(failed, RequestFailed)
    assert failed.code == "voice_not_found"


def test_a_voice_of_another_models_encoders_is_refused_not_spoken(
    tools: Bench, recording: bytes, tmp_path: Path
) -> None:
    stored(tools, ask("s", VoiceInfo(name="mia"), recording=recording))
    store = VoiceStore(tmp_path / "voices")
    voice = store.get("mia")
    store.save(replace(voice, info=replace(voice.info, encoder="0123456789abcdef")))
    with pytest.raises(VoiceMismatch, match="another model"):
        tools.catalog.get("mia")
    assert [listed.name for listed in tools.catalog.list()] == ["own"]
    store.save(replace(voice, info=replace(voice.info, encoder="")))
    assert tools.catalog.get("mia").info.name == "mia"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"recording": b"no audio"}, "invalid_audio"),
        ({}, "invalid_input"),
        ({"archive": b"x"}, "invalid_body"),
        ({"blend": (("own", 1.0), ("nobody", 1.0))}, "voice_not_found"),
        ({"blend": (("own", 1.0),)}, "invalid_input"),
    ],
)
def test_what_cannot_be_registered_is_answered_with_its_reason(
    tools: Bench, fields: dict[str, Any], code: str, tmp_path: Path
) -> None:
    told = answer(tools, ask("s", VoiceInfo(name="mia"), **fields))
    assert isinstance(told, RequestFailed)
    assert told.code == code
    assert VoiceStore(tmp_path / "voices").list() == []


def test_nothing_is_stored_for_whom_nobody_waits(tools: Bench, recording: bytes, tmp_path: Path) -> None:
    told = answer(tools, ask("s", VoiceInfo(name="mia"), recording=recording, timeout_s=-1))
    assert isinstance(told, RequestFailed)
    assert told.code == "timeout"
    assert VoiceStore(tmp_path / "voices").list() == []


def test_a_disk_that_refuses_is_told(tools: Bench, recording: bytes, tmp_path: Path) -> None:
    (tmp_path / "voices").write_text("a file")
    told = answer(tools, ask("s", VoiceInfo(name="mia"), recording=recording))
    assert isinstance(told, RequestFailed)
    assert told.code == "unavailable"


def test_the_model_s_own_voices_keep_their_names(tools: Bench, recording: bytes) -> None:
    told = answer(tools, ask("s", VoiceInfo(name="own"), recording=recording, replace=True))
    assert isinstance(told, RequestFailed)
    assert told.code == "voice_exists"


def test_a_registered_voice_is_read_without_an_inference_library(
    tools: Bench, recording: bytes, tmp_path: Path
) -> None:
    info = stored(tools, ask("s", VoiceInfo(name="mia", description="平静"), recording=recording))
    assert read_info(tmp_path / "voices" / "mia.safetensors") == info


def test_the_default_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_voices_dir() == tmp_path / "light-tts" / "voices"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_voices_dir() == tmp_path / ".local" / "share" / "light-tts" / "voices"


def test_what_one_client_registers_is_nobodys_default(tools: Bench, recording: bytes) -> None:
    stored(tools, ask("s", VoiceInfo(name="a", language="en"), recording=recording))
    assert tools.catalog.default("en").info.name == "own"
