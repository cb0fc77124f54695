"""Bistream connections over a real server, as upstream's client and less polite ones use them."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from light_tts.messages import RequestFailed, Stage, Synthesize
from test.server.fake_pipeline import (
    FakePipeline,
    chunk,
    fake_pipeline,
    live_server,
    planned,
    samples,
    silent,
    spoken,
)

WAV = b"RIFF" + bytes(1000)
SETUP = {"prompt_text": "hello", "tts_model_name": "default"}


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[FakePipeline, str]]:
    with fake_pipeline(max_text_chars=200, max_body_mb=0.1) as pipeline, live_server(pipeline) as host:
        yield pipeline, f"ws://{host}/inference_zero_shot_bistream"


@pytest.fixture
def pipeline(served: tuple[FakePipeline, str]) -> FakePipeline:
    pipeline = served[0]
    pipeline.script = spoken()
    for noted in (pipeline.requests, pipeline.texts, pipeline.aborted):
        noted.clear()
    return pipeline


@pytest.fixture
def connection(served: tuple[FakePipeline, str], pipeline: FakePipeline) -> Iterator[ClientConnection]:
    with connect(served[1]) as connection:
        yield connection


def _send(connection: ClientConnection, *messages: Mapping[str, object] | bytes) -> None:
    for message in messages:
        connection.send(message if isinstance(message, bytes) else json.dumps(message))


def _received(connection: ClientConnection) -> tuple[bytes, list[dict[str, object]], int]:
    """Audio, JSON messages and close code, as upstream's client reads: until it is closed."""
    audio, texts = b"", []
    try:
        while True:
            message = connection.recv(timeout=5)
            if isinstance(message, bytes):
                audio += message
            else:
                texts.append(json.loads(message))
    except ConnectionClosed as closed:
        return audio, texts, closed.rcvd.code if closed.rcvd else 0


def _error(connection: ClientConnection) -> tuple[str, int]:
    _, texts, close_code = _received(connection)
    (body,) = texts
    error = body["error"]
    assert isinstance(error, dict)
    assert body["message"] == error["message"]
    return error["code"], close_code


def _newest(pipeline: FakePipeline) -> Synthesize:
    return list(pipeline.requests.values())[-1]


def test_text_is_passed_on_as_it_comes_and_audio_comes_back(
    pipeline: FakePipeline, connection: ClientConnection
) -> None:
    _send(connection, SETUP, WAV, {"tts_text": "你好"})
    assert connection.recv(timeout=5) == samples(0, 0)
    _send(connection, {"tts_text": "世界"}, {"tts_text": ""}, {"finish": True})
    assert _received(connection) == (samples(0, 1) + samples(0, 2), [], 1000)
    request = _newest(pipeline)
    assert (request.prompt_wav, request.prompt_text, request.text_open) == (WAV, "hello", True)
    assert request.stream
    pieces = [(piece.text, piece.end) for piece in pipeline.texts[request.request_id]]
    assert pieces == [("你好", False), ("世界", False), ("", True)]


def test_a_named_voice_needs_no_recording(pipeline: FakePipeline, connection: ClientConnection) -> None:
    _send(connection, {"voice": "anna", "speed": 1.5, "seed": 7}, {"tts_text": "hi", "finish": True})
    assert _received(connection) == (samples(0, 0), [], 1000)
    request = _newest(pipeline)
    assert (request.voice, request.prompt_wav, request.speed) == ("anna", None, 1.5)
    assert request.sampling.seed == 7


def test_everything_may_be_in_the_first_message(pipeline: FakePipeline, connection: ClientConnection) -> None:
    _send(connection, {"tts_text": "hi", "finish": True})
    assert _received(connection) == (samples(0, 0), [], 1000)


@pytest.mark.parametrize("before", [[], [SETUP], [SETUP, WAV], [SETUP, WAV, {"tts_text": "  "}]])
def test_finishing_before_any_text_is_an_empty_answer(
    pipeline: FakePipeline, connection: ClientConnection, before: list[dict[str, object] | bytes]
) -> None:
    num_requests = len(pipeline.requests)
    _send(connection, *before, {"finish": True})
    assert _received(connection) == (b"", [], 1000)
    assert len(pipeline.requests) == num_requests


def test_blank_text_before_the_first_words_is_kept(
    pipeline: FakePipeline, connection: ClientConnection
) -> None:
    _send(connection, {"voice": "a"}, {"tts_text": " "}, {"tts_text": "a", "finish": True})
    _received(connection)
    (piece,) = pipeline.texts[_newest(pipeline).request_id]
    assert piece.text == " a"


