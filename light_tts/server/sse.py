"""Audio as server-sent events, with the event types of OpenAI's speech API."""

from __future__ import annotations

import base64
import json

from light_tts.errors import LightTTSError
from light_tts.server.error_response import body_of
from light_tts.server.request_state import RequestState

MEDIA_TYPE = "text/event-stream"


def delta_event(audio: bytes, response_format: str) -> bytes:
    """The file grows by `audio`. Empty for no bytes."""
    if not audio:
        return b""
    text = base64.b64encode(audio).decode("ascii")
    return _event("speech.audio.delta", audio=text, response_format=response_format)


def done_event(usage: dict[str, int]) -> bytes:
    """The last one of an answer that is whole."""
    return _event("speech.audio.done", usage=usage)


def error_event(error: LightTTSError) -> bytes:
    """The last one of an answer that is not."""
    return _event("speech.audio.error", error=body_of(error)["error"])


def usage_of(state: RequestState) -> dict[str, int]:
    """Text tokens in, speech tokens (25 a second) out. Known once all audio is there."""
    num_in = state.planned.num_text_tokens if state.planned is not None else 0
    return {
        "input_tokens": num_in,
        "output_tokens": state.num_tokens,
        "total_tokens": num_in + state.num_tokens,
    }


def _event(kind: str, **fields: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()
