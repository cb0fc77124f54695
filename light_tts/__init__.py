"""Light-TTS: serving for CosyVoice2-type zero-shot text-to-speech models."""
