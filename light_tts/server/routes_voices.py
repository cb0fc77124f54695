"""Registered voices: `/v1/audio/voices`, in the shapes that clients of vLLM-Omni, SGLang-Omni and Kokoro know."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import MappingProxyType
from typing import TypeVar

from fastapi import APIRouter, Request, Response

from light_tts.config import ServerConfig
from light_tts.errors import LightTTSError, VoiceNotFound
from light_tts.server.body import read_form
from light_tts.server.error_response import ErrorBody, body_of
from light_tts.server.http_manager import HttpServerManager
from light_tts.server.limits import BODY_IDLE_S, naming
from light_tts.server.request_id import request_id_of
from light_tts.server.voice_desk import StoredVoice
from light_tts.server.voice_schemas import BlendForm, ImportForm, RegisterForm, RenameForm, VoiceForm
from light_tts.voice_info import ListedVoice, VoiceInfo

PATH = "/v1/audio/voices"
_FORM_BYTES = 65_536  # of fields beside a file
_FORM, _JSON = "multipart/form-data", "application/json"
_TRUE = {"true", "1", "on", "yes"}
_FIELD_OF = MappingProxyType(
    {
        "voice_exists": "name",
        "invalid_audio": "audio_sample",
        "prompt_too_short": "audio_sample",
        "prompt_too_long": "audio_sample",
    }
)
F = TypeVar("F", bound=VoiceForm)
Json = dict[str, object]


def voice_routes(manager: HttpServerManager) -> APIRouter:
    router = APIRouter(tags=["voices"])
    desk, config = manager.voices, manager.config

    @router.get(PATH)
    async def list_voices(legacy: str = "") -> Json:
        """All voices that a request may name. `legacy=true`: their names alone."""
        own, registered = await desk.own_voices(), await desk.registered()
        names = {voice.info.name for voice in registered}
        voices = [_public(voice) for voice in registered]
        voices += [_listed(voice) for voice in own if voice.name not in names]
        uploaded = [_uploaded(voice) for voice in registered]
        if legacy.lower() in _TRUE:
            return {"voices": [voice["name"] for voice in voices], "uploaded_voices": uploaded}
        return {"object": "list", "voices": voices, "uploaded_voices": uploaded}

    @router.post(PATH, openapi_extra=_body(RegisterForm, _FORM), responses=_ERRORS)
    async def register(request: Request) -> Response:
        """Register a voice out of a recording. Its features are computed once, here."""
        form = await _read(manager, request, RegisterForm, _largest(config))
        with _naming_fields():
            stored = await desk.store(form.message(config), request_id_of(request.scope))
        return _answer({"success": True, "voice": _told(stored[0])})

    @router.post(f"{PATH}/blend", openapi_extra=_body(BlendForm, _JSON), responses=_ERRORS)
    async def blend(request: Request) -> Response:
        """Register a voice between others: their speaker embeddings are mixed."""
        form = await _read(manager, request, BlendForm, _FORM_BYTES)
        with naming("voices"):
            stored = await desk.store(form.message(), request_id_of(request.scope))
        return _answer({"success": True, "voice": _told(stored[0])})

    @router.post(f"{PATH}/import", openapi_extra=_body(ImportForm, _FORM), responses=_ERRORS)
    async def import_voices(request: Request) -> Response:
        """Register speakers of CosyVoice's spk2info.pt. Nothing of the file is run."""
        form = await _read(manager, request, ImportForm, _largest(config))
        stored = await desk.store(form.message(config), request_id_of(request.scope))
        return _answer({"success": True, "voices": [_told(info) for info in stored]})

    @router.get(f"{PATH}/{{name}}", responses=_ERRORS)
    async def get_voice(name: str) -> Response:
        """One voice."""
        if (voice := await desk.info(name)) is not None:
            return _answer({**_public(voice), **_uploaded(voice)})
        for own in await desk.own_voices():
            if own.name == name:
                return _answer(_listed(own))
        return _not_found(VoiceNotFound(f"there is no voice {name[:140]!r}"))

    @router.patch(f"{PATH}/{{name}}", openapi_extra=_body(RenameForm, _JSON), responses=_ERRORS)
    async def rename(name: str, request: Request) -> Response:
        """Rename a registered voice. Who speaks with it already goes on doing so."""
        form = await _read(manager, request, RenameForm, _FORM_BYTES)
        try:
            voice = await desk.rename(name, form.name)
        except VoiceNotFound as error:
            return _not_found(error)
        return _answer({"success": True, "voice": {**_public(voice), **_uploaded(voice)}})

    @router.delete(f"{PATH}/{{name}}", responses=_ERRORS)
    async def delete(name: str) -> Response:
        """Delete a registered voice. Who speaks with it already goes on doing so."""
        try:
            await desk.delete(name)
        except VoiceNotFound as error:
            return _not_found(error)
        return _answer({"success": True, "message": f"voice {name!r} is deleted"})

    return router


