"""Where a voice's name leads: voices saved by the user, those of the model directory, CosyVoice's `spk2info.pt`."""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import dataclass
from pathlib import Path

from light_tts.audio import Audio, content_hash
from light_tts.encode.audio import AudioLimits, load_audio
from light_tts.encode.features import PromptFeatures
from light_tts.encode.prompt_cache import PromptCache
from light_tts.encode.prompt_encoder import PromptEncoder
from light_tts.encode.voice_file import Voice, VoiceInfo
from light_tts.encode.voices import VoiceStore, import_spk2info
from light_tts.errors import (
    CorruptFile,
    InvalidAudio,
    InvalidInput,
    LightTTSError,
    VoiceMismatch,
    VoiceNotFound,
)
from light_tts.voice_info import NAME
from light_tts.voice_info import ListedVoice as ListedVoice

logger = logging.getLogger(__name__)

MAX_PROMPT_BYTES = 100_000_000
_NAMES_TOLD = 20


@dataclass(frozen=True, slots=True)
class _Listing:
    """stamp: of the folders when they were listed"""

    stamp: tuple[str | None, ...]
    voices: tuple[ListedVoice, ...]


class VoiceCatalog:
    """Finds voices by name, and encodes recordings. Safe to share by threads.

    Of recordings that come with requests, and of registered voices, `capacity` are kept each; the model's own
    recordings are encoded once and stay. A registered voice that was replaced is read again, whoever replaced it.

    model_dir: may hold `voices/NAME.safetensors`, `prompts.json` (a list of name, wav, text, lang) and `spk2info.pt`
    store: voices registered by the user; they win over the model's own of the same name
    limits: of the recordings that come with requests, not wider than the encoder's
    """

    def __init__(
        self,
        model_dir: Path,
        encoder: PromptEncoder,
        embed_dim: int,
        store: VoiceStore | None,
        capacity: int,
        limits: AudioLimits | None = None,
    ) -> None:
        self._model_dir = model_dir
        self._encoder = encoder
        self.embed_dim = embed_dim
        self._store = store
        self._shipped = VoiceStore(model_dir / "voices", embed_dim)
        self._limits = limits or AudioLimits()
        self._cache: PromptCache[PromptFeatures] = PromptCache(capacity)
        self._stored: PromptCache[Voice] = PromptCache(capacity)
        self._recordings = _read_prompts(model_dir)
        self._recorded: PromptCache[Voice] = PromptCache(len(self._recordings))
        self._lock = threading.Lock()
        self._imported: dict[str, Voice] | None = None
        self._listed: _Listing | None = None
        self.encoder_id = encoder.identity  # that registered voices must have, or none

    @property
    def store(self) -> VoiceStore:
        """Where voices are registered. Raises InvalidInput where they cannot be."""
        if self._store is None:
            raise InvalidInput("voices cannot be registered: no folder for them was given (--voices_dir)")
        return self._store

    @property
    def num_evicted(self) -> int:
        """Recordings that came with requests and were dropped for want of room, so far."""
        return self._cache.num_evicted

    def forget_stored(self) -> None:
        """Read registered voices anew."""
        self._stored.forget_all()
        with self._lock:
            self._listed = None

    def prepare(self) -> None:
        """Encode the model's own recordings now, rather than with the first request for each; one that cannot be used
        is told in the log.
        """
        for name in [*self._recordings]:
            try:
                self.get(name)
            except LightTTSError as error:
                logger.warning("voice %s cannot be used: %s", name, error)
        self._spk2info()

    def list(self) -> list[ListedVoice]:
        """All voices that can be read, each name once, in the order in which a name is looked up."""
        stamp = tuple(store.folder_stamp() if store else None for store in (self._store, self._shipped))
        with self._lock:
            if self._listed is not None and self._listed.stamp == stamp:
                return [*self._listed.voices]
        voices = self._list()
        with self._lock:
            self._listed = _Listing(stamp, voices)
        return [*voices]

    def _list(
        self, stores: tuple[tuple[VoiceStore | None, str], ...] | None = None
    ) -> tuple[ListedVoice, ...]:
        found: dict[str, ListedVoice] = {}
        for store, kind in stores or ((self._store, "registered"), (self._shipped, "built-in")):
            for name in store.list() if store else ():
                info = _readable_info(store, name) if store else None
                if info is not None and self._fits(info):
                    found.setdefault(name, ListedVoice(name, kind, info.language, info.description))
        for name, (_, info) in self._recordings.items():
            found.setdefault(name, ListedVoice(name, "built-in", info.language, info.description))
        for name in self._spk2info():
            found.setdefault(name, ListedVoice(name, "spk2info", "", ""))
        return tuple(found.values())

    def own_voices(self) -> tuple[ListedVoice, ...]:
        """Those of the model, registered voices aside."""
        return self._list(stores=((self._shipped, "built-in"),))

    def get(self, name: str) -> Voice:
        """Raises VoiceNotFound, which names the voices that exist; VoiceMismatch."""
        for kind, store in (("registered", self._store), ("shipped", self._shipped)):
            stamp = store.stamp(name) if store is not None else None
            if store is not None and stamp is not None:
                return self._read(store, name, f"{kind}/{name}/{stamp}")
        if name in self._recordings:
            with self._recorded.acquire(name, lambda: self._record(name)) as handle:
                return handle.value
        if name in self._spk2info():
            return self._spk2info()[name]
        names = [voice.name for voice in self.list()]
        more = f" and {len(names) - _NAMES_TOLD} more" if len(names) > _NAMES_TOLD else ""
        known = (", ".join(names[:_NAMES_TOLD]) or "none") + more
        raise VoiceNotFound(f"there is no voice {name[:140]!r}; known voices: {known}")

    def default(self, language: str) -> Voice:
        """The model's first voice of `language` ("zh" or "en"), else its first of all. Registered voices are taken only
        where it has none: what one client registers must not change what others hear.
        """
        voices = self.list()
        if not voices:
            raise VoiceNotFound(
                "the model has no voice of its own: give prompt_audio, a recording of a voice"
            )
        own = [voice for voice in voices if voice.kind != "registered"] or voices
        matching = [voice for voice in own if voice.language == language]
        return self.get((matching or own)[0].name)

    def encode(self, source: Path | str | bytes | Audio, *, trim: bool = True) -> PromptFeatures:
        """The features of a recording. Raises InvalidAudio, PromptTooShort or PromptTooLong."""
        return self.look_up(source, trim=trim)[0]

    def look_up(
        self, source: Path | str | bytes | Audio, *, trim: bool = True
    ) -> tuple[PromptFeatures, bool]:
        """As `encode`, and whether they were there already (or another thread was at work on them)."""
        if isinstance(source, Path | str):
            source = _read_file(Path(source))
        key = f"{content_hash(source)}/{trim}"
        recording = source
        handle = self._cache.acquire(key, lambda: self._encoder.encode(self._decoded(recording), trim))
        with handle:
            return handle.value, handle.hit

    def decode(self, source: Path | str | bytes | Audio) -> Audio:
        """A recording in memory. Raises InvalidAudio, PromptTooShort or PromptTooLong."""
        return self._decoded(_read_file(Path(source)) if isinstance(source, Path | str) else source)

    def register(
        self, name: str, source: Path | str | bytes | Audio, prompt_text: str, language: str
    ) -> None:
        """Encode a recording and keep it under `name`. Raises InvalidInput where there is no store."""
        store = self.store
        info = VoiceInfo(name=name, prompt_text=prompt_text, language=language, encoder=self.encoder_id)
        store.save(Voice(info, self.encode(source)))
        self.forget_stored()

    def _read(self, store: VoiceStore, name: str, key: str) -> Voice:
        with self._stored.acquire(key, lambda: store.get(name)) as handle:
            if not self._fits(handle.value.info):
                raise VoiceMismatch(
                    f"voice {name!r} was registered with another model: register its recording with this one"
                )
            return handle.value

    def _fits(self, info: VoiceInfo) -> bool:
        return info.encoder in ("", self.encoder_id)

    def _record(self, name: str) -> Voice:
        path, info = self._recordings[name]
        return Voice(info, self._encoder.encode(load_audio(_read_file(path))))

    def _decoded(self, source: bytes | Audio) -> Audio:
        return source if isinstance(source, Audio) else load_audio(source, self._limits)

    def _spk2info(self) -> dict[str, Voice]:
        with self._lock:
            if self._imported is None:
                path = self._model_dir / "spk2info.pt"
                self._imported = import_spk2info(path, self.embed_dim) if path.is_file() else {}
            return self._imported


def _readable_info(store: VoiceStore, name: str) -> VoiceInfo | None:
    """None for a file that is damaged, or gone meanwhile: one bad voice does not spoil the list."""
    try:
        return store.info(name)
    except LightTTSError as error:
        logger.warning("voice %s cannot be used: %s", name, error)
        return None


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
