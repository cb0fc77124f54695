from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.queues import Queue
from pathlib import Path

import pytest
from safetensors import safe_open

from light_tts.encode.voice_file import write_voice
from light_tts.encode.voice_folder import VoiceFolder
from light_tts.encode.voice_header import read_info
from light_tts.errors import (
    CorruptFile,
    InvalidInput,
    LightTTSError,
    TooManyVoices,
    VoiceExists,
    VoiceNotFound,
)
from test.encode.test_voices import BAD_NAMES, a_voice

SPAWN = multiprocessing.get_context("spawn")
PATIENCE_S = 60.0


def data(fill: float = 0.5) -> bytes:
    return write_voice(a_voice(fill=fill), 192)


def _write_for_ever(folder: Path, ready: Queue[bool]) -> None:
    voices, number = VoiceFolder(folder), 0
    contents = [data(float(n)) for n in range(4)]
    while True:
        voices.put({"alice": contents[number % 4], "bob": contents[number % 4]}, replace=True)
        number += 1
        if number == 3:
            ready.put(True)


def _try_to_put(folder: Path, name: str, max_voices: int, told: Queue[str]) -> None:
    try:
        VoiceFolder(folder, max_voices).put({name: data()}, replace=False)
        told.put("stored")
    except LightTTSError as error:
        told.put(error.code)


def _race(folder: Path, names: list[str], max_voices: int) -> list[str]:
    told: Queue[str] = SPAWN.Queue()
    racers = [SPAWN.Process(target=_try_to_put, args=(folder, name, max_voices, told)) for name in names]
    for racer in racers:
        racer.start()
    outcomes = sorted(told.get(timeout=PATIENCE_S) for _ in racers)
    for racer in racers:
        racer.join(PATIENCE_S)
    return outcomes


@pytest.mark.parametrize("attempt", range(3))
def test_a_writer_that_is_killed_leaves_whole_voices_and_no_lock(tmp_path: Path, attempt: int) -> None:
    ready: Queue[bool] = SPAWN.Queue()
    writer = SPAWN.Process(target=_write_for_ever, args=(tmp_path, ready))
    writer.start()
    assert ready.get(timeout=PATIENCE_S)
    time.sleep(0.003 * attempt)
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join(PATIENCE_S)
    contents = {data(float(n)) for n in range(4)}
    for name in ("alice", "bob"):
        assert (tmp_path / f"{name}.safetensors").read_bytes() in contents
    assert VoiceFolder(tmp_path).names() == ["alice", "bob"]
    VoiceFolder(tmp_path).put({"carol": data()}, replace=False)
    assert sorted(os.listdir(tmp_path)) == [f"{name}.safetensors" for name in ("alice", "bob", "carol")]


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    left = tmp_path / f".alice.{'0' * 32}.part"
    others = [tmp_path / name for name in (".alice.0.part", "notes.txt", ".hidden", "x.part")]
    for file in (left, *others):
        file.write_bytes(data()[:100])
    folder = VoiceFolder(tmp_path)
    assert folder.names() == []
    folder.put({"bob": data()}, replace=False)
    assert not left.exists()
    assert all(file.exists() for file in others)


def test_of_writers_that_want_one_name_one_gets_it(tmp_path: Path) -> None:
    assert _race(tmp_path / "v", ["alice"] * 4, 10) == ["stored"] + 3 * ["voice_exists"]


def test_the_limit_holds_among_processes(tmp_path: Path) -> None:
    outcomes = _race(tmp_path / "v", ["a", "b", "c", "d"], 2)
    assert outcomes == ["stored"] * 2 + ["too_many_voices"] * 2
    assert len(VoiceFolder(tmp_path / "v").names()) == 2


def test_a_full_folder_still_takes_replacements(tmp_path: Path) -> None:
    folder = VoiceFolder(tmp_path, 1)
    folder.put({"alice": data()}, replace=False)
    folder.put({"alice": data(0.25)}, replace=True)
    with pytest.raises(TooManyVoices, match=r"2 voices, limit 1 \(--max_voices\)"):
        folder.put({"bob": data()}, replace=True)
    smaller = VoiceFolder(tmp_path, 0)
    smaller.put({"alice": data()}, replace=True)


def test_renaming_is_one_step_and_never_overwrites(tmp_path: Path) -> None:
    folder = VoiceFolder(tmp_path)
    folder.put({"alice": data(), "bob": data(0.25)}, replace=False)
    with pytest.raises(VoiceExists, match="'bob'"):
        folder.rename("alice", "bob")
    folder.rename("alice", "alice")
    folder.rename("alice", "carol")
    assert folder.names() == ["bob", "carol"]
    assert folder.info("carol").name == "carol"
    assert folder.info("carol").description == "calm"
    with pytest.raises(VoiceNotFound):
        folder.rename("alice", "dave")


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_could_lead_out_are_refused_by_every_change(tmp_path: Path, name: str) -> None:
    folder = VoiceFolder(tmp_path / "voices")
    (tmp_path / "alice.safetensors").write_bytes(b"secret")
    folder.put({"bob": data()}, replace=False)
    calls: list[Callable[[], object]] = [
        lambda: folder.put({name: data()}, replace=True),
        lambda: folder.rename("bob", name),
        lambda: folder.rename(name, "carol"),
        lambda: folder.delete(name),
        lambda: folder.info(name),
    ]
    for call in calls:
        with pytest.raises(InvalidInput):
            call()
    assert os.listdir(tmp_path / "voices") == ["bob.safetensors"]
    assert (tmp_path / "alice.safetensors").read_bytes() == b"secret"


def test_every_change_changes_a_stamp(tmp_path: Path) -> None:
    folder = VoiceFolder(tmp_path)
    stamps = []
    for _ in range(20):
        folder.put({"alice": data()}, replace=True)
        stamps.append((folder.stamp("alice"), folder.folder_stamp()))
    assert len({stamp for stamp, _ in stamps}) == len({stamp for _, stamp in stamps}) == 20


def test_the_header_is_read_as_the_library_reads_it(tmp_path: Path) -> None:
    folder = VoiceFolder(tmp_path)
    folder.put({"alice": data()}, replace=False)
    path = tmp_path / "alice.safetensors"
    with safe_open(path, "pt") as file:
        assert list(file.metadata()) == ["light_tts_voice"]
        assert read_info(path).prompt_text in file.metadata()["light_tts_voice"]
    for content in (b"", b"\xff" * 8, b"\xff" * 100, data()[:-1], data() + b"x"):
        path.write_bytes(content)
        with pytest.raises(CorruptFile, match=r"alice\.safetensors"):
            folder.info("alice")
