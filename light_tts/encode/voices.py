"""Registered voices on disk, and voices from CosyVoice's own format."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
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
    read_voice,
    voice_of,
    write_voice,
)
from light_tts.encode.voice_folder import VoiceFolder
from light_tts.errors import CorruptFile, InvalidInput, ModelNotFound, VoiceNotFound
from light_tts.models.torch_archive import load_torch_archive
from light_tts.voice_info import MAX_VOICES, check_name


class VoiceStore(VoiceFolder):
    """A folder of voices, with their numbers."""

    def __init__(self, folder: Path, embed_dim: int = 192, max_voices: int = MAX_VOICES) -> None:
        super().__init__(folder, max_voices)
        self._embed_dim = embed_dim

    def list(self) -> list[str]:
        """Sorted names of the voices, damaged ones included."""
        return self.names()

    def get(self, name: str) -> Voice:
        """Raises VoiceNotFound, or CorruptFile if the file is not what `save` writes."""
        path = self.existing(name)
        try:
            return read_voice(path, self._embed_dim)
        except FileNotFoundError as error:  # deleted meanwhile
            raise VoiceNotFound(f"there is no voice {name!r}") from error

    def save(self, voice: Voice, *, replace: bool = True) -> Voice:
        """Write the voice under `voice.info.name`. Returns it with `created_at` filled in; see `save_all`."""
        return self.save_all([voice], replace=replace)[0]

    def save_all(self, voices: Sequence[Voice], *, replace: bool) -> Sequence[Voice]:
        """Write all of the voices, or none where one is refused; a reader sees each as it was or as it is now.

        Raises InvalidInput for what cannot be stored, VoiceExists, TooManyVoices, Unavailable; OSError.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        dated = [
            voice
            if voice.info.created_at
            else dataclasses.replace(voice, info=dataclasses.replace(voice.info, created_at=now))
            for voice in voices
        ]
        self.put({voice.info.name: self._bytes(voice) for voice in dated}, replace=replace)
        return dated

    def _bytes(self, voice: Voice) -> bytes:
        name = check_name(voice.info.name)
        try:
            return write_voice(voice, self._embed_dim)
        except ValueError as error:
            raise InvalidInput(f"voice {name!r}: {error}") from error


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
