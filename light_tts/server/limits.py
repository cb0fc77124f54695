"""What a request may be, checked in one place for all families of routes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from light_tts.config import ServerConfig
from light_tts.errors import (
    EmptyText,
    InvalidAudio,
    InvalidInput,
    LightTTSError,
    TextTooLong,
    UnknownModel,
    VoiceNotFound,
)
from light_tts.messages import Mode, Sampling, Synthesize
from light_tts.request import MAX_PROMPT_CHARS, check_optional, check_seed, check_speed

MODELS = ("default",)
MAX_NAME_CHARS = 256
BODY_IDLE_S = 30.0  # between two pieces of a request's body
READER_IDLE_S = 30.0  # for which a reader may leave a second of audio untaken
MAX_ARRIVING = 256  # bodies that a worker reads at once


@dataclass(frozen=True, slots=True)
class FieldNames:
    """What a family of routes calls the fields, for its error messages."""

    text: str = "tts_text"
    voice: str = "voice"
    recording: str = "prompt_wav"
    transcript: str = "prompt_text"
    instruction: str = "instruct_text"

    def about(self, error: LightTTSError) -> str | None:
        """The field that an error is about which arose behind the HTTP server. Its message begins with the field."""
        if str(error).startswith("prompt_text "):
            return self.transcript
        if str(error).startswith("instruct_text "):
            return self.instruction
        match error.code:
            case "empty_text" | "text_too_long":
                return self.text
            case "voice_not_found":
                return self.voice
            case "invalid_audio" | "prompt_too_short" | "prompt_too_long":
                return self.recording
        return None


def check(request: Synthesize, names: FieldNames, config: ServerConfig) -> None:
    """Raises InvalidInput and its kinds, with the field in `param`."""
    with naming(names.text):
        if not request.text_open and not request.text.strip():
            raise EmptyText(f"{names.text} is empty")
        check_length(names.text, len(request.text), config.max_text_chars, "--max_text_chars")
    for name, text in ((names.transcript, request.prompt_text), (names.instruction, request.instruct_text)):
        with naming(name):
            check_length(name, len(text or ""), MAX_PROMPT_CHARS)
    _check_voice(request, names)
    with naming("speed"):
        check_speed(request.speed)
    _check_sampling(request.sampling)


def check_length(name: str, num_chars: int, limit: int, flag: str = "") -> None:
    if num_chars > limit:
        where = f" ({flag})" if flag else ""
        raise TextTooLong(f"{name} has {num_chars} characters, limit {limit}{where}")


def check_model(name: str | None) -> None:
    """Raises UnknownModel."""
    if name is not None and name not in MODELS:
        with naming("tts_model_name"):
            raise UnknownModel(f"there is no model {name[:140]!r}; known models: {', '.join(MODELS)}")


@contextmanager
def naming(param: str) -> Iterator[None]:
    """Errors raised within are about this field, unless they name another."""
    try:
        yield
    except LightTTSError as error:
        error.param = error.param or param
        raise


def _check_voice(request: Synthesize, names: FieldNames) -> None:
    if request.voice is not None:
        with naming(names.voice):
            if len(request.voice) > MAX_NAME_CHARS:
                raise VoiceNotFound(f"there is no voice {request.voice[:140]!r}…")
            if request.prompt_wav is not None:
                raise InvalidInput(f"give {names.voice} or {names.recording}, not both")
    with naming(names.recording):
        if request.prompt_wav is not None and not request.prompt_wav:
            raise InvalidAudio(f"{names.recording} is empty")
        if request.prompt_text is not None and request.prompt_wav is None:
            raise InvalidInput(
                f"{names.transcript} is the transcript of {names.recording}, which is missing: "
                f"send a recording, or leave {names.transcript} out"
            )
    with naming(names.instruction):
        if request.instruct_text is not None and request.prompt_text is not None:
            raise InvalidInput(f"give {names.instruction} or {names.transcript}, not both")
        if request.mode is Mode.INSTRUCT and request.instruct_text is None:
            raise InvalidInput(f"{names.instruction} is empty")


def _check_sampling(sampling: Sampling) -> None:
    values: dict[str, float | None] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "win_size": sampling.win_size,
        "tau_r": sampling.tau_r,
        "min_token_text_ratio": sampling.min_token_text_ratio,
        "max_token_text_ratio": sampling.max_token_text_ratio,
    }
    with naming("seed"):
        check_seed(sampling.seed)
    for name, value in values.items():
        with naming(name):
            check_optional(name, value)
    low_ratio, high_ratio = sampling.min_token_text_ratio, sampling.max_token_text_ratio
    if low_ratio is not None and high_ratio is not None and low_ratio > high_ratio:
        with naming("min_token_text_ratio"):
            raise InvalidInput(
                f"min_token_text_ratio is {low_ratio}, more than max_token_text_ratio ({high_ratio})"
            )
