"""The fields of the voices routes as clients send them; each form gives a `StoreVoices`."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from light_tts.config import ServerConfig
from light_tts.errors import BodyTooLarge, ConsentRequired, InvalidAudio, InvalidInput, TextTooLong
from light_tts.messages import StoreVoices
from light_tts.request import MAX_PROMPT_CHARS
from light_tts.server.limits import naming
from light_tts.server.schemas import recording
from light_tts.voice_info import NAME_RULE, VoiceInfo, check_name

MAX_DESCRIPTION_CHARS = 1000
_REFUSALS = {"false", "no", "off", "0", "none", "null"}
_SIGNATURES = (
    (b"ID3", 0, "audio/mpeg"),
    (b"\xff\xfb", 0, "audio/mpeg"),
    (b"\xff\xf3", 0, "audio/mpeg"),
    (b"OggS", 0, "audio/ogg"),
    (b"fLaC", 0, "audio/flac"),
    (b"WAVE", 8, "audio/wav"),
    (b"ftyp", 4, "audio/mp4"),
    (b"\x1aE\xdf\xa3", 0, "audio/webm"),
)
_FILE = WithJsonSchema({"type": "string", "format": "binary"})


def _recording(value: object) -> object:
    """A file as it came, or out of base64. Raises InvalidAudio."""
    try:
        return recording(value)
    except InvalidAudio as error:
        named = InvalidAudio(str(error).replace("prompt_wav", "audio_sample"))
        named.param = "audio_sample"
        raise named from error


File = Annotated[bytes, BeforeValidator(_recording), _FILE]


class VoiceForm(BaseModel):
    """Unknown fields are ignored, empty ones are as if left out."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _leave_out_empty(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        return {key: value for key, value in data.items() if value not in ("", None)}


class RegisterForm(VoiceForm):
    """A voice out of a recording. The names of vLLM-Omni's fields, and ours."""

    audio_sample: File = Field(
        description="recording of 0.5-30 s, 16 kHz or more",
        validation_alias=AliasChoices("audio_sample", "audio", "file", "prompt_wav"),
    )
    name: str = Field(description=NAME_RULE)
    consent: str | bool = Field(
        "", description="that the speaker agrees: true, or an id of yours by which that can be shown"
    )
    ref_text: str = Field(
        "",
        description="what the recording says; without it the voice speaks without its words",
        validation_alias=AliasChoices("ref_text", "transcript", "prompt_text"),
    )
    speaker_description: str = Field(
        "", description="for people", validation_alias=AliasChoices("speaker_description", "description")
    )
    language: str = Field("", max_length=35, description="zh, en, ...: for the choice of a default voice")
    overwrite: bool = Field(False, description="replace a voice of this name")

    def message(self, config: ServerConfig) -> StoreVoices:
        """Raises ConsentRequired, BodyTooLarge, TextTooLong or InvalidInput."""
        consent = _consent(self.consent)
        with naming("name"):
            check_name(self.name)
        with naming("audio_sample"):
            if not self.audio_sample:
                raise InvalidAudio("audio_sample is empty")
        check_size("audio_sample", self.audio_sample, config)
        _check_length("ref_text", self.ref_text, MAX_PROMPT_CHARS)
        _check_length("speaker_description", self.speaker_description, MAX_DESCRIPTION_CHARS)
        info = VoiceInfo(
            name=self.name,
            prompt_text=self.ref_text,
            language=self.language,
            description=self.speaker_description,
            source="recording",
            consent=consent,
            mime_type=mime_type_of(self.audio_sample),
        )
        return StoreVoices("", "", 0.0, info, recording=self.audio_sample, replace=self.overwrite)


class BlendForm(VoiceForm):
    """A voice between others."""

    name: str = Field(description=NAME_RULE)
    voices: dict[str, float] = Field(description="two to eight voices by name, each with its weight")
    prompt_voice: str | None = Field(
        None, description="one of them, whose recording the blend speaks on from; without: nobody's"
    )
    description: str = ""
    language: str = Field("", max_length=35)
    overwrite: bool = False

    def message(self) -> StoreVoices:
        """Raises InvalidInput or TextTooLong."""
        with naming("name"):
            check_name(self.name)
        _check_length("description", self.description, MAX_DESCRIPTION_CHARS)
        if not self.voices:
            with naming("voices"):
                raise InvalidInput("voices names no voice")
        info = VoiceInfo(name=self.name, language=self.language, description=self.description)
        parts = tuple(self.voices.items())
        return StoreVoices(
            "", "", 0.0, info, blend=parts, prompt_of=self.prompt_voice, replace=self.overwrite
        )


class ImportForm(VoiceForm):
    """Speakers of CosyVoice's spk2info.pt."""

    file: Annotated[bytes, _FILE] = Field(description="spk2info.pt")
    labels: str = Field("", description="LABEL or LABEL=NAME, separated by commas; empty: all")
    consent: str | bool = Field("", description="that the speakers agree, as with a recording")
    overwrite: bool = False

    def message(self, config: ServerConfig) -> StoreVoices:
        """Raises ConsentRequired, BodyTooLarge or InvalidInput."""
        info = VoiceInfo(name="", consent=_consent(self.consent))
        check_size("file", self.file, config)
        labels = parse_labels(self.labels.split(",") if self.labels else [])
        return StoreVoices("", "", 0.0, info, archive=self.file, labels=labels, replace=self.overwrite)


class RenameForm(VoiceForm):
    """The new name of a voice."""

    name: str = Field(description=NAME_RULE)


def parse_labels(labels: list[str]) -> tuple[tuple[str, str], ...]:
    """LABEL or LABEL=NAME each. Raises InvalidInput."""
    pairs = []
    for one in labels:
        label, equals, name = one.strip().rpartition("=") if "=" in one else (one.strip(), "", one.strip())
        with naming("labels"):
            check_name(name)
            if equals and not label:
                raise InvalidInput(f"labels has {one[:140]!r}, it must be LABEL or LABEL=NAME")
        pairs.append((label, name))
    return tuple(pairs)


def check_size(name: str, data: bytes, config: ServerConfig) -> None:
    """Raises BodyTooLarge."""
    if len(data) > config.max_voice_mb * 1e6:
        with naming(name):
            raise BodyTooLarge(
                f"{name} has {len(data) / 1e6:.3g} MB, limit {config.max_voice_mb:g} MB (--max_voice_mb)"
            )


def mime_type_of(data: bytes) -> str:
    """By what the file begins with, whatever the client calls it; "" if unknown."""
    for signature, at, kind in _SIGNATURES:
        if data[at : at + len(signature)] == signature:
            return kind
    return ""


def _consent(value: str | bool) -> str:
    """What is kept of it. Raises ConsentRequired."""
    said = str(value).lower() if isinstance(value, bool) else value.strip()
    if not said or said.lower() in _REFUSALS:
        with naming("consent"):
            raise ConsentRequired(
                "consent is missing: register a voice only if its speaker agrees, and say so (consent=true)"
            )
    _check_length("consent", said, MAX_DESCRIPTION_CHARS)
    return said


def _check_length(name: str, text: str, limit: int) -> None:
    if len(text) > limit:
        with naming(name):
            raise TextTooLong(f"{name} has {len(text)} characters, limit {limit}")
