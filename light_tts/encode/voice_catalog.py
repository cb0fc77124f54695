"""Where a voice's name leads: voices saved by the user, those of the model directory, CosyVoice's `spk2info.pt`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from light_tts.audio import Audio, content_hash
from light_tts.encode.audio import load_audio
from light_tts.encode.features import PromptFeatures
from light_tts.encode.prompt_cache import PromptCache
from light_tts.encode.prompt_encoder import PromptEncoder
from light_tts.encode.voice_file import Voice, VoiceInfo
from light_tts.encode.voices import NAME, VoiceStore, import_spk2info
from light_tts.errors import CorruptFile, InvalidAudio, InvalidInput, VoiceNotFound

MAX_PROMPT_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class ListedVoice:
    """A line of the list of voices. kind: "registered", "built-in" or "spk2info"."""

    name: str
    kind: str
    language: str
    description: str


class VoiceCatalog:
    """Finds voices by name, and encodes recordings; what is encoded once is kept while `capacity` allows.

    model_dir: may hold `voices/NAME.safetensors`, `prompts.json` (a list of name, wav, text, lang) and `spk2info.pt`
    store: voices registered by the user; they win over the model's own of the same name
    """

    def __init__(
        self, model_dir: Path, encoder: PromptEncoder, embed_dim: int, store: VoiceStore | None, capacity: int
    ) -> None:
        self._model_dir = model_dir
        self._encoder = encoder
        self._embed_dim = embed_dim
        self._store = store
        self._shipped = VoiceStore(model_dir / "voices", embed_dim)
        self._cache: PromptCache[PromptFeatures] = PromptCache(capacity)
        self._recordings = _read_prompts(model_dir)
        self._imported: dict[str, Voice] | None = None

    def list(self) -> list[ListedVoice]:
        """All voices, each name once, in the order in which a name is looked up."""
        found: dict[str, ListedVoice] = {}
        for store, kind in ((self._store, "registered"), (self._shipped, "built-in")):
            for name in store.list() if store else ():
                info = store.info(name) if store else VoiceInfo(name=name)
                found.setdefault(name, ListedVoice(name, kind, info.language, info.description))
        for name, (_, info) in self._recordings.items():
            found.setdefault(name, ListedVoice(name, "built-in", info.language, info.description))
        for name in self._spk2info():
            found.setdefault(name, ListedVoice(name, "spk2info", "", ""))
        return list(found.values())

    def get(self, name: str) -> Voice:
        """Raises VoiceNotFound, which names the voices that exist."""
        for store in (self._store, self._shipped):
            if store is not None and name in store.list():
                return store.get(name)
        if name in self._recordings:
            path, info = self._recordings[name]
            return Voice(info, self.encode(path))
        if name in self._spk2info():
            return self._spk2info()[name]
        known = ", ".join(voice.name for voice in self.list()) or "none"
        raise VoiceNotFound(f"there is no voice {name[:140]!r}; known voices: {known}")

    def default(self, language: str) -> Voice:
        """The first voice of `language` ("zh" or "en"), else the first of all."""
        voices = self.list()
        if not voices:
            raise VoiceNotFound(
                "the model has no voice of its own: give prompt_audio, a recording of a voice"
            )
        matching = [voice for voice in voices if voice.language == language]
        return self.get((matching or voices)[0].name)

    def encode(self, source: Path | str | bytes | Audio, *, trim: bool = True) -> PromptFeatures:
        """The features of a recording. Raises InvalidAudio, PromptTooShort or PromptTooLong."""
        if isinstance(source, Path | str):
            source = _read_file(Path(source))
        key = f"{content_hash(source)}/{trim}"
        recording = source
        handle = self._cache.acquire(key, lambda: self._encoder.encode(_decoded(recording), trim))
        with handle:
            return handle.value

    def decode(self, source: Path | str | bytes | Audio) -> Audio:
        """A recording in memory. Raises InvalidAudio, PromptTooShort or PromptTooLong."""
        return _decoded(_read_file(Path(source)) if isinstance(source, Path | str) else source)

    def register(
        self, name: str, source: Path | str | bytes | Audio, prompt_text: str, language: str
    ) -> None:
        """Encode a recording and keep it under `name`. Raises InvalidInput where there is no store."""
        if self._store is None:
            raise InvalidInput("voices cannot be registered: no folder for them was given (voices_dir)")
        info = VoiceInfo(name=name, prompt_text=prompt_text, language=language)
        self._store.save(Voice(info, self.encode(source)))

    def _spk2info(self) -> dict[str, Voice]:
        if self._imported is None:
            path = self._model_dir / "spk2info.pt"
            self._imported = import_spk2info(path, self._embed_dim) if path.is_file() else {}
        return self._imported


def _decoded(source: bytes | Audio) -> Audio:
    return source if isinstance(source, Audio) else load_audio(source)


def _read_file(path: Path) -> bytes:
    """The bytes of a recording that the caller names. Raises InvalidAudio."""
    try:
        if not path.is_file():  # a device or pipe might never end
            raise InvalidAudio(f"audio file {path} does not exist or is no regular file")
        with path.open("rb") as file:
            data = file.read(MAX_PROMPT_BYTES + 1)  # the size that stat tells may be wrong
    except OSError as error:
        raise InvalidAudio(f"audio file {path} cannot be read: {error.strerror}") from error
    if len(data) > MAX_PROMPT_BYTES:
        raise InvalidAudio(f"audio file {path} has more than {MAX_PROMPT_BYTES} bytes")
    return data


def _read_prompts(model_dir: Path) -> dict[str, tuple[Path, VoiceInfo]]:
    """The recordings that `prompts.json` lists. Raises CorruptFile."""
    path = model_dir / "prompts.json"
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text("utf-8"))
        found = {}
        for entry in entries:
            wav = Path(entry["wav"])  # links are followed: model caches are made of them
            if not NAME.fullmatch(entry["name"]) or wav.is_absolute() or ".." in wav.parts:
                raise ValueError(f"name {entry['name']!r} or wav {entry['wav']!r} is not allowed")
            info = VoiceInfo(
                name=entry["name"],
                prompt_text=entry["text"],
                language=entry.get("lang", ""),
                source=entry.get("source", ""),
            )
            found[info.name] = (model_dir / wav, info)
        return found
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFile(f"{path} is no list of voices: {error}") from error