async def _read(manager: HttpServerManager, request: Request, schema: type[F], max_bytes: int) -> F:
    with manager.arriving():
        return await read_form(
            request,
            schema,
            max_bytes=max_bytes,
            idle_s=BODY_IDLE_S,
            total_s=manager.config.request_timeout_s,
        )


@contextmanager
def _naming_fields() -> Iterator[None]:
    """Errors that arise behind the HTTP server do not know what the field is called here."""
    try:
        yield
    except LightTTSError as error:
        error.param = error.param or _FIELD_OF.get(error.code)
        raise


def _largest(config: ServerConfig) -> int:
    """Bytes of a body with a file: in JSON it has four thirds of its size."""
    return round(config.max_voice_mb * 1e6 * 4 / 3) + _FORM_BYTES


def _public(voice: StoredVoice) -> Json:
    return _entry(voice.info.name, "registered", voice.info.language, voice.info.description)


def _listed(voice: ListedVoice) -> Json:
    return _entry(voice.name, voice.kind, voice.language, voice.description)


def _entry(name: str, kind: str, language: str, description: str) -> Json:
    return {
        "id": name,
        "name": name,
        "object": "voice",
        "kind": kind,
        "language": language,
        "description": description,
    }


def _told(info: VoiceInfo) -> Json:
    """A voice that was registered a moment ago; it may be gone by now."""
    return {
        "id": info.name,
        "name": info.name,
        "object": "voice",
        "kind": "registered",
        "language": info.language,
        "description": info.description,
        "consent": info.consent,
        "created_at": _seconds(info.created_at),
        "mime_type": info.mime_type,
        "ref_text": info.prompt_text or None,
        "speaker_description": info.description or None,
        "source": info.source,
    }


def _uploaded(voice: StoredVoice) -> Json:
    info = voice.info
    return {
        "name": info.name,
        "consent": info.consent,
        "created_at": _seconds(info.created_at),
        "file_size": voice.num_bytes,
        "mime_type": info.mime_type,
        "ref_text": info.prompt_text or None,
        "speaker_description": info.description or None,
        "source": info.source,
    }


def _seconds(created_at: str) -> int:
    """Since 1970; 0 if it is not known."""
    try:
        return int(datetime.fromisoformat(created_at).timestamp())
    except ValueError:
        return 0


def _answer(content: Json, status: int = 200) -> Response:
    return Response(json.dumps(content), status, media_type=_JSON)


def _not_found(error: LightTTSError) -> Response:
    error.param = "name"
    return _answer({"success": False, **body_of(error)}, 404)


def _body(schema: type[VoiceForm], kind: str) -> Json:
    kinds: Sequence[str] = (kind,) if kind == _JSON else (kind, _JSON)
    fields = schema.model_json_schema(by_alias=False)
    return {"requestBody": {"required": True, "content": {one: {"schema": fields} for one in kinds}}}


_ERRORS: dict[int | str, dict[str, object]] = {
    status: {"model": ErrorBody, "description": text}
    for status, text in {
        400: "`invalid_input`, `validation_error`, `consent_required`, `invalid_audio`, `prompt_too_short`, "
        "`invalid_body`",
        404: "`voice_not_found`",
        408: "`body_timeout`",
        409: "`voice_exists`, `too_many_voices`, `voice_mismatch`",
        413: "`body_too_large`, `prompt_too_long`, `text_too_long`",
        429: "`overloaded`",
        500: "`internal_error`",
        503: "`unavailable`",
        504: "`timeout`",
    }.items()
}
