"""multipart/form-data in memory: fields as text, files as bytes."""

from __future__ import annotations

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from light_tts.errors import InvalidBody

MAX_FIELDS = 64


class _Parts:
    """Takes the parser's callbacks."""

    def __init__(self) -> None:
        self.fields: list[tuple[str, str | bytes]] = []
        self.ended = False
        self._headers: dict[bytes, bytes] = {}
        self._name, self._value = b"", b""
        self._data: list[bytes] = []

    def on_part_begin(self) -> None:
        if len(self.fields) >= MAX_FIELDS:
            raise InvalidBody(f"the body has more than {MAX_FIELDS} parts")
        self._headers, self._data = {}, []
        self._name, self._value = b"", b""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name, self._value = b"", b""

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def on_part_end(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition"))
        if kind != b"form-data" or b"name" not in options:
            raise InvalidBody("a part of the body has no Content-Disposition: form-data with a name")
        name = _text(options[b"name"], "a field's name")
        content = b"".join(self._data)
        if b"filename" in options or not _is_text(self._headers.get(b"content-type", b"text/plain")):
            self.fields.append((name, content))
        else:
            self.fields.append((name, _text(content, name)))

    def on_end(self) -> None:
        self.ended = True


def parse_multipart(content_type: str, body: bytes) -> list[tuple[str, str | bytes]]:
    """Name and value of each part. Raises InvalidBody."""
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise InvalidBody("Content-Type multipart/form-data names no boundary")
    parts = _Parts()
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": parts.on_part_begin,
                "on_header_field": parts.on_header_field,
                "on_header_value": parts.on_header_value,
                "on_header_end": parts.on_header_end,
                "on_part_data": parts.on_part_data,
                "on_part_end": parts.on_part_end,
                "on_end": parts.on_end,
            },
        )
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise InvalidBody(
            "the body is no multipart/form-data of the boundary that its header names"
        ) from error
    if not parts.ended:
        raise InvalidBody("the body ends before its last boundary")
    return parts.fields


def _is_text(content_type: bytes) -> bool:
    return content_type.lower().startswith(b"text/")


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidBody(f"{name} is not UTF-8: byte {error.start} of it") from error
