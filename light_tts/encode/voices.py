"""Registered voices on disk, and voices from CosyVoice's own format."""

from __future__ import annotations

import os
import re
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from light_tts.encode.voice_file import (
    MAX_FILE_BYTES,
    MEL_BINS,
    Voice,
    VoiceInfo,
    check_tensors,
    read_info,
    read_voice,
    voice_of,
    write_voice,
)
from light_tts.errors import CorruptFile, InvalidInput, ModelNotFound, VoiceNotFound
from light_tts.models.torch_archive import load_torch_archive

NAME = re.compile(r"[A-Za-z0-9_\-]{1,128}")
SUFFIX = ".safetensors"


class VoiceStore:
    """One file per voice, `NAME.safetensors`, in a folder. Several processes may share it."""

    def __init__(self, folder: Path, embed_dim: int = 192) -> None:
        self._folder = folder
        self._embed_dim = embed_dim

    def list(self) -> list[str]:
        """Sorted names of the voices, damaged ones included."""
        if not self._folder.is_dir():
            return []
        files = (path for path in self._folder.iterdir() if path.suffix == SUFFIX)
        return sorted(path.stem for path in files if NAME.fullmatch(path.stem))

    def stamp(self, name: str) -> str | None:
        """What changes whenever the voice's file does; None if there is no such voice."""
        return _stamp(self._path(name)) if NAME.fullmatch(name) else None

    def folder_stamp(self) -> str | None:
        """What changes whenever a voice is added, replaced or removed."""
        return _stamp(self._folder)

    def get(self, name: str) -> Voice:
        """Raises VoiceNotFound, or CorruptFile if the file is not what `save` writes."""
        path = self._existing(name)
        try:
            return read_voice(path, self._embed_dim)
        except FileNotFoundError as error:  # deleted meanwhile
            raise VoiceNotFound(f"there is no voice {name!r}") from error

    def info(self, name: str) -> VoiceInfo:
        """As `get`, without reading the numbers."""
        path = self._existing(name)
        try:
            return read_info(path)
        except FileNotFoundError as error:
            raise VoiceNotFound(f"there is no voice {name!r}") from error

    def save(self, voice: Voice) -> Voice:
        """Write the voice under `voice.info.name`; a reader sees the old voice or the new one, never a part.

        Returns the voice with `created_at` filled in. Raises InvalidInput for what cannot be stored.
        """
        name = voice.info.name
        if not NAME.fullmatch(name):
            raise InvalidInput(
                f"voice name {name[:140]!r} must be 1 to 128 letters (a-z, A-Z), digits, '_' or '-'"
            )
        if not voice.info.created_at:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            voice = replace(voice, info=replace(voice.info, created_at=now))
        try:
            data = write_voice(voice, self._embed_dim)
        except ValueError as error:
            raise InvalidInput(f"voice {name!r}: {error}") from error
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = self._folder / f".{name}.{uuid.uuid4().hex}.part"
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path(name))
        finally:
            temporary.unlink(missing_ok=True)
        return voice

    def delete(self, name: str) -> None:
        """Raises VoiceNotFound."""
        try:
            self._existing(name).unlink()
        except FileNotFoundError as error:
            raise VoiceNotFound(f"there is no voice {name!r}") from error

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}{SUFFIX}"

    def _existing(self, name: str) -> Path:
        # No name outside the pattern exists: it could lead out of the folder.
        if not NAME.fullmatch(name) or not self._path(name).is_file():
            raise VoiceNotFound(f"there is no voice {name[:140]!r}")
        return self._path(name)


def _stamp(path: Path) -> str | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return f"{stat.st_mtime_ns}-{stat.st_size}-{stat.st_ino}"


def import_spk2info(path: Path, embed_dim: int = 192) -> dict[str, Voice]:
    """The speakers of CosyVoice's `spk2info.pt`, by the labels that they have there.

    A label may be no valid name for `VoiceStore.save`. The file knows the ids of a transcript, not its text.
    Raises ModelNotFound, UnsafeFile (nothing of the file is run) or CorruptFile.
    """
    if not path.is_file():
        raise ModelNotFound(f"{path} does not exist")
    loaded = load_torch_archive(path)
    if not isinstance(loaded, dict):
        raise CorruptFile(f"{path} holds a {type(loaded).__name__}, not a dictionary of speakers")
    voices: dict[str, Voice] = {}
    for label, entry in loaded.items():
        try:
            voices[str(label)] = _imported(str(label), entry, path.name, embed_dim)
        except ValueError as error:
            raise CorruptFile(f"{path}: speaker {str(label)[:100]!r}: {error}") from error
    return voices


def _imported(label: str, entry: object, source: str, embed_dim: int) -> Voice:
    if not isinstance(entry, dict):
        raise ValueError(f"is a {type(entry).__name__}, must be a dictionary")
    embedding_key = "flow_embedding" if "flow_embedding" in entry else "embedding"
    tensors = {"speaker_embedding": _tensor(entry, embedding_key).reshape(-1).float().clone()}
    if "flow_prompt_speech_token" in entry:
        tensors["speech_token"] = _tensor(entry, "flow_prompt_speech_token").reshape(-1).long().clone()
        tensors["prompt_mel"] = _tensor(entry, "prompt_speech_feat").squeeze(0).float().clone()
    else:
        tensors["speech_token"] = torch.zeros(0, dtype=torch.int64)
        tensors["prompt_mel"] = torch.zeros(0, MEL_BINS)
    if "prompt_text" in entry:
        tensors["prompt_text_ids"] = _tensor(entry, "prompt_text").reshape(-1).long().clone()
    check_tensors(tensors, embed_dim)
    return voice_of(VoiceInfo(name=label, source=source), tensors)


def _tensor(entry: dict[object, object], key: str) -> Tensor:
    value = entry.get(key)
    if not isinstance(value, Tensor):
        raise ValueError(f"{key} is missing" if value is None else f"{key} is a {type(value).__name__}")
    if value.numel() > MAX_FILE_BYTES:
        raise ValueError(f"{key} has {value.numel()} numbers")
    return value
