"""Every error that a user can cause, each with a stable code. Messages name the field, the value and the limit."""

from types import MappingProxyType


class LightTTSError(Exception):
    """Base of all errors with a code that is part of the public interface. param: the field that it is about"""

    code = "internal_error"
    param: str | None = None


class InvalidInput(LightTTSError):
    """A value given by the caller cannot be used."""

    code = "invalid_input"


class EmptyText(InvalidInput):
    code = "empty_text"


class TextTooLong(InvalidInput):
    code = "text_too_long"


class InvalidAudio(InvalidInput):
    """A reference recording cannot be decoded, or holds no usable speech."""

    code = "invalid_audio"


class PromptTooShort(InvalidAudio):
    code = "prompt_too_short"


class PromptTooLong(InvalidAudio):
    code = "prompt_too_long"


class VoiceNotFound(InvalidInput):
    code = "voice_not_found"


class VoiceExists(InvalidInput):
    """A voice of that name is there already."""

    code = "voice_exists"


class TooManyVoices(InvalidInput):
    """As many voices are registered as may be."""

    code = "too_many_voices"


class VoiceMismatch(InvalidInput):
    """A voice was encoded for another model than the one that is served."""

    code = "voice_mismatch"


class ConsentRequired(InvalidInput):
    """A voice was to be registered without its speaker's consent."""

    code = "consent_required"


class ModelError(LightTTSError):
    """A model directory cannot be used."""

    code = "model_error"


class ModelNotFound(ModelError):
    """The model directory, or a file in it, is missing."""

    code = "model_not_found"


class UnsafeFile(ModelError):
    """A file asks to construct objects or to run code."""

    code = "unsafe_file"


class CorruptFile(ModelError):
    """A file is truncated or not of the format that its name promises."""

    code = "corrupt_file"


class WeightMismatch(ModelError):
    """Weights are missing, unexpected or misshapen."""

    code = "weight_mismatch"


class InvalidModelConfig(ModelError):
    """The model's yaml or json lacks a field or holds an impossible value."""

    code = "invalid_model_config"


class GenerationFailed(LightTTSError):
    """The model produced a token or number that cannot be turned into speech."""

    code = "generation_failed"


class UnknownModel(InvalidInput):
    """A request names a model that is not served."""

    code = "model_not_found"


class InvalidBody(InvalidInput):
    """A request's body is not of the format that it says."""

    code = "invalid_body"


class BodyTooLarge(InvalidInput):
    code = "body_too_large"


class ValidationFailed(InvalidInput):
    """A field of a request is missing or of the wrong type."""

    code = "validation_error"


class BodyTimeout(LightTTSError):
    """The client took too long to send its request."""

    code = "body_timeout"


class Overloaded(LightTTSError):
    """As much is in work as may be."""

    code = "overloaded"


class Unavailable(LightTTSError):
    """A process that the request needs is not there, was lost, or stops."""

    code = "unavailable"


class RequestTimeout(LightTTSError):
    """The request's deadline passed."""

    code = "timeout"


class Cancelled(LightTTSError):
    """The client does not want the answer any more, or does not take it."""

    code = "cancelled"


class StageError(LightTTSError):
    """What another process answered in place of audio."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


STATUS = MappingProxyType(
    {
        "invalid_input": 400,
        "empty_text": 400,
        "invalid_audio": 400,
        "prompt_too_short": 400,
        "invalid_body": 400,
        "consent_required": 400,
        "voice_not_found": 404,
        "model_not_found": 404,
        "not_found": 404,
        "method_not_allowed": 405,
        "body_timeout": 408,
        "voice_exists": 409,
        "too_many_voices": 409,
        "voice_mismatch": 409,
        "text_too_long": 413,
        "prompt_too_long": 413,
        "body_too_large": 413,
        "validation_error": 422,
        "overloaded": 429,
        "cancelled": 499,
        "unavailable": 503,
        "timeout": 504,
    }
)
"""HTTP status of each code; 500 for those that are not here."""

RETRY_AFTER_S = MappingProxyType({"overloaded": 1, "unavailable": 5})
"""After how long it is worth to try again."""


def status_of(code: str) -> int:
    return STATUS.get(code, 500)
