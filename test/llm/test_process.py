"""The language model process in a thread of this one, over real sockets."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
import zmq

from light_tts.child import Control
from light_tts.config import ServerConfig
from light_tts.errors import InvalidInput, ModelNotFound
from light_tts.llm.process import LlmProcess, available_bytes, check_pool, create, prefill_tokens
from light_tts.messages import (
    Abort,
    DecodeOpen,
    Heartbeat,
    LlmTask,
    Message,
    PeerReady,
    RequestFailed,
    Routed,
    Sampling,
    SegmentClosed,
    SpeechTokens,
    Stage,
    ToDecode,
    ToHttp,
    ToSupervisor,
)
from light_tts.transport import Inbox, Outbox, address, supervisor_address
from test.llm.wire import task

TIMEOUT_S = 20


def config(model_dir: Path, **changes: Any) -> ServerConfig:
    return ServerConfig(
        model_dir=model_dir, num_gpus=0, max_total_token_num=4096, max_req_total_len=1000, **changes
    )


@dataclass(slots=True)
class Running:
    """The process, and the sockets of those that it talks to."""

    run_dir: Path
    process: LlmProcess
    to_llm: Outbox
    http: Inbox[ToHttp]
    decode: Inbox[ToDecode]
    supervisor: Inbox[ToSupervisor]

    @property
    def http_address(self) -> str:
        return address(self.run_dir, Stage.HTTP, 1)

    def send(self, message: Message) -> None:
        self.to_llm.send(address(self.run_dir, Stage.LLM, 0), message)

    def task(self, request_id: str = "a", **changes: Any) -> LlmTask:
        return task(request_id, reply_to=self.http_address, **changes)

    def tokens_of(self, request_id: str) -> list[int]:
        tokens: list[int] = []
        while (message := self.decode.receive(TIMEOUT_S)) is not None:
            if isinstance(message, SpeechTokens) and message.request_id == request_id:
                tokens += message.tokens
                if message.end:
                    return tokens
        raise AssertionError("no end came")

    def wait_until_empty(self) -> None:
        for _ in range(TIMEOUT_S * 100):
            if self.process.service.num_segments == 0:
                return
            time.sleep(0.01)
        raise AssertionError("segments are left")


@contextmanager
def running(model_dir: Path, run_dir: Path, **changes: Any) -> Iterator[Running]:
    process = create(config(model_dir, **changes), run_dir, 0)
    control = Control(run_dir, Stage.LLM, 0)
    supervisor: Inbox[ToSupervisor] = Inbox(supervisor_address(run_dir), ToSupervisor)  # type: ignore[arg-type]
    http: Inbox[ToHttp] = Inbox(address(run_dir, Stage.HTTP, 1), ToHttp)  # type: ignore[arg-type]
    decode: Inbox[ToDecode] = Inbox(address(run_dir, Stage.DECODE, 0), ToDecode)  # type: ignore[arg-type]
    to_llm = Outbox()
    thread = threading.Thread(target=process.run, args=(control,))
    thread.start()
    try:
        yield Running(run_dir, process, to_llm, http, decode, supervisor)
    finally:
        control.stop()
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()
        for end in (supervisor, http, decode):
            end.close()
        to_llm.close(0)
        control.close()


def test_a_task_comes_out_as_tokens_at_the_decode_process(model_dir: Path, tmp_path: Path) -> None:
    with running(model_dir, tmp_path) as llm:
        llm.send(PeerReady(Stage.DECODE, 0))
        llm.send(llm.task())
        assert isinstance(llm.decode.receive(TIMEOUT_S), DecodeOpen)
        assert len(llm.tokens_of("a")) == 20
        assert llm.http.receive(TIMEOUT_S) == Routed("a", 0, 0)
        llm.send(SegmentClosed(0, "a", 0))
        beat = llm.supervisor.receive(TIMEOUT_S)
        assert isinstance(beat, Heartbeat)
        assert beat.stage is Stage.LLM
        llm.wait_until_empty()


def test_what_is_no_message_and_no_address_does_no_harm(
    golden: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running(golden / "cosyvoice2", tmp_path) as llm:
        context = zmq.Context()
        socket = context.socket(zmq.PUSH)
        socket.connect(address(tmp_path, Stage.LLM, 0))
        for junk in (b"", b"\xff\x00", msgspec.msgpack.encode(["Nothing", 1]), b"\x93"):
            socket.send(junk)
        llm.send(PeerReady(Stage.DECODE, 0))
        llm.send(task("lost", text=(), reply_to="nowhere"))
        llm.send(llm.task("bad", text=(10**6,)))
        llm.send(llm.task("good"))
        assert len(llm.tokens_of("good")) == 20
        failed = llm.http.receive(TIMEOUT_S)
        assert isinstance(failed, RequestFailed)
        assert (failed.request_id, failed.code) == ("bad", "invalid_input")
        socket.close(0)
        context.term()
    assert caplog.text.count("dropped a message that is none") == 4


def test_an_abort_reaches_the_decode_process_and_stops_the_work(golden: Path, tmp_path: Path) -> None:
    with running(golden / "cosyvoice2", tmp_path) as llm:
        llm.send(PeerReady(Stage.DECODE, 0))
        endless = Sampling(min_token_text_ratio=150, max_token_text_ratio=150)
        llm.send(llm.task(sampling=endless))
        assert isinstance(llm.decode.receive(TIMEOUT_S), DecodeOpen)
        llm.send(Abort("a"))
        while not isinstance(message := llm.decode.receive(TIMEOUT_S), Abort):
            assert message is not None
            assert not getattr(message, "end", False)
        llm.wait_until_empty()


def test_it_stops_soon_also_in_the_middle_of_work(golden: Path, tmp_path: Path) -> None:
    with running(golden / "cosyvoice2", tmp_path) as llm:
        llm.send(PeerReady(Stage.DECODE, 0))
        llm.send(llm.task(sampling=Sampling(min_token_text_ratio=150, max_token_text_ratio=150)))
        assert isinstance(llm.decode.receive(TIMEOUT_S), DecodeOpen)
        start = time.monotonic()
    assert time.monotonic() - start < 2


def test_info_tells_what_really_runs(
    golden: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    with caplog.at_level("INFO"):
        process = create(
            config(golden / "cosyvoice3", mode=("triton_flashdecoding", "ppl_int8kv")), tmp_path, 0
        )
    info = process.info()
    assert (info["device"], info["attention"], info["kv_cache"]) == ("cpu", "torch-eager", "int8")
    assert caplog.text.count("triton_flashdecoding") == 1
    process._inbox.close()
    process._outbox.close()


def test_prompt_tokens_per_step_follow_the_flag(golden: Path) -> None:
    cpu = torch.device("cpu")
    assert prefill_tokens(config(golden, batch_max_tokens=64), cpu) == 64
    assert prefill_tokens(config(golden), cpu) == 512


def test_a_pool_that_memory_does_not_hold_is_refused(golden: Path) -> None:
    plain = config(golden)
    check_pool(plain, 10**6, available_bytes(plain, torch.device("cpu")))
    with pytest.raises(InvalidInput, match=r"max_total_token_num is 4096.*8\.0 GB.*4\.0 GB"):
        check_pool(plain, 8 * 2**30, 4 * 2**30)


def test_a_missing_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="nowhere"):
        create(config(tmp_path / "nowhere"), tmp_path, 0)
