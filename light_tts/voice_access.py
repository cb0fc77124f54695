"""Registered voices from the shell: on disk, as the server has them there, or through a running server."""

from __future__ import annotations

import json
import time
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

import httpx
import msgspec

from light_tts.config import ServerConfig
from light_tts.encode.voice_folder import VoiceFolder
from light_tts.errors import InvalidInput, LightTTSError, StageError, Unavailable, VoiceExists, VoiceNotFound
from light_tts.messages import StoreVoices
from light_tts.models.bundled import resolve_model_dir
from light_tts.server.body import validated
from light_tts.voice_info import NAME, ListedVoice, VoiceInfo

if TYPE_CHECKING:
    from light_tts.encode.voice_catalog import VoiceCatalog

TIMEOUT_S = 300.0
_PATH = "/v1/audio/voices"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVoice:
    """What is asked for, in the names of the HTTP fields."""

    name: str
    ref_text: str = ""
    description: str = ""
    language: str = ""
    consent: str = ""
    overwrite: bool = False


class Voices(Protocol):
    """Every method raises errors of `light_tts.errors`, the same for both ways."""

    @abstractmethod
    def list(self) -> tuple[ListedVoice, ...]: ...

    @abstractmethod
    def show(self, name: str) -> VoiceInfo: ...

    @abstractmethod
    def add(self, new: NewVoice, recording: bytes) -> None: ...

    @abstractmethod
    def blend(self, new: NewVoice, parts: Mapping[str, float], prompt_voice: str | None) -> None: ...

    @abstractmethod
    def take_over(self, new: NewVoice, archive: bytes, labels: str) -> tuple[str, ...]: ...

    @abstractmethod
    def rename(self, old: str, new: str) -> None: ...

    @abstractmethod
    def remove(self, name: str) -> None: ...


class VoicesOnDisk(Voices):
    """Safe beside running servers, which see every change at once. Encoders are loaded for what needs them."""

    def __init__(self, model_dir: Path | None, voices_dir: Path, config: ServerConfig) -> None:
        """config: for its limits"""
        self._model_dir = model_dir
        self._config = config
        self._folder = VoiceFolder(voices_dir, config.max_voices)

    def list(self) -> tuple[ListedVoice, ...]:
        return tuple(self._catalog().list())

    def show(self, name: str) -> VoiceInfo:
        if self._folder.stamp(name) is not None:
            return self._folder.info(name)
        return self._catalog().get(name).info

    def add(self, new: NewVoice, recording: bytes) -> None:
        from light_tts.server.voice_schemas import RegisterForm

        form = validated(RegisterForm, {**_fields(new), "audio_sample": recording})
        self._store(form.message(self._config))

    def blend(self, new: NewVoice, parts: Mapping[str, float], prompt_voice: str | None) -> None:
        from light_tts.server.voice_schemas import BlendForm

        form = validated(BlendForm, {**_fields(new), "voices": dict(parts), "prompt_voice": prompt_voice})
        self._store(form.message())

    def take_over(self, new: NewVoice, archive: bytes, labels: str) -> tuple[str, ...]:
        from light_tts.server.voice_schemas import ImportForm

        form = validated(ImportForm, {**_fields(new), "file": archive, "labels": labels})
        return self._store(form.message(self._config))

    def rename(self, old: str, new: str) -> None:
        self._refuse_own(new)
        self._folder.rename(old, new)

    def remove(self, name: str) -> None:
        self._folder.delete(name)

    def _store(self, message: StoreVoices) -> tuple[str, ...]:
        from light_tts.encode.voice_registry import VoiceRegistry

        timed = msgspec.structs.replace(message, deadline_s=time.time() + TIMEOUT_S)
        return tuple(voice.info.name for voice in VoiceRegistry(self._catalog()).store(timed))

    def _refuse_own(self, name: str) -> None:
        if any(voice.name == name for voice in self._catalog().own_voices()):
            raise VoiceExists(f"{name!r} is a voice of the model, which cannot be replaced")

    def _catalog(self) -> VoiceCatalog:
        # Here: these import torch, and what only looks at the folder has no need to wait for it.
        from light_tts.encode.audio import AudioLimits
        from light_tts.encode.prompt_encoder import PromptEncoder
        from light_tts.encode.voice_catalog import VoiceCatalog
        from light_tts.encode.voices import VoiceStore
        from light_tts.models.model_yaml import read_model_config

        folder = resolve_model_dir(self._model_dir)
        model = read_model_config(folder)
        store = VoiceStore(self._folder.path, model.spk_embed_dim, self._config.max_voices)
        limits = AudioLimits(max_seconds=self._config.max_prompt_s)
        encoder = PromptEncoder(folder, model, limits=limits)
        return VoiceCatalog(folder, encoder, model.spk_embed_dim, store, 1, limits)


