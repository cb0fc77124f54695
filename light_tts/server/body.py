"""The body of a request, bounded in size and time, and its fields by a schema."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable
from typing import NoReturn, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from light_tts.errors import (
    BodyTimeout,
    BodyTooLarge,
    Cancelled,
    InvalidBody,
    LightTTSError,
    ValidationFailed,
)
from light_tts.server.multipart import MAX_FIELDS, parse_multipart

_SMALL = 32_768  # bytes that are parsed in less time than a thread takes to start
S = TypeVar("S", bound=BaseModel)
Fields = dict[str, object]


async def read_form(request: Request, schema: type[S], *, max_bytes: int, idle_s: float, total_s: float) -> S:
    """The request's fields, out of JSON, a form of either kind, or, without a body, the query.

    idle_s, total_s: how long the client may take between two pieces of the body, and in all
    Raises errors of `light_tts.errors`, all of them the client's fault.
    """
    body = await _read(request, max_bytes, idle_s, total_s)
    query = bytes(request.scope["query_string"])
    content_type = request.headers.get("content-type", "")
    if len(body) + len(query) <= _SMALL:
        return _form(schema, content_type, body, query)
    return await asyncio.to_thread(_form, schema, content_type, body, query)


async def _read(request: Request, max_bytes: int, idle_s: float, total_s: float) -> bytes:
    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said[:20]) > max_bytes:
        raise _too_large(max_bytes)
    pieces: list[bytes] = []
    size = 0
    stream = request.stream()
    try:
        async with asyncio.timeout(total_s):
            while piece := await _next_piece(stream, idle_s):
                size += len(piece)
                if size > max_bytes:
                    raise _too_large(max_bytes)
                pieces.append(piece)
    except TimeoutError as error:
        raise BodyTimeout("the request's body did not come in time") from error
    except ClientDisconnect as error:
        raise Cancelled("the client went away while it sent the request") from error
    finally:
        await stream.aclose()
    return b"".join(pieces)


async def _next_piece(stream: AsyncGenerator[bytes, None], idle_s: float) -> bytes:
    async with asyncio.timeout(idle_s):
        async for piece in stream:
            if piece:
                return piece
    return b""


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the request's body has more than {max_bytes / 1e6:g} MB (--max_body_mb)")


def _form(schema: type[S], content_type: str, body: bytes, query: bytes) -> S:
    return validated(schema, _fields(content_type, body, query))


def validated(schema: type[S], fields: Fields) -> S:
    """Raises ValidationFailed, which names the field."""
    try:
        return schema.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        failed = ValidationFailed(f"{where}: {first['msg']}" if where else first["msg"])
        failed.param = str(first["loc"][0]) if first["loc"] else None
        raise failed from error


def _fields(content_type: str, body: bytes, query: bytes) -> Fields:
    kind = content_type.partition(";")[0].strip().lower()
    if not body:
        return _unique(_url_encoded(query))
    if kind == "application/json" or kind.endswith("+json"):
        return parse_json_object(_decoded(body))
    if kind == "multipart/form-data":
        return _unique(parse_multipart(content_type, body))
    if kind == "application/x-www-form-urlencoded":
        return _unique(_url_encoded(body))
    raise InvalidBody(
        f"Content-Type is {kind[:80]!r}: send multipart/form-data, application/x-www-form-urlencoded "
        "or application/json"
    )


def parse_json_object(text: str) -> Fields:
    """Raises InvalidBody for anything but one object without repeated fields, and for NaN and infinity."""
    try:
        value = json.loads(text, object_pairs_hook=_json_object, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise InvalidBody("the JSON is nested too deeply") from error
    except ValueError as error:
        raise InvalidBody(f"the text is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidBody(f"the JSON is a {type(value).__name__}, it must be an object")
    return value


def _json_object(pairs: list[tuple[str, object]]) -> Fields:
    for name, value in pairs:
        for text in (name, value):
            if isinstance(text, str) and not _is_whole(text):
                raise InvalidBody("a text of the JSON holds half a character")
    return _unique(pairs)


def _is_whole(text: str) -> bool:
    """False for half of a surrogate pair, which cannot be written or sent."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _decoded(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidBody(f"the body is not UTF-8: byte {error.start} of it") from error


def _url_encoded(data: bytes) -> list[tuple[str, str]]:
    if not data:
        return []
    try:
        return parse_qsl(
            data.decode("utf-8"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
    except ValueError as error:
        raise InvalidBody("the fields are not URL-encoded UTF-8") from error


def _unique(pairs: Iterable[tuple[str, object]]) -> Fields:
    fields: Fields = {}
    for name, value in pairs:
        if name in fields:
            raise _about(name, InvalidBody(f"{name[:80]} is given more than once"))
        fields[name] = value
    return fields


def _about(name: str, error: LightTTSError) -> LightTTSError:
    error.param = name[:80]
    return error
