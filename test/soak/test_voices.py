"""Registered voices over a whole server: seen by every worker at once, kept by restarts, whole after a kill."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from light_tts.encode.voices import VoiceStore
from light_tts.messages import Stage
from test.soak.harness import Server, running_server, wait_for

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

PATH = "/v1/audio/voices"
NUM_WORKERS = 3
ROUNDS = 30


@pytest.fixture(scope="module")
def recording(golden: Path) -> bytes:
    return (golden / "fixtures" / "prompt_24k.wav").read_bytes()


@pytest.fixture
def flags(golden: Path, tmp_path: Path) -> list[str]:
    flags = ["--model_dir", str(golden / "cosyvoice3"), "--voices_dir", str(tmp_path / "voices")]
    flags += ["--num_gpus", "0", "--httpserver_workers", str(NUM_WORKERS), "--encode_process_num", "2"]
    return flags


@pytest.fixture
def server(flags: list[str]) -> Iterator[Server]:
    with running_server(*flags) as server:
        yield server


def register(server: Server, recording: bytes, name: str, **fields: str) -> httpx.Response:
    data = {"name": name, "consent": "yes", "ref_text": "ok.", **fields}
    return httpx.post(
        server.url + PATH, data=data, files={"audio_sample": recording}, timeout=60, trust_env=False
    )


def speak(server: Server, voice: str) -> httpx.Response:
    """On a connection of its own: any of the workers."""
    data = {"tts_text": "quick fox.", "voice": voice, "seed": "1", "max_token_text_ratio": "4"}
    return httpx.post(server.url + "/inference_zero_shot", data=data, timeout=60, trust_env=False)


def names(server: Server) -> list[str]:
    listed = server.get(f"{PATH}?legacy=true").json()["voices"]
    assert isinstance(listed, list)
    return listed


def seen_by_all(server: Server, name: str, status: int) -> None:
    """Each new connection goes to whichever worker takes it: so many find them all."""
    with ThreadPoolExecutor(8) as pool:
        answers = [*pool.map(lambda _: server.get(f"{PATH}/{name}").status_code, range(8 * NUM_WORKERS))]
    assert set(answers) == {status}


def test_every_worker_and_encode_process_sees_each_change_at_once(server: Server, recording: bytes) -> None:
    for number in range(ROUNDS // 3):
        name = f"v{number}"
        assert register(server, recording, name).status_code == 200
        seen_by_all(server, name, 200)
        with ThreadPoolExecutor(6) as pool:  # both encode processes: the least loaded gets the next
            assert {one.status_code for one in pool.map(lambda n: speak(server, n), [name] * 6)} == {200}
        assert httpx.delete(server.url + f"{PATH}/{name}", trust_env=False).status_code == 200
        seen_by_all(server, name, 404)
        with ThreadPoolExecutor(6) as pool:
            assert {one.status_code for one in pool.map(lambda n: speak(server, n), [name] * 6)} == {404}


def test_a_restart_keeps_voices_and_their_sound(flags: list[str], recording: bytes) -> None:
    with running_server(*flags) as server:
        assert register(server, recording, "mia").status_code == 200
        before = speak(server, "mia")
        assert before.status_code == 200
    with running_server(*flags) as server:
        assert names(server) == ["mia"]
        assert speak(server, "mia").content == before.content


def test_killing_an_encode_process_amid_registrations_leaves_no_half_voice(
    server: Server, recording: bytes, tmp_path: Path
) -> None:
    stop, outcomes = threading.Event(), []

    def keep_registering(prefix: str) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            name = f"{prefix}{number % 40}"
            outcomes.append((name, register(server, recording, name, overwrite="true").status_code))

    threads = [threading.Thread(target=keep_registering, args=(prefix,)) for prefix in "abcd"]
    for thread in threads:
        thread.start()
    for number in range(6):
        time.sleep(1.0)
        child = server.child(Stage.ENCODE, number % 2)
        os.kill(child.pid, signal.SIGKILL)
        server.wait_replaced(Stage.ENCODE, number % 2, child.pid, 60)
    stop.set()
    for thread in threads:
        thread.join(60)
    statuses = {status for _, status in outcomes}
    assert statuses <= {200, 503}, statuses
    store = VoiceStore(tmp_path / "voices")
    contents = {store.get(name).features.content_hash for name in store.list()}
    assert len(contents) == 1  # one recording: every voice is whole, and the same
    assert {name for name, status in outcomes if status == 200} <= set(store.list())
    assert register(server, recording, "last").status_code == 200
    assert {path.suffix for path in (tmp_path / "voices").iterdir()} == {".safetensors"}
    assert sorted(names(server)) == store.list()


def test_voices_that_are_replaced_while_they_speak_spoil_no_answer(server: Server, recording: bytes) -> None:
    assert register(server, recording, "mia").status_code == 200
    stop, statuses = threading.Event(), []

    def keep_speaking() -> None:
        while not stop.is_set():
            statuses.append(speak(server, "mia").status_code)

    threads = [threading.Thread(target=keep_speaking) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(ROUNDS):
        assert register(server, recording, "mia", overwrite="true", ref_text="ok. " * (number % 3)).is_success
    stop.set()
    for thread in threads:
        thread.join(60)
    assert set(statuses) == {200}
    server.wait_idle()


def test_of_many_that_want_one_name_one_gets_it(server: Server, recording: bytes) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = [*pool.map(lambda _: register(server, recording, "mia").status_code, range(8))]
    assert sorted(answers) == [200] + [409] * 7
    wait_for("no work", lambda: names(server) == ["mia"], 5)
