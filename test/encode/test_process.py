"""The encode process over real sockets, in a thread."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import cast

import msgspec
import pytest
import zmq

from light_tts.child import Control
from light_tts.config import ServerConfig
from light_tts.encode.process import EncodeProcess, create
from light_tts.errors import ModelNotFound
from light_tts.messages import (
    Abort,
    LlmTask,
    Message,
    Planned,
    RequestFailed,
    Stage,
    Synthesize,
    TextAppend,
    ToHttp,
    ToLlm,
)
from light_tts.transport import Inbox, Outbox, address

PATIENCE_S = 20.0


@dataclass
class FakeControl:
    stopping: bool = False
    beats: list[tuple[float, int, float, int]] = field(default_factory=list)

    def beat(self, queued: int, oldest_s: float, running: int) -> None:
        self.beats.append((time.monotonic(), queued, oldest_s, running))


@dataclass
class Neighbours:
    """The HTTP worker and the LLM process, as far as the encode process sees them."""

    run_dir: Path
    control: FakeControl
    process: EncodeProcess
    http: Inbox[Message]
    llm: Inbox[Message]
    outbox: Outbox

    def send(self, message: Message) -> None:
        self.outbox.send(address(self.run_dir, Stage.ENCODE, 0), message)

    def synthesize(self, request_id: str, text: str, **fields: object) -> None:
        reply_to = address(self.run_dir, Stage.HTTP, 7)
        message = Synthesize(request_id, reply_to, time.time() + 60, text)
        self.send(msgspec.structs.replace(message, **fields))

    def answer(self) -> Message:
        message = self.http.receive(PATIENCE_S)
        assert message is not None
        return message

    def task(self) -> Message:
        message = self.llm.receive(PATIENCE_S)
        assert message is not None
        return message


@pytest.fixture(scope="module")
def folder(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "cosyvoice3"
    shutil.copytree(golden / "cosyvoice3", folder)
    shutil.copy(golden / "fixtures" / "prompt_24k.wav", folder / "anna.wav")
    entries = [{"name": "anna", "wav": "anna.wav", "text": "ok.", "lang": "en"}]
    (folder / "prompts.json").write_text(json.dumps(entries), "utf-8")
    return folder


@pytest.fixture
def running(folder: Path, tmp_path: Path) -> Iterator[Neighbours]:
    config = ServerConfig(model_dir=folder, encode_paral_num=2, cpu_threads=1, voices_dir=tmp_path / "voices")
    process = create(config, tmp_path, 0)
    control = FakeControl()
    http: Inbox[Message] = Inbox(address(tmp_path, Stage.HTTP, 7), cast(type[Message], ToHttp))
    llm: Inbox[Message] = Inbox(address(tmp_path, Stage.LLM, 0), cast(type[Message], ToLlm))
    outbox = Outbox()
    thread = threading.Thread(target=process.run, args=(cast(Control, control),))
    thread.start()
    yield Neighbours(tmp_path, control, process, http, llm, outbox)
    control.stopping = True
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    for closing in (http, llm, outbox):
        closing.close()


def test_a_request_goes_its_way(running: Neighbours) -> None:
    assert running.process.info() == {"device": "cpu", "threads": "2 x 1", "voices": "1"}
    running.synthesize("r", "quick fox.", voice="anna")
    planned, task = running.answer(), running.task()
    assert isinstance(planned, Planned)
    assert isinstance(task, LlmTask)
    assert (planned.num_segments, task.request_id, task.segment) == (1, "r", 0)


def test_pieces_and_an_abort_keep_their_order(running: Neighbours) -> None:
    running.synthesize("open", "", text_open=True, voice="anna")
    for word in ("hello ", "quick ", "fox. "):
        running.send(TextAppend("open", word))
    task = running.task()
    assert isinstance(task, LlmTask)
    assert task.max_text_tokens is not None
    running.send(Abort("open"))
    while (message := running.task()) != Abort("open"):
        assert getattr(message, "request_id", None) == "open"
    assert running.llm.receive(0.2) is None
    assert running.http.receive(0) is None


def test_what_is_no_message_is_skipped(running: Neighbours, caplog: pytest.LogCaptureFixture) -> None:
    context = zmq.Context()
    socket = context.socket(zmq.PUSH)
    socket.connect(address(running.run_dir, Stage.ENCODE, 0))
    for rubbish in (b"", b"\xc1", b"rubbish", b'["Synthesize"]', b"\x92\xaaSynthesize\x01"):
        socket.send(rubbish)
    socket.close(linger=1000)
    context.term()
    running.synthesize("bad", "", voice="anna")
    failed = running.answer()
    assert isinstance(failed, RequestFailed)
    assert failed.code == "empty_text"


def test_the_heart_beats_when_idle_and_counts_open_requests(running: Neighbours) -> None:
    running.synthesize("open", "hello ", text_open=True, voice="anna")
    deadline = time.monotonic() + PATIENCE_S
    while not any(running_ for *_, running_ in running.control.beats):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    running.send(Abort("open"))
    time.sleep(0.6)
    times = [beat[0] for beat in running.control.beats]
    assert max(later - earlier for earlier, later in pairwise(times)) < 0.5
    assert running.control.beats[-1][1:] == (0, 0.0, 0)


def test_stopping_fails_what_is_open(running: Neighbours) -> None:
    running.synthesize("open", "hello ", text_open=True, voice="anna")
    while not any(running_ for *_, running_ in running.control.beats):
        time.sleep(0.01)
    running.control.stopping = True
    failed = running.answer()
    assert isinstance(failed, RequestFailed)
    assert (failed.request_id, failed.code) == ("open", "unavailable")


def test_a_missing_model_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="nowhere"):
        create(ServerConfig(model_dir=tmp_path / "nowhere"), tmp_path, 0)
