"""The fields of a request as clients send them, one schema per family of routes; each gives a `Synthesize`."""

from __future__ import annotations

import binascii
from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from light_tts.errors import InvalidAudio, InvalidInput
from light_tts.messages import Mode, Sampling, Synthesize
from light_tts.server.containers import MEDIA_TYPES
from light_tts.server.limits import FieldNames, check_model, naming

FORMATS = tuple(MEDIA_TYPES)
_SLICE = 4 * 65_536  # so that other threads get their turn
_DEFAULT_RATIOS = (2.0, 20.0)  # of speech to text tokens, as the models have them


@dataclass(frozen=True, slots=True)
class SpeechJob:
    """What a client wants. request: without `request_id`, `reply_to` and `deadline_s`; events: as server-sent events"""

    request: Synthesize
    names: FieldNames
    response_format: str = "pcm"
    events: bool = False


def recording(value: object, name: str = "prompt_wav") -> object:
    """A file as it came, or out of base64 text, with or without `data:...;base64,` before it. Raises InvalidAudio."""
    if not isinstance(value, str):
        return value
    with naming(name):
        head, comma, tail = value.partition(",")
        text = tail if comma and head.startswith("data:") else value
        text = "".join(text.split())
        padding = text.find("=")
        try:
            if 0 <= padding < len(text) - 2:
                raise ValueError("padding in the middle")
            pieces = range(0, len(text), _SLICE)
            return b"".join(binascii.a2b_base64(text[at : at + _SLICE], strict_mode=True) for at in pieces)
        except ValueError as error:
            raise InvalidAudio(f"{name} is no base64 of an audio file: {error}") from error


Recording = Annotated[
    bytes,
    BeforeValidator(lambda value: recording(value)),
    WithJsonSchema(
        {"type": "string", "format": "binary", "description": "audio file of 0.5-30 s; in JSON: its base64"}
    ),
]


class SynthesisFields(BaseModel):
    """Fields that all families of routes call the same. Unknown ones are ignored, as upstream does; empty ones are as
    if left out, but for the text.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)
    names: ClassVar[FieldNames] = FieldNames()

    speed: float = Field(1.0, description="1 is the voice's own pace; the pitch is kept")
    seed: int | None = Field(None, description="same seed and fields, same audio")
    temperature: float = 1.0
    top_p: float | None = None
    top_k: int | None = None
    win_size: int | None = None
    tau_r: float | None = None
    min_token_text_ratio: float | None = None
    max_token_text_ratio: float | None = None
    text_frontend: bool = Field(True, description="read numbers and signs as words")

    @model_validator(mode="before")
    @classmethod
    def _leave_out_empty(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        text = cls.names.text
        return {key: value for key, value in data.items() if key == text or value not in ("", None)}

    def sampling(self) -> Sampling:
        low, high = self.min_token_text_ratio, self.max_token_text_ratio
        if low is not None or high is not None:  # one that is given moves the other's default out of its way
            low = min(_DEFAULT_RATIOS[0], high or 0.0) if low is None else low
            high = max(_DEFAULT_RATIOS[1], low) if high is None else high
        return Sampling(
            seed=self.seed,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            win_size=self.win_size,
            tau_r=self.tau_r,
            min_token_text_ratio=low,
            max_token_text_ratio=high,
        )


def known_format(name: str) -> str:
    """Of FORMATS. Raises InvalidInput."""
    kind = name.lower()
    if kind not in FORMATS:
        with naming("response_format"):
            raise InvalidInput(f"response_format is {kind[:40]!r}, known formats: {', '.join(FORMATS)}")
    return kind


class SpeechForm(SynthesisFields):
    """Fields that Light-TTS's and CosyVoice's routes have."""

    tts_text: str = Field(description="what to say")
    tts_model_name: str | None = Field(None, description='only "default" is served')
    stream: bool = Field(False, description="send audio while it is made")
    response_format: str = Field(
        "pcm", description="pcm and wav are what was made, the others are compressed"
    )

    @abstractmethod
    def job(self) -> SpeechJob:
        """Raises UnknownModel or InvalidInput."""

    def _job(
        self,
        *,
        mode: Mode = Mode.AUTO,
        voice: str | None = None,
        prompt_wav: bytes | None = None,
        prompt_text: str | None = None,
        instruct_text: str | None = None,
        text_open: bool = False,
    ) -> SpeechJob:
        check_model(self.tts_model_name)
        kind = known_format(self.response_format)
        request = Synthesize(
            request_id="",
            reply_to="",
            deadline_s=0.0,
            text=self.tts_text,
            mode=mode,
            voice=voice,
            prompt_wav=prompt_wav,
            prompt_text=prompt_text,
            instruct_text=instruct_text,
            stream=self.stream,
            text_open=text_open,
            speed=self.speed,
            normalise=self.text_frontend,
            sampling=self.sampling(),
        )
        return SpeechJob(request, self.names, kind)


class ZeroShotForm(SpeechForm):
    """Light-TTS's own route, which is CosyVoice's zero-shot route too."""

    prompt_wav: Recording | None = None
    prompt_text: str | None = Field(None, description="transcript of prompt_wav")
    voice: str | None = Field(None, description="a voice by its name, in place of prompt_wav")
    instruct_text: str | None = Field(None, description="how to speak, in place of prompt_text")

    def job(self) -> SpeechJob:
        return self._job(
            voice=self.voice,
            prompt_wav=self.prompt_wav,
            prompt_text=self.prompt_text,
            instruct_text=self.instruct_text,
        )


class SftForm(SpeechForm):
    """A voice by its name."""

    names: ClassVar[FieldNames] = FieldNames(voice="spk_id")
    spk_id: str

    def job(self) -> SpeechJob:
        return self._job(mode=Mode.SFT, voice=self.spk_id)


class CrossLingualForm(SpeechForm):
    """A voice out of a recording without its words."""

    prompt_wav: Recording

    def job(self) -> SpeechJob:
        return self._job(mode=Mode.CROSS_LINGUAL, prompt_wav=self.prompt_wav)


class InstructForm(SpeechForm):
    """A voice by its name that follows an instruction."""

    names: ClassVar[FieldNames] = FieldNames(voice="spk_id")
    spk_id: str
    instruct_text: str

    def job(self) -> SpeechJob:
        return self._job(mode=Mode.INSTRUCT, voice=self.spk_id, instruct_text=self.instruct_text)


class Instruct2Form(SpeechForm):
    """A voice out of a recording that follows an instruction."""

    instruct_text: str
    prompt_wav: Recording

    def job(self) -> SpeechJob:
        return self._job(mode=Mode.INSTRUCT, prompt_wav=self.prompt_wav, instruct_text=self.instruct_text)


class BistreamForm(ZeroShotForm):
    """The first message of a bistream connection; its text follows."""

    tts_text: str = ""
    stream: bool = True

    def job(self) -> SpeechJob:
        job = self._job(
            voice=self.voice,
            prompt_wav=self.prompt_wav,
            prompt_text=self.prompt_text,
            instruct_text=self.instruct_text,
            text_open=True,
        )
        if job.response_format != "pcm":
            with naming("response_format"):
                raise InvalidInput("response_format of a bistream connection is always pcm")
        return job
