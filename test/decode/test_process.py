from __future__ import annotations

import random
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
import zmq

from light_tts.child import Control
from light_tts.config import ServerConfig
from light_tts.decode.process import DecodeProcess, create
from light_tts.decode.speech_decoder import SpeechDecoder
from light_tts.errors import ModelNotFound
from light_tts.messages import (
    Abort,
    AudioChunk,
    Heartbeat,
    RequestFailed,
    SegmentClosed,
    SpeechTokens,
    Stage,
    ToDecode,
    ToHttp,
    ToLlm,
    ToSupervisor,
)
from light_tts.transport import Inbox, Outbox, address, supervisor_address
from test.decode.harness import Bench, make_tokens, make_voice, open_message
from test.parity.report import LONG_WAVE

TOLERANCE = round(LONG_WAVE * 32768)  # see test_service.py


class Peers:
    """The processes around a decode process, all in this test's thread."""

    def __init__(self, run_dir: Path) -> None:
        self.http_address = address(run_dir, Stage.HTTP, 1)
        self.http: Inbox[ToHttp] = Inbox(self.http_address, ToHttp)  # type: ignore[arg-type]
        self.llm: Inbox[ToLlm] = Inbox(address(run_dir, Stage.LLM, 0), ToLlm)  # type: ignore[arg-type]
        self.supervisor: Inbox[ToSupervisor] = Inbox(supervisor_address(run_dir), ToSupervisor)  # type: ignore[arg-type]
        self.decode = address(run_dir, Stage.DECODE, 0)
        self.outbox = Outbox()
        self.audio: dict[tuple[str, int], list[AudioChunk]] = {}
        self.failed: dict[str, str] = {}
        self.closed: list[tuple[str, int]] = []

    def send(self, message: ToDecode) -> None:
        if isinstance(message, msgspec.Struct) and hasattr(message, "reply_to"):
            message = msgspec.structs.replace(message, reply_to=self.http_address)
        self.outbox.send(self.decode, message)

    def listen(self, timeout_s: float = 0.05) -> None:
        first = self.http.receive(timeout_s)
        for message in [first, *self.http.drain()] if first is not None else []:
            if isinstance(message, AudioChunk):
                self.audio.setdefault((message.request_id, message.segment), []).append(message)
            elif isinstance(message, RequestFailed):
                assert message.request_id not in self.failed
                self.failed[message.request_id] = message.code
        for closed in self.llm.drain():
            assert isinstance(closed, SegmentClosed)
            self.closed.append((closed.request_id, closed.segment))

    def wait_closed(self, number: int) -> None:
        limit = time.monotonic() + 60
        while len(self.closed) < number:
            assert time.monotonic() < limit, f"{len(self.closed)} of {number} segments closed"
            self.listen()
        self.listen(0.2)

    def heard(self, key: tuple[str, int]) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
        chunks = self.audio[key]
        assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
        assert [chunk.last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
        return np.frombuffer(b"".join(chunk.samples for chunk in chunks), np.int16)

    def close(self) -> None:
        for box in (self.http, self.llm, self.supervisor):
            box.close()
        self.outbox.close(0)


def make_config(model_dir: Path, **options: object) -> ServerConfig:
    return ServerConfig(model_dir=model_dir, num_gpus=0, cpu_threads=1, **options)  # type: ignore[arg-type]


@contextmanager
def running(config: ServerConfig) -> Iterator[tuple[Peers, DecodeProcess]]:
    with tempfile.TemporaryDirectory(prefix="lt-") as folder:
        run_dir = Path(folder)
        peers = Peers(run_dir)
        process = create(config, run_dir, 0)
        control = Control(run_dir, Stage.DECODE, 0)
        thread = threading.Thread(target=process.run, args=(control,))
        thread.start()
        try:
            yield peers, process
        finally:
            control.stop()
            thread.join(30)
            assert not thread.is_alive()
            control.close()
            peers.close()


def test_many_requests_over_sockets_each_get_their_own_audio(golden: Path) -> None:
    config = make_config(golden / "cosyvoice2", decode_max_batch_size=4, decode_paral_num=2)
    counts, rng = [12, 45, 30, 12, 45, 30], random.Random(1)
    with running(config) as (peers, process):
        rest = {}
        for index, count in enumerate(counts):
            peers.send(open_message(f"r{index}", voice=make_voice(37, index % 2), stream=index != 4))
            rest[index] = list(make_tokens(count, count))
        while rest:
            index = rng.choice(list(rest))
            burst, rest[index] = tuple(rest[index][:9]), rest[index][9:]
            peers.send(SpeechTokens(f"r{index}", 0, burst, not rest[index]))
            if not rest[index]:
                del rest[index]
            peers.listen(0.002)
        peers.wait_closed(len(counts))
        assert process.service.num_segments == 0
        decoder = process.service.decoder
        for index, count in enumerate(counts):
            expected = alone(decoder, count, index % 2, stream=index != 4)
            heard = peers.heard((f"r{index}", 0))
            assert heard.shape == expected.shape
            assert int(np.abs(heard.astype(int) - expected).max()) <= TOLERANCE
    assert not peers.failed


def alone(
    decoder: SpeechDecoder, count: int, voice: int, *, stream: bool
) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    bench = Bench(decoder)
    bench.service.handle(open_message("r", voice=make_voice(37, voice), stream=stream))
    bench.say(("r", 0), make_tokens(count, count))
    bench.settle()
    return bench.audio(("r", 0))


def test_aborts_at_random_moments_leave_nothing(golden: Path) -> None:
    config = make_config(golden / "cosyvoice2", decode_max_batch_size=4, decode_paral_num=2)
    rng = random.Random(2)
    with running(config) as (peers, process):
        actions: list[list[ToDecode]] = []
        for index in range(12):
            script: list[ToDecode] = [
                open_message(f"r{index}", voice=make_voice(37), stream=rng.random() < 0.8)
            ]
            script += [SpeechTokens(f"r{index}", 0, make_tokens(15, n), n == 2) for n in range(3)]
            script.insert(rng.randint(0, 4), Abort(f"r{index}"))
            actions.append(script)
        while actions:
            script = rng.choice(actions)
            peers.send(script.pop(0))
            if not script:
                actions.remove(script)
            peers.listen(0.01)
        peers.wait_closed(12)
        assert process.service.num_segments == 0
        assert process.service.num_jobs == 0
        beats = [beat for beat in peers.supervisor.drain() if isinstance(beat, Heartbeat)]
        assert beats
        time.sleep(0.7)
        last = [beat for beat in peers.supervisor.drain() if isinstance(beat, Heartbeat)][-1]
        assert (last.queued, last.oldest_s, last.running) == (0, 0.0, 0)
    assert sorted(peers.closed) == sorted((f"r{index}", 0) for index in range(12))
    assert not peers.failed


def test_garbage_and_a_client_without_an_address_hurt_nobody(golden: Path) -> None:
    with running(make_config(golden / "cosyvoice2")) as (peers, _):
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        with context.socket(zmq.PUSH) as socket:
            socket.connect(peers.decode)
            socket.send(b"\xc1 no message")
            socket.send(msgspec.msgpack.encode(["Abort", 7]))
            bad = msgspec.structs.replace(open_message("lost", stream=False), reply_to="nowhere")
            socket.send(msgspec.msgpack.encode(bad))
            socket.send(msgspec.msgpack.encode(SpeechTokens("lost", 0, make_tokens(5), True)))
            peers.wait_closed(1)
        context.term()
        peers.send(open_message("r"))
        peers.send(SpeechTokens("r", 0, make_tokens(5), True))
        peers.wait_closed(2)
        assert len(peers.heard(("r", 0)))


def test_it_says_what_it_runs_on(golden: Path) -> None:
    config = make_config(golden / "cosyvoice3", decode_paral_num=2)
    with running(config) as (_, process):
        info = process.info()
    assert (info["device"], info["dtype"], info["flow_backend"]) == ("cpu", "float32", "torch")
    assert "GPU" in info["flow_backend_reason"]
    assert int(info["state_limit_mb"]) > 0
    assert int(info["state_kb_per_frame"]) > 0


def test_a_missing_model_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        create(make_config(tmp_path / "none"), tmp_path, 0)
