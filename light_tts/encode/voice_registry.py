"""Voices taken in for good: from a recording, from CosyVoice's `spk2info.pt`, or out of other voices."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from light_tts.encode.voice_blend import blend, check_parts
from light_tts.encode.voice_catalog import VoiceCatalog
from light_tts.encode.voice_file import Voice
from light_tts.encode.voices import import_spk2info
from light_tts.errors import (
    CorruptFile,
    InvalidBody,
    InvalidInput,
    LightTTSError,
    RequestTimeout,
    Unavailable,
    UnsafeFile,
    VoiceExists,
)
from light_tts.messages import RequestFailed, StoreVoices, VoicesStored
from light_tts.observe import request_scope
from light_tts.voice_info import NAME, NAME_RULE, check_name

logger = logging.getLogger(__name__)


class VoiceRegistry:
    """Encodes what is to be registered and stores it where all processes find it. Safe to share by threads.

    A voice of the model is not replaced: what it is called must not depend on who registered what.
    """

    def __init__(self, catalog: VoiceCatalog) -> None:
        self._catalog = catalog

    def answer(self, message: StoreVoices) -> VoicesStored | RequestFailed:
        """Never raises."""
        with request_scope(message.request_id):
            try:
                stored = self.store(message)
                return VoicesStored(message.request_id, tuple(voice.info for voice in stored))
            except LightTTSError as error:
                return RequestFailed(message.request_id, error.code, str(error))
            except Exception as error:
                logger.exception("a voice could not be registered")
                text = f"registering failed: {type(error).__name__}"
                return RequestFailed(message.request_id, LightTTSError.code, text)

    def store(self, message: StoreVoices) -> Sequence[Voice]:
        """Raises InvalidInput and its kinds, VoiceExists, TooManyVoices, RequestTimeout or Unavailable."""
        store = self._catalog.store
        self._check_time(message)
        voices = self._voices(message)
        if not voices:
            raise InvalidInput("the archive holds no speaker")
        self._check_names([voice.info.name for voice in voices], replace=message.replace)
        self._check_time(message)
        stamped = [replace(v, info=replace(v.info, encoder=self._catalog.encoder_id)) for v in voices]
        try:
            stored = store.save_all(stamped, replace=message.replace)
        except OSError as error:
            logger.error("a voice cannot be stored: %s", error)
            raise Unavailable(f"voices cannot be stored: {error.strerror}") from error
        names = ", ".join(voice.info.name for voice in stored)
        logger.info("%d voices registered: %s", len(stored), names)
        return stored

    def _voices(self, message: StoreVoices) -> list[Voice]:
        if message.archive is not None:
            return self._imported(message, message.archive)
        # Before the work: a name is cheap to refuse.
        self._check_names([message.info.name], replace=message.replace)
        if message.blend:
            return [self._blended(message)]
        if message.recording is None:
            raise InvalidInput("nothing to register was given")
        return [Voice(message.info, self._catalog.encode(message.recording))]

    def _blended(self, message: StoreVoices) -> Voice:
        check_parts(message.blend, message.prompt_of)
        parts = [(self._catalog.get(name), weight) for name, weight in message.blend]
        prompt = next((voice for voice, _ in parts if voice.info.name == message.prompt_of), None)
        total = sum(weight for _, weight in message.blend)
        shares = ", ".join(f"{name} {weight / total:.3g}" for name, weight in message.blend)
        speaks_on = f"; recording of {message.prompt_of}" if message.prompt_of else ""
        info = replace(message.info, source=f"blend: {shares}{speaks_on}")
        return blend(info, parts, prompt)

    def _imported(self, message: StoreVoices, archive: bytes) -> list[Voice]:
        found = self._read_archive(archive)
        wanted = dict(message.labels) or {label: label for label in found}
        missing = [label for label in wanted if label not in found]
        if missing:
            raise InvalidInput(f"the archive has no speaker {missing[0][:140]!r}; it has {_told(found)}")
        nameless = [label for label, name in wanted.items() if not NAME.fullmatch(name)]
        if nameless:
            raise InvalidInput(
                f"{_told(nameless)} cannot be names of voices ({NAME_RULE}): give names by labels, such as LABEL=NAME"
            )
        info = replace(message.info, source="CosyVoice spk2info")
        return [replace(found[label], info=replace(info, name=name)) for label, name in wanted.items()]

    def _read_archive(self, archive: bytes) -> dict[str, Voice]:
        with tempfile.TemporaryDirectory(prefix="light-tts-import-") as folder:
            path = Path(folder) / "spk2info.pt"
            path.write_bytes(archive)
            try:
                return import_spk2info(path, self._catalog.embed_dim)
            except (CorruptFile, UnsafeFile) as error:  # here it is the caller's file, not the model's
                raise InvalidBody(str(error).replace(f"{path}", "the archive")) from error

    def _check_names(self, names: list[str], *, replace: bool) -> None:
        """Raises InvalidInput, VoiceExists or TooManyVoices."""
        if len(set(names)) < len(names):
            raise InvalidInput("two speakers were given one name")
        own = {voice.name for voice in self._catalog.own_voices()}
        for name in names:
            if check_name(name) in own:
                raise VoiceExists(f"{name!r} is a voice of the model, which cannot be replaced")
        self._catalog.store.check_room(names, replace=replace)

    @staticmethod
    def _check_time(message: StoreVoices) -> None:
        if time.time() > message.deadline_s:
            raise RequestTimeout("the deadline passed before the voice was encoded")


def _told(labels: Sequence[str] | dict[str, Voice]) -> str:
    shown = [repr(label[:100]) for label in labels]
    return ", ".join(shown[:20]) + (f" and {len(shown) - 20} more" if len(shown) > 20 else "")
