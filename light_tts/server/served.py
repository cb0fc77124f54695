"""What this server calls its model and its voices towards clients of OpenAI's API."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from light_tts.config import ServerConfig
from light_tts.errors import UnknownModel
from light_tts.server.limits import MODELS, naming
from light_tts.server.schemas import SpeechJob
from light_tts.server.schemas_openai import OpenAISpeech

_ALIASES = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts")
_OPENAI_VOICES = frozenset(
    "alloy ash ballad cedar coral default echo fable marin nova onyx sage shimmer verse".split()
)
_OWNER = "light-tts"


class ServedNames:
    """The one model that is served has the name of its folder. OpenAI's names, and `default`, are the same model, so
    that clients with a fixed name work as they are.
    """

    def __init__(self, config: ServerConfig) -> None:
        self.model = config.model_dir.name if config.model_dir is not None else "light-tts-mini"
        self._bare_stream = config.bare_stream
        self._model_dir = config.model_dir
        self._voices_dir = config.voices_dir

    @property
    def models(self) -> tuple[str, ...]:
        return (self.model, *(name for name in (*MODELS, *_ALIASES) if name != self.model))

    def check_model(self, name: str | None) -> str:
        """What `/v1/models` calls it. Raises UnknownModel.

        A name with an owner before it (`FunAudioLLM/CosyVoice2-0.5B`), other case and a version of OpenAI's
        (`gpt-4o-mini-tts-2025-12-15`) are as good.
        """
        wanted = (name or self.model).rpartition("/")[2].lower()
        for known in self.models:
            if wanted == known.lower() or (known in _ALIASES and wanted.startswith(f"{known}-20")):
                return known
        with naming("model"):
            known_names = ", ".join(self.models)
            raise UnknownModel(f"there is no model {(name or '')[:140]!r}; known models: {known_names}")

    def card(self, name: str) -> dict[str, object]:
        """OpenAI's description of a model."""
        created_s = 0
        if self._model_dir is not None and self._model_dir.is_dir():
            created_s = int(self._model_dir.stat().st_mtime)
        return {"id": name, "object": "model", "created": created_s, "owned_by": _OWNER, "root": self.model}

    def job(self, form: OpenAISpeech, *, accepts_events: bool = False) -> SpeechJob:
        """What a client of OpenAI's API wants here. accepts_events: as it says in a header

        `stream: true` alone means bytes to clients of some servers, and events to those of others: without
        `stream_format` the header decides, and then --bare_stream. Raises InvalidInput.
        """
        self.check_model(form.model)
        wants_events = accepts_events or (form.stream is True and self._bare_stream == "sse")
        return self._settled(form.job(wants_events=wants_events))

    def _settled(self, job: SpeechJob) -> SpeechJob:
        """With the default voice in place of OpenAI's, unless a voice of that name is there."""
        voice = job.request.voice
        if voice is None or voice not in _OPENAI_VOICES or self._has_voice(voice):
            return job
        return replace(job, request=msgspec.structs.replace(job.request, voice=None))

    def _has_voice(self, name: str) -> bool:
        folders = [self._voices_dir, self._model_dir / "voices" if self._model_dir is not None else None]
        return any(folder is not None and (folder / f"{name}.safetensors").is_file() for folder in folders)
