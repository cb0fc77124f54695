"""Bodies of every kind, and what is wrong with them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from starlette.requests import Request
from starlette.types import Message

from light_tts.errors import (
    BodyTimeout,
    BodyTooLarge,
    Cancelled,
    InvalidBody,
    LightTTSError,
    ValidationFailed,
)
from light_tts.server.body import read_form

BOUNDARY = "frontier"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"


class Form(BaseModel):
    text: str
    count: int = 0
    file: bytes | None = None


def _request(body: bytes, content_type: str = "", *, query: bytes = b"", pieces: int = 1) -> Request:
    def messages() -> Iterator[Message]:
        size = -(-len(body) // pieces) or 1
        for at in range(0, len(body), size):
            yield {"type": "http.request", "body": body[at : at + size], "more_body": True}
        yield {"type": "http.request", "body": b"", "more_body": False}

    coming = messages()

    async def receive() -> Message:
        return next(coming)

    headers = [(b"content-type", content_type.encode())] if content_type else []
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": query, "headers": headers}
    return Request(scope, receive)


def _read(
    request: Request, *, max_bytes: int = 10_000_000, idle_s: float = 5.0, total_s: float = 5.0
) -> Form:
    return asyncio.run(read_form(request, Form, max_bytes=max_bytes, idle_s=idle_s, total_s=total_s))


def _multipart(*parts: tuple[str, bytes]) -> bytes:
    """parts: further headers and parameters after the field's name, and content"""
    body = b""
    for name, content in parts:
        body += (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}\r\n\r\n'.encode()
            + content
            + b"\r\n"
        )
    return body + f"--{BOUNDARY}--\r\n".encode()


def test_json_fields_arrive() -> None:
    assert _read(_request(b'{"text": "hi", "count": 3}', "application/json")) == Form(text="hi", count=3)


def test_url_encoded_fields_arrive() -> None:
    kind = "application/x-www-form-urlencoded"
    assert _read(_request(b"text=%E4%BD%A0+%E5%A5%BD&count=3", kind)) == Form(text="你 好", count=3)


def test_a_query_serves_where_there_is_no_body() -> None:
    assert _read(_request(b"", query=b"text=hi&count=3")) == Form(text="hi", count=3)


@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_multipart_fields_and_files_arrive_however_they_are_cut(pieces: int) -> None:
    file = bytes(range(256)) * 300
    parts = ('text"', "你好".encode()), ('count"', b"3"), ('file"; filename="a.wav"', file)
    assert _read(_request(_multipart(*parts), MULTIPART, pieces=pieces)) == Form(
        text="你好", count=3, file=file
    )


def test_a_part_of_a_binary_type_is_a_file_without_a_file_name() -> None:
    parts = ('text"', b"hi"), ('file"\r\nContent-Type: audio/wav', b"\xff\xfe\x00")
    assert _read(_request(_multipart(*parts), MULTIPART)).file == b"\xff\xfe\x00"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"\xff\xfe", "application/json"),
        (b"{", "application/json"),
        (b"[1]", "application/json"),
        (b'"text"', "application/json"),
        (b'{"text": "a", "text": "b"}', "application/json"),
        (b'{"text": {"a": 1, "a": 2}}', "application/json"),
        (b'{"text": "a", "count": NaN}', "application/json"),
        (b'{"text": "a", "count": ' + b"9" * 5000 + b"}", "application/json"),
        (b"[" * 100_000, "application/json"),
        (b'{"a":' * 100_000, "application/json"),
        (b"text=a&text=b", "application/x-www-form-urlencoded"),
        (b"text=%FF", "application/x-www-form-urlencoded"),
        (b"\xff=a", "application/x-www-form-urlencoded"),
        (b"text", "application/x-www-form-urlencoded"),
        (b"&".join(b"f%d=1" % n for n in range(100)), "application/x-www-form-urlencoded"),
        (b"text=hi", "text/plain"),
        (b"text=hi", ""),
        (b"hello", MULTIPART),
        (_multipart(('text"', b"hi")), "multipart/form-data"),
        (_multipart(('text"', b"hi"))[:-10], MULTIPART),
        (_multipart(('text"', b"\xff")), MULTIPART),
        (_multipart(('text"', b"a"), ('text"', b"b")), MULTIPART),
        (_multipart(*((f'f{n}"', b"") for n in range(100))), MULTIPART),
        (f"--{BOUNDARY}\r\n\r\nhi\r\n--{BOUNDARY}--\r\n".encode(), MULTIPART),
    ],
)
def test_a_malformed_body_is_refused(body: bytes, content_type: str) -> None:
    with pytest.raises(InvalidBody):
        _read(_request(body, content_type))


@pytest.mark.parametrize(
    ("body", "field"),
    [(b"{}", "text"), (b'{"text": 1}', "text"), (b'{"text": "a", "count": "x"}', "count")],
)
def test_a_field_that_is_missing_or_of_the_wrong_type_is_named(body: bytes, field: str) -> None:
    with pytest.raises(ValidationFailed, match=field) as caught:
        _read(_request(body, "application/json"))
    assert caught.value.param == field


def test_half_a_character_in_json_is_refused() -> None:
    with pytest.raises(LightTTSError):
        _read(_request(rb'{"text": "\ud800"}', "application/json"))


def test_the_size_limit_holds_without_a_content_length() -> None:
    body = json.dumps({"text": "x" * 5000}).encode()
    with pytest.raises(BodyTooLarge, match="max_body_mb"):
        _read(_request(body, "application/json", pieces=10), max_bytes=5000)
    assert len(_read(_request(body, "application/json", pieces=10), max_bytes=len(body)).text) == 5000


def test_a_content_length_over_the_limit_is_refused_before_reading() -> None:
    async def receive() -> Message:
        raise AssertionError("the body was read")

    headers = [(b"content-length", b"99999")]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}
    with pytest.raises(BodyTooLarge):
        _read(Request(scope, receive), max_bytes=5000)


def test_a_client_that_stops_sending_is_given_up() -> None:
    async def receive() -> Message:
        await asyncio.sleep(60)
        raise AssertionError

    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": []}
    with pytest.raises(BodyTimeout):
        _read(Request(scope, receive), idle_s=0.02)


def test_a_client_that_sends_without_end_but_slowly_is_given_up() -> None:
    async def receive() -> Message:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"x", "more_body": True}

    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": []}
    with pytest.raises(BodyTimeout):
        _read(Request(scope, receive), total_s=0.1)


def test_a_client_that_goes_while_it_sends_has_cancelled() -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": []}
    with pytest.raises(Cancelled):
        _read(Request(scope, receive))


@given(
    st.binary(max_size=200),
    st.sampled_from(["", "application/json", "application/x-www-form-urlencoded", MULTIPART, "\x00;="]),
    st.binary(max_size=20),
)
def test_no_body_raises_anything_but_an_error_with_a_code(body: bytes, kind: str, query: bytes) -> None:
    try:
        form = _read(_request(body, kind, query=query))
    except LightTTSError:
        return
    assert isinstance(form, Form)


@given(
    st.lists(
        st.sampled_from(
            [
                f"--{BOUNDARY}",
                "--",
                "\r\n",
                "\n",
                ":",
                ";",
                '"',
                "name=",
                "Content-Disposition: form-data",
                "x",
            ]
        ),
        max_size=25,
    )
)
def test_no_multipart_raises_anything_but_an_error_with_a_code(tokens: list[str]) -> None:
    try:
        _read(_request("".join(tokens).encode(), MULTIPART))
    except LightTTSError:
        return
