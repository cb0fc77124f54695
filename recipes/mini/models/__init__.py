"""Modules that are trained besides those of `light_tts.models`, and their export."""