@pytest.mark.parametrize("after_text", [False, True])
def test_cancel_ends_at_once_and_aborts(
    pipeline: FakePipeline, connection: ClientConnection, after_text: bool
) -> None:
    pipeline.script = silent
    _send(connection, SETUP, WAV)
    if after_text:
        _send(connection, {"tts_text": "hello"})
        pipeline.wait_for(lambda p: bool(p.texts))
    _send(connection, {"cancel": True})
    assert _received(connection) == (b"", [], 1000)
    if after_text:
        pipeline.wait_for(lambda p: _newest(p).request_id in p.aborted)


def test_pings_are_answered_at_any_time(pipeline: FakePipeline, connection: ClientConnection) -> None:
    _send(connection, {"ping": 1})
    assert json.loads(connection.recv(timeout=5)) == {"pong": 1}
    _send(connection, {"voice": "a"}, {"tts_text": "hi"})
    assert connection.recv(timeout=5) == samples(0, 0)
    _send(connection, {"ping": True})
    assert json.loads(connection.recv(timeout=5)) == {"pong": True}
    _send(connection, {"finish": True})
    assert _received(connection)[2] == 1000


@pytest.mark.parametrize(
    ("messages", "code", "close_code"),
    [
        ([{"prompt_text": 5}], "validation_error", 1008),
        ([{"speed": 9, "tts_text": "a"}], "invalid_input", 1008),
        ([{"tts_model_name": "b"}], "model_not_found", 1008),
        ([{"response_format": "wav"}], "invalid_input", 1008),
        ([SETUP, {"tts_text": "a"}], "invalid_input", 1008),
        ([SETUP, b"", {"tts_text": "a"}], "invalid_audio", 1008),
        ([SETUP, WAV, WAV], "invalid_body", 1008),
        ([SETUP, bytes(100_001)], "body_too_large", 1009),
        ([{"voice": "a"}, WAV, {"tts_text": "a"}], "invalid_input", 1008),
        ([{"voice": "a"}, {"tts_text": 5}], "validation_error", 1008),
        ([{"voice": "a"}, {"tts_text": "x" * 201}], "text_too_long", 1009),
        ([{"voice": "a"}, {"tts_text": "x" * 199}, {"tts_text": "yy"}], "text_too_long", 1009),
        ([{"voice": "a"}, *[{}] * 200], "text_too_long", 1009),
        ([{"voice": "a"}, {"tts_text": "a"}, WAV], "invalid_body", 1008),
    ],
)
def test_what_cannot_be_is_told_before_the_connection_is_closed(
    pipeline: FakePipeline,
    connection: ClientConnection,
    messages: list[dict[str, object] | bytes],
    code: str,
    close_code: int,
) -> None:
    _send(connection, *messages)
    assert _error(connection) == (code, close_code)


def test_text_after_finish_is_an_error(pipeline: FakePipeline, connection: ClientConnection) -> None:
    pipeline.script = silent
    _send(connection, {"voice": "a"}, {"tts_text": "a", "finish": True}, {"tts_text": "b"})
    assert _error(connection) == ("invalid_body", 1008)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "5", '{"a": 1, "a": 2}', '{"tts_text": "\\ud800"}', "[" * 50_000]
)
def test_what_is_no_json_object_is_told(
    pipeline: FakePipeline, connection: ClientConnection, text: str
) -> None:
    connection.send(text)
    assert _error(connection)[0] in ("invalid_body", "validation_error")


@pytest.mark.parametrize(
    ("code", "close_code"), [("invalid_audio", 1008), ("unavailable", 1013), ("generation_failed", 1011)]
)
def test_what_fails_behind_the_worker_is_told(
    pipeline: FakePipeline, connection: ClientConnection, code: str, close_code: int
) -> None:
    pipeline.script = silent
    _send(connection, SETUP, WAV, {"tts_text": "hello"})
    pipeline.wait_for(lambda p: bool(p.texts))
    pipeline.send(RequestFailed(_newest(pipeline).request_id, code, "it failed"))
    assert _error(connection) == (code, close_code)
    pipeline.wait_for(lambda p: _newest(p).request_id in p.aborted)


def test_a_lost_encode_process_fails_open_text(pipeline: FakePipeline, connection: ClientConnection) -> None:
    _send(connection, {"voice": "a"}, {"tts_text": "hello"})
    assert connection.recv(timeout=5) == samples(0, 0)
    pipeline.lose(Stage.ENCODE, 0)
    assert _error(connection) == ("unavailable", 1013)
    pipeline.replace(Stage.ENCODE, 0)


def test_a_server_that_stops_says_so(pipeline: FakePipeline, connection: ClientConnection) -> None:
    pipeline.change_state(draining=True)
    _send(connection, {"voice": "a"}, {"tts_text": "hello"})
    assert _error(connection) == ("unavailable", 1013)
    pipeline.change_state()


