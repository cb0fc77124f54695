"""The fields of OpenAI's speech API, and what vLLM-Omni, SGLang-Omni and Kokoro-FastAPI add to them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from light_tts.errors import InvalidAudio, InvalidInput
from light_tts.messages import Mode, Synthesize
from light_tts.server.limits import FieldNames, naming
from light_tts.server.schemas import SpeechJob, SynthesisFields, known_format, recording

NAMES = FieldNames(
    text="input",
    voice="voice",
    recording="ref_audio",
    transcript="ref_text",
    instruction="instructions",
)
_TASKS = ("base", "customvoice")


def _voice(value: object) -> object:
    """A name, or an object with it as `id`."""
    if isinstance(value, dict):
        return value.get("id", "")
    return value


def _reference(value: object) -> object:
    """Out of base64. What names a place is refused: nothing is fetched or opened for a request."""
    if isinstance(value, str) and "://" in value[:40]:
        with naming(NAMES.recording):
            raise InvalidAudio(
                f"{NAMES.recording} names a place: this server opens no URL and no path of a request, send the audio "
                "itself, as base64 or as a data: URL"
            )
    return recording(value, NAMES.recording)


def _references(value: object) -> object:
    """SGLang-Omni's list of one recording."""
    if not isinstance(value, list):
        return value
    if len(value) != 1 or not isinstance(value[0], dict):
        with naming("references"):
            raise InvalidInput(f"references has {len(value)} entries, it must have one, with audio and text")
    return value[0]


VoiceName = Annotated[
    str,
    BeforeValidator(_voice),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]},
            ],
            "description": "a voice by its name, or by an object with its id; OpenAI's own names are the default voice",
        }
    ),
]
ReferenceAudio = Annotated[
    bytes,
    BeforeValidator(_reference),
    WithJsonSchema(
        {"type": "string", "description": "audio file of 0.5-30 s as base64 or data: URL; wins over voice"}
    ),
]
References = Annotated[
    dict[str, object],
    BeforeValidator(_references),
    WithJsonSchema(
        {"type": "array", "items": {"type": "object"}, "maxItems": 1, "description": "as ref_audio"}
    ),
]


class OpenAISpeech(SynthesisFields):
    """`POST /v1/audio/speech`. Fields of OpenAI's first, then those that other servers add."""

    names: ClassVar[FieldNames] = NAMES

    input: str = Field(description="what to say")
    model: str | None = Field(None, description="one of /v1/models; all of them are the one that is served")
    voice: VoiceName | None = None
    instructions: str | None = Field(None, description="how to speak")
    response_format: str = "mp3"
    stream_format: Literal["audio", "sse"] | None = Field(None, description="bytes, or server-sent events")

    stream: bool | None = Field(None, description="false: all audio is made before the first byte is sent")
    ref_audio: ReferenceAudio | None = None
    ref_text: str | None = Field(None, description="transcript of ref_audio")
    references: References | None = None
    task_type: str | None = Field(None, description="Base or CustomVoice")
    x_vector_only_mode: bool = Field(False, description="leave ref_text out")
    initial_codec_chunk_frames: int | None = Field(
        None, ge=0, description="accepted; the server chooses the size of the first chunk by its load"
    )

    def job(self, *, wants_events: bool = False) -> SpeechJob:
        """wants_events: where `stream_format` does not say. The model is not checked. Raises InvalidInput."""
        self._check_task()
        audio, transcript = self._recording()
        cross_lingual = self.x_vector_only_mode and audio is not None
        request = Synthesize(
            request_id="",
            reply_to="",
            deadline_s=0.0,
            text=self.input,
            mode=Mode.CROSS_LINGUAL if cross_lingual and self.instructions is None else Mode.AUTO,
            voice=self.voice if audio is None else None,
            prompt_wav=audio,
            prompt_text=None if cross_lingual else transcript,
            instruct_text=self.instructions,
            stream=self.stream is not False,
            speed=self.speed,
            normalise=self.text_frontend,
            sampling=self.sampling(),
        )
        events = wants_events if self.stream_format is None else self.stream_format == "sse"
        return SpeechJob(request, self.names, known_format(self.response_format), events)

    def _recording(self) -> tuple[bytes | None, str | None]:
        if self.references is None:
            return self.ref_audio, self.ref_text
        with naming("references"):
            if self.ref_audio is not None:
                raise InvalidInput("give ref_audio or references, not both")
            audio = _reference(self.references.get("audio") or self.references.get("audio_path"))
            text = self.references.get("text") or None
            if not isinstance(audio, bytes) or not isinstance(text, str | None):
                raise InvalidInput(
                    "references must hold one object with audio, and where it is known its text"
                )
            return audio, text

    def _check_task(self) -> None:
        if self.task_type is None:
            return
        with naming("task_type"):
            if self.task_type.lower() not in _TASKS:
                raise InvalidInput(
                    f"task_type is {self.task_type[:40]!r}, the models here have Base and CustomVoice"
                )
            if self.task_type.lower() == "customvoice" and (self.ref_audio or self.references):
                raise InvalidInput(
                    "task_type is CustomVoice, which takes a voice by its name, not a recording"
                )
