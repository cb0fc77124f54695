"""Every error that a user can cause, each with a stable code. Messages name the field, the value and the limit."""


class LightTTSError(Exception):
    """Base of all errors with a code that is part of the public interface."""

    code = "internal_error"


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
