"""The processes behind an HTTP worker, played by one thread that does what a script says; and the worker over it."""

from __future__ import annotations

import heapq
import itertools
import os
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import uvicorn
from starlette.testclient import TestClient

from light_tts.config import ServerConfig
from light_tts.messages import (
    Abort,
    AudioChunk,
    Message,
    PeerLost,
    Planned,
    RequestFailed,
    Routed,
    Stage,
    Synthesize,
    TextAppend,
    ToEncode,
)
from light_tts.server.api_http import create_app
from light_tts.server.state import FILE_NAME, ChildState, ChildStatus, ServerState, write_state
from light_tts.transport import Inbox, Outbox, address

Step = tuple[float, Message]  # after so many seconds, this
Script = Callable[[Synthesize], Sequence[Step]]
STAGES = (Stage.ENCODE, Stage.LLM, Stage.DECODE)


def samples(segment: int, index: int, num_samples: int = 240) -> bytes:
    """Audio that tells where it belongs."""
    return np.full(num_samples, 100 * segment + index + 1, np.int16).tobytes()


def planned(request: Synthesize, num_segments: int, *, hit: bool | None = True) -> Planned:
    return Planned(request.request_id, num_segments, len(request.text), hit)


def chunk(
    request: Synthesize, segment: int, index: int, *, last: bool = False, num_samples: int = 240
) -> AudioChunk:
    audio = samples(segment, index, num_samples)
    return AudioChunk(request.request_id, segment, index, audio, last, 5 if last else 0)


def spoken(num_segments: int = 2, num_chunks: int = 3, pause_s: float = 0.0) -> Script:
    """Everything in order, and well."""

    def script(request: Synthesize) -> list[Step]:
        steps: list[Step] = [(0.0, planned(request, num_segments))]
        for segment in range(num_segments):
            steps.append((0.0, Routed(request.request_id, segment, 0)))
            for index in range(num_chunks):
                steps.append((pause_s, chunk(request, segment, index, last=index == num_chunks - 1)))
        return steps

    return script


def all_audio(num_segments: int = 2, num_chunks: int = 3) -> bytes:
    """What a client of `spoken` must get."""
    return b"".join(samples(s, i) for s, i in itertools.product(range(num_segments), range(num_chunks)))


def failing(code: str, message: str = "it failed", *, after_chunks: int = 0, pause_s: float = 0.0) -> Script:
    def script(request: Synthesize) -> list[Step]:
        steps: list[Step] = [(0.0, planned(request, 1)), (0.0, Routed(request.request_id, 0, 0))]
        steps += [(pause_s, chunk(request, 0, index)) for index in range(after_chunks)]
        return [*steps, (pause_s, RequestFailed(request.request_id, code, message))]

    return script


def hanging(after_chunks: int = 0) -> Script:
    def script(request: Synthesize) -> list[Step]:
        steps: list[Step] = [(0.0, planned(request, 1)), (0.0, Routed(request.request_id, 0, 0))]
        return steps + [(0.0, chunk(request, 0, index)) for index in range(after_chunks)]

    return script