@pytest.mark.parametrize("polite", [True, False])
def test_a_client_that_leaves_aborts(
    served: tuple[FakePipeline, str], pipeline: FakePipeline, polite: bool
) -> None:
    pipeline.script = silent
    with connect(served[1]) as connection:
        _send(connection, {"voice": "a"}, {"tts_text": "hello"})
        pipeline.wait_for(lambda p: bool(p.texts))
        if polite:
            connection.close()
        else:
            connection.socket.shutdown(socket.SHUT_RDWR)
        pipeline.wait_for(lambda p: p.aborted == list(p.requests))


def test_a_request_past_its_deadline_is_told() -> None:
    with fake_pipeline(silent, request_timeout_s=1.0) as pipeline, live_server(pipeline) as host:
        url = f"ws://{host}/inference_zero_shot_bistream"
        with connect(url) as with_text, connect(url) as without:
            _send(with_text, {"voice": "a"}, {"tts_text": "hello"})
            assert _error(with_text) == ("timeout", 1011)
            assert _error(without) == ("timeout", 1011)
        pipeline.wait_for(lambda p: p.aborted == list(p.requests))


def test_a_reader_that_takes_nothing_is_given_up() -> None:
    with (
        fake_pipeline(silent) as pipeline,
        live_server(pipeline, reader_idle_s=0.3) as host,
        connect(f"ws://{host}/inference_zero_shot_bistream", max_queue=1, compression=None) as connection,
    ):
        _send(connection, {"voice": "a"}, {"tts_text": "hello"})
        pipeline.wait_for(lambda p: bool(p.texts))
        for index in range(20):
            pipeline.send(chunk(_newest(pipeline), 0, index, num_samples=500_000))
        pipeline.wait_for(lambda p: p.aborted == list(p.requests))
        connection.socket.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("in_json", [False, True])
def test_recordings_that_wait_for_text_are_counted(monkeypatch: pytest.MonkeyPatch, in_json: bool) -> None:
    monkeypatch.setattr("light_tts.server.http_manager.MAX_ARRIVING", 1)
    setup: list[Mapping[str, object] | bytes] = [SETUP, WAV]
    if in_json:
        setup = [{**SETUP, "prompt_wav": base64.b64encode(WAV).decode()}]
    with fake_pipeline() as pipeline, live_server(pipeline) as host:
        url = f"ws://{host}/inference_zero_shot_bistream"
        with connect(url) as first, connect(url) as second:
            _send(first, *setup, {"ping": 1})
            first.recv()
            _send(second, *setup)
            _, [told], code = _received(second)
            assert (told["error"]["code"], code) == ("overloaded", 1013)  # type: ignore[index]
            _send(first, {"tts_text": "hello"}, {"finish": True})
            assert _received(first)[2] == 1000


def test_a_full_server_says_so() -> None:
    with fake_pipeline(silent, max_pending=1) as pipeline, live_server(pipeline) as host:
        url = f"ws://{host}/inference_zero_shot_bistream"
        with connect(url) as first, connect(url) as second:
            _send(first, {"voice": "a"}, {"tts_text": "hello"})
            pipeline.wait_for(lambda p: bool(p.texts))
            _send(second, {"voice": "a"}, {"tts_text": "hello"})
            assert _error(second) == ("overloaded", 1013)


MESSAGES = st.one_of(
    st.binary(max_size=10),
    st.text(max_size=10),
    st.dictionaries(
        st.sampled_from(["tts_text", "prompt_text", "voice", "finish", "cancel", "ping", "speed", "x"]),
        st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2),
        max_size=4,
    ),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(MESSAGES, max_size=6))
def test_no_messages_make_it_hang_or_stumble(
    served: tuple[FakePipeline, str], pipeline: FakePipeline, messages: list[bytes | str | dict[str, object]]
) -> None:
    start = time.monotonic()
    with connect(served[1]) as connection:
        try:
            for message in (*messages, {"tts_text": "a", "finish": True}):
                connection.send(json.dumps(message) if isinstance(message, dict) else message)
        except ConnectionClosed:
            pass
        _, texts, close_code = _received(connection)
    assert time.monotonic() - start < 5
    assert close_code != 1006
    for text in texts:
        error = text.get("error")
        assert not isinstance(error, dict) or error["code"] != "internal_error"


def test_the_audio_of_several_segments_is_in_order(
    pipeline: FakePipeline, connection: ClientConnection
) -> None:
    pipeline.script = silent
    _send(connection, {"voice": "a"}, {"tts_text": "hello", "finish": True})
    pipeline.wait_for(lambda p: bool(p.texts))
    request = _newest(pipeline)
    for segment, index in ((1, 1), (1, 0), (0, 1), (0, 0)):
        pipeline.send(chunk(request, segment, index, last=index == 1))
    pipeline.send(planned(request, 2))
    audio, _, _ = _received(connection)
    assert audio == b"".join(samples(s, i) for s in (0, 1) for i in (0, 1))