class VoicesOfServer(Voices):
    """Through the HTTP routes of a running server."""

    def __init__(self, url: str) -> None:
        if not url.startswith(("http://", "https://")):
            raise InvalidInput(f"--server is {url[:200]!r}, it must begin with http:// or https://")
        self._url = url.rstrip("/") + _PATH

    def list(self) -> tuple[ListedVoice, ...]:
        voices = self._ask("GET").get("voices")
        entries = voices if isinstance(voices, list) else []
        return tuple(
            ListedVoice(
                _text(one, "name"), _text(one, "kind"), _text(one, "language"), _text(one, "description")
            )
            for one in entries
        )

    def show(self, name: str) -> VoiceInfo:
        entry = self._ask("GET", _existing(name))
        created = entry.get("created_at")
        at = datetime.fromtimestamp(created, UTC).isoformat() if isinstance(created, int) and created else ""
        return VoiceInfo(
            name=_text(entry, "name"),
            prompt_text=_text(entry, "ref_text"),
            language=_text(entry, "language"),
            description=_text(entry, "description"),
            created_at=at,
            source=_text(entry, "source") or _text(entry, "kind"),
            consent=_text(entry, "consent"),
            mime_type=_text(entry, "mime_type"),
        )

    def add(self, new: NewVoice, recording: bytes) -> None:
        self._ask("POST", fields=_fields(new), files={"audio_sample": recording})

    def blend(self, new: NewVoice, parts: Mapping[str, float], prompt_voice: str | None) -> None:
        content = {**_fields(new), "voices": dict(parts), "prompt_voice": prompt_voice}
        self._ask("POST", "blend", content=content)

    def take_over(self, new: NewVoice, archive: bytes, labels: str) -> tuple[str, ...]:
        fields = {**_fields(new), "labels": labels}
        voices = self._ask("POST", "import", fields=fields, files={"file": archive}).get("voices")
        return tuple(_text(one, "name") for one in voices) if isinstance(voices, list) else ()

    def rename(self, old: str, new: str) -> None:
        self._ask("PATCH", _existing(old), content={"name": new})

    def remove(self, name: str) -> None:
        self._ask("DELETE", _existing(name))

    def _ask(
        self,
        method: str,
        name: str = "",
        *,
        content: Mapping[str, object] | None = None,
        fields: Mapping[str, str] | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> dict[str, object]:
        url = f"{self._url}/{quote(name, safe='')}" if name else self._url
        try:
            answer = httpx.request(method, url, json=content, data=fields, files=files, timeout=TIMEOUT_S)
            told = answer.json()
        except httpx.HTTPError as error:
            raise Unavailable(f"{url}: {error or type(error).__name__}") from error
        except json.JSONDecodeError as error:
            raise Unavailable(f"{url} answers with status {answer.status_code}, and no JSON") from error
        if not isinstance(told, dict):
            raise Unavailable(f"{url} is no server of voices")
        if answer.is_error:
            raise _error_of(told, answer.status_code)
        return told


def _existing(name: str) -> str:
    """A name that may exist; any other could lead to another route. Raises VoiceNotFound."""
    if not NAME.fullmatch(name):
        raise VoiceNotFound(f"there is no voice {name[:140]!r}")
    return name


def _fields(new: NewVoice) -> dict[str, str]:
    """As the routes take them."""
    return {
        "name": new.name,
        "ref_text": new.ref_text,
        "description": new.description,
        "language": new.language,
        "consent": new.consent,
        "overwrite": str(new.overwrite).lower(),
    }


def _error_of(told: dict[str, object], status: int) -> LightTTSError:
    code = _text(told.get("error"), "code") or Unavailable.code
    message = _text(told, "message") or f"the server answers with status {status}"
    if status >= 500:
        return StageError(code, message)
    error = InvalidInput(message)
    error.code = code
    return error


def _text(entry: object, key: str) -> str:
    value = entry.get(key) if isinstance(entry, dict) else None
    return value if isinstance(value, str) else ""