class FakePipeline:
    """Binds the encode sockets of `run_dir`, keeps state.json fresh, and notes what it was sent."""

    def __init__(self, run_dir: Path, config: ServerConfig, script: Script) -> None:
        self.run_dir = run_dir
        self.config = config
        self.script = script
        self.requests: dict[str, Synthesize] = {}
        self.encode_of: dict[str, int] = {}
        self.texts: dict[str, list[TextAppend]] = {}
        self.aborted: list[str] = []
        self.not_ready: set[tuple[Stage, int]] = set()
        self.draining = False
        self.supervised = True
        self.pids = {(spec.stage, spec.index): 1000 + n for n, spec in enumerate(config.children())}
        self._state_due = 0.0
        self._due: list[tuple[float, int, str, Message]] = []
        self._numbers = itertools.count()
        self._from_test: queue.Queue[Message] = queue.Queue()
        self._stop = threading.Event()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fake pipeline")

    def start(self) -> None:
        self._write_state()
        self._thread.start()
        assert self._listening.wait(5)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(5)

    def send(self, message: Message) -> None:
        """To the HTTP worker, as if some other process had."""
        self._from_test.put(message)

    def _write_state(self) -> None:
        now = time.time()
        children = tuple(
            ChildState(
                spec.stage,
                spec.index,
                self.pids[spec.stage, spec.index],
                ChildStatus.DEAD if (spec.stage, spec.index) in self.not_ready else ChildStatus.READY,
                now,
                now,
            )
            for spec in self.config.children()
        )
        write_state(self.run_dir, ServerState(os.getpid(), now, self.draining, now, children))

    def change_state(
        self,
        *,
        not_ready: tuple[tuple[Stage, int], ...] = (),
        draining: bool = False,
        supervised: bool = True,
    ) -> None:
        """What state.json says from now on; returns once a worker knows it too."""
        self.not_ready, self.draining, self.supervised = set(not_ready), draining, supervised
        if not supervised:
            (self.run_dir / FILE_NAME).unlink()
        self._state_due = 0.0
        time.sleep(0.2)

    def lose(self, stage: Stage, index: int) -> None:
        """Tell the worker that a process is gone, before state.json says so."""
        self.send(PeerLost(stage, index, self.pids[stage, index]))

    def replace(self, stage: Stage, index: int) -> None:
        self.pids[stage, index] += 100
        self.change_state()

    @property
    def num_due(self) -> int:
        """Answers that are still to be sent."""
        return len(self._due)

    def wait_for(self, condition: Callable[[FakePipeline], bool], timeout_s: float = 5.0) -> None:
        end = time.monotonic() + timeout_s
        while not condition(self):
            assert time.monotonic() < end, "what was waited for did not happen"
            time.sleep(0.005)

    def _run(self) -> None:
        inboxes: list[Inbox[ToEncode]] = [
            Inbox(address(self.run_dir, Stage.ENCODE, index), ToEncode)  # type: ignore[arg-type]
            for index in range(self.config.encode_process_num)
        ]
        outbox = Outbox()
        self._listening.set()
        while not self._stop.is_set():
            for index, inbox in enumerate(inboxes):
                message = inbox.receive(0.002 / len(inboxes))
                while message is not None:
                    self._take(index, message)
                    message = inbox.receive(0)
            while self._due and self._due[0][0] <= time.monotonic():
                _, _, to, answer = heapq.heappop(self._due)
                outbox.send(to, answer)
            if self.supervised and time.monotonic() >= self._state_due:
                self._state_due = time.monotonic() + 0.5
                self._write_state()
            while not self._from_test.empty():
                outbox.send(address(self.run_dir, Stage.HTTP, os.getpid()), self._from_test.get())
        for inbox in inboxes:
            inbox.close()
        outbox.close(0.0)

    def _take(self, index: int, message: ToEncode) -> None:
        match message:
            case Synthesize():
                self.requests[message.request_id] = message
                self.encode_of[message.request_id] = index
                if not message.text_open:
                    self._schedule(message.reply_to, self.script(message))
            case TextAppend():
                self._append(message)
            case Abort():
                self.aborted.append(message.request_id)
                self._due = [due for due in self._due if _id_of(due[3]) != message.request_id]
                heapq.heapify(self._due)

    def _append(self, message: TextAppend) -> None:
        """By default each piece of text is spoken as one chunk."""
        pieces = self.texts.setdefault(message.request_id, [])
        request = self.requests[message.request_id]
        steps: list[Step] = [(0.0, chunk(request, 0, len(pieces), last=message.end))]
        pieces.append(message)
        if message.end:
            steps.append((0.0, planned(request, 1)))
        self._schedule(request.reply_to, steps if self.script is not _silent else [])

    def _schedule(self, to: str, steps: Sequence[Step]) -> None:
        due = time.monotonic()
        for delay, message in steps:
            due += delay
            heapq.heappush(self._due, (due, next(self._numbers), to, message))


def _silent(request: Synthesize) -> list[Step]:
    return []


silent: Script = _silent
"""Never answers anything."""


def _id_of(message: Message) -> str:
    return str(getattr(message, "request_id", ""))


@contextmanager
def fake_pipeline(script: Script | None = None, **options: object) -> Iterator[FakePipeline]:
    """options: of ServerConfig"""
    run_dir = Path(tempfile.mkdtemp(prefix="ltts-"))  # short: sockets have short names
    config = ServerConfig(**options)  # type: ignore[arg-type]
    pipeline = FakePipeline(run_dir, config, script or spoken())
    pipeline.start()
    try:
        yield pipeline
    finally:
        pipeline.stop()
        shutil.rmtree(run_dir)


@contextmanager
def client_of(pipeline: FakePipeline) -> Iterator[TestClient]:
    """A client in this process: it sees whole answers only."""
    app = create_app(pipeline.config, pipeline.run_dir)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@contextmanager
def live_server(pipeline: FakePipeline, *, reader_idle_s: float = 30.0) -> Iterator[str]:
    """The worker as uvicorn runs it, on a port of its own: `127.0.0.1:PORT`."""
    app = create_app(pipeline.config, pipeline.run_dir, reader_idle_s=reader_idle_s)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="uvicorn")
    thread.start()
    try:
        end = time.monotonic() + 10
        while not server.started:
            assert time.monotonic() < end, "uvicorn did not start"
            assert thread.is_alive(), "uvicorn ended"
            time.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(15)
