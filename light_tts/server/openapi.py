"""What the OpenAPI document says of a synthesis route, out of the tables that the server itself goes by."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from light_tts.config import ServerConfig
from light_tts.errors import RETRY_AFTER_S, STATUS
from light_tts.request import MAX_PROMPT_CHARS, RANGES, Range
from light_tts.server.audio_stream import AUDIO_HEADERS
from light_tts.server.containers import MEDIA_TYPES
from light_tts.server.error_response import ErrorBody
from light_tts.server.limits import MAX_NAME_CHARS
from light_tts.server.schemas import FORMATS, SynthesisFields

_BODY_TYPES = ("multipart/form-data", "application/json", "application/x-www-form-urlencoded")
# of other routes, or to nobody
_NOT_ANSWERED = {"method_not_allowed", "not_found", "cancelled"} | {
    "voice_exists",
    "too_many_voices",
    "consent_required",
}
JsonSchema = dict[str, Any]


def request_body(
    schema: type[SynthesisFields], config: ServerConfig, kinds: Sequence[str] = _BODY_TYPES
) -> JsonSchema:
    """Of a route that takes these fields, with what each may be. kinds: of bodies"""
    fields = copy.deepcopy(schema.model_json_schema())
    lengths = {
        schema.names.text: config.max_text_chars,
        schema.names.transcript: MAX_PROMPT_CHARS,
        schema.names.instruction: MAX_PROMPT_CHARS,
        schema.names.voice: MAX_NAME_CHARS,
    }
    for name, field in fields["properties"].items():
        value = _value(field)
        if name in RANGES:
            value.update(_of_range(RANGES[name]))
        if name in lengths:
            value["maxLength"] = lengths[name]
    fields["properties"]["response_format"]["enum"] = list(FORMATS)
    return {"requestBody": {"required": True, "content": {kind: {"schema": fields} for kind in kinds}}}


def responses() -> dict[int | str, JsonSchema]:
    """Of every synthesis route: audio, or one of the errors, which all have one shape."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    told: dict[int | str, JsonSchema] = {
        200: {
            "description": "24 kHz mono, pcm as s16le; an error after the first byte breaks the connection off",
            "content": {kind: binary for kind in MEDIA_TYPES.values()},
            "headers": {
                name: {"schema": {"type": "string", "const": value}}
                for name, value in AUDIO_HEADERS.items()
                if name.startswith("X-S") or name in ("X-Channels", "X-Bit-Depth")
            },
        }
    }
    codes: dict[int, list[str]] = defaultdict(list)
    for code, status in {**STATUS, "internal_error": 500, "generation_failed": 500}.items():
        if code not in _NOT_ANSWERED:
            codes[status].append(code)
    for status, names in sorted(codes.items()):
        told[status] = {"model": ErrorBody, "description": ", ".join(f"`{name}`" for name in names)}
        if any(name in RETRY_AFTER_S for name in names):
            seconds = {"description": "seconds after which to try again", "schema": {"type": "integer"}}
            told[status]["headers"] = {"Retry-After": seconds}
    return told


def openai_responses(*, audio: bool = True) -> dict[int | str, JsonSchema]:
    """Of a route of OpenAI's API, where 422 is 400. audio: whether it speaks"""
    told = responses()
    unprocessable = told.pop(422)
    told[400]["description"] += f", {unprocessable['description']}"
    if not audio:
        return {404: {"model": ErrorBody, "description": "`model_not_found`"}}
    event = {"schema": {"type": "string", "description": "speech.audio.delta, .done, .error"}}
    told[200]["content"]["text/event-stream"] = event
    return told


def batch_body(schema: type[SynthesisFields], config: ServerConfig, max_items: int) -> JsonSchema:
    """Of /v1/audio/speech/batch. schema: of an item, any field of which may be common to all of them"""
    (content,) = request_body(schema, config, ("application/json",))["requestBody"]["content"].values()
    item = content["schema"]
    common = {name: field for name, field in item["properties"].items() if name != schema.names.text}
    items = {"type": "array", "items": item, "minItems": 1, "maxItems": max_items}
    fields = {"type": "object", "properties": {"items": items, **common}, "required": ["items"]}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": fields}}}}


def batch_responses() -> dict[int | str, JsonSchema]:
    """Of /v1/audio/speech/batch."""
    told = openai_responses()
    told[200] = {"description": "results in the order of the items, each with audio_data or with an error"}
    return told


def _value(field: JsonSchema) -> JsonSchema:
    """The schema of a field's value, where there is one."""
    kinds: list[JsonSchema] = field.get("anyOf", [field])
    return next(kind for kind in kinds if kind.get("type") != "null")


def _of_range(limits: Range) -> JsonSchema:
    low = "exclusiveMinimum" if limits.open_low else "minimum"
    return {low: limits.low, "maximum": limits.high}
