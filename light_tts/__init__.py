"""Light-TTS: serving for CosyVoice2-type zero-shot text-to-speech models.

`LightTTS` is loaded on first use: the processes that never run a model must not pay for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from light_tts.audio import Audio
    from light_tts.request import SynthesisRequest
    from light_tts.synthesizer import LightTTS

__all__ = ["Audio", "LightTTS", "SynthesisRequest"]


def __getattr__(name: str) -> object:
    match name:
        case "LightTTS":
            from light_tts.synthesizer import LightTTS

            return LightTTS
        case "Audio":
            from light_tts.audio import Audio

            return Audio
        case "SynthesisRequest":
            from light_tts.request import SynthesisRequest

            return SynthesisRequest
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
