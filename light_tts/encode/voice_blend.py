"""A voice between others, out of what can be mixed of them: their speaker embeddings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from light_tts.encode.features import PromptFeatures
from light_tts.encode.voice_file import MEL_BINS, Voice, VoiceInfo
from light_tts.errors import InvalidInput

MIN_VOICES, MAX_VOICES = 2, 8
MAX_WEIGHT = 1000.0
_MIN_LENGTH = 0.05  # of the mean of unit vectors: below, the voices cancel out and what is left is chance


def check_parts(parts: Sequence[tuple[str, float]], prompt_of: str | None) -> None:
    """Raises InvalidInput unless these are two to eight different voices with weights above 0."""
    names = [name for name, _ in parts]
    if not MIN_VOICES <= len(parts) <= MAX_VOICES:
        raise InvalidInput(f"voices names {len(parts)} voices, allowed are {MIN_VOICES} to {MAX_VOICES}")
    if len(set(names)) < len(names):
        raise InvalidInput("voices names a voice more than once")
    for name, weight in parts:
        if not (math.isfinite(weight) and 0 < weight <= MAX_WEIGHT):
            raise InvalidInput(f"weight of {name!r} is {weight}, allowed is (0, {MAX_WEIGHT:g}]")
    if prompt_of is not None and prompt_of not in names:
        raise InvalidInput(f"prompt_voice {prompt_of!r} must be one of the voices that are mixed")


def blend(info: VoiceInfo, parts: Sequence[tuple[Voice, float]], prompt: Voice | None) -> Voice:
    """A voice whose speaker embedding is the weighted mean of the parts'.

    parts: voices with their weights, of whatever sum
    prompt: whose recording (speech tokens, mel, transcript) the voice has: those are one person's and cannot be mixed;
        None: nobody's, so that the language model speaks without an example

    The mean is that of the directions, which is all that the flow sees of an embedding; its length is the mean length.
    Raises InvalidInput where the voices cancel out.
    """
    total = sum(weight for _, weight in parts)
    direction = torch.zeros_like(parts[0][0].features.speaker_embedding)
    length = 0.0
    for voice, weight in parts:
        embedding = voice.features.speaker_embedding
        norm = float(embedding.norm())
        if norm == 0:
            raise InvalidInput(f"voice {voice.info.name!r} has an empty speaker embedding")
        direction += embedding / norm * (weight / total)
        length += norm * weight / total
    size = float(direction.norm())
    if size < _MIN_LENGTH:
        raise InvalidInput("the voices are too far apart to be mixed: their speaker embeddings cancel out")
    features = _with_embedding(prompt, direction / size * length)
    if prompt is None:
        return Voice(replace(info, prompt_text=""), features)
    language = info.language or prompt.info.language
    info = replace(info, prompt_text=prompt.info.prompt_text, language=language)
    return Voice(info, features, prompt.prompt_text_ids)


def _with_embedding(prompt: Voice | None, embedding: Tensor) -> PromptFeatures:
    if prompt is None:
        return PromptFeatures(torch.zeros(0, dtype=torch.int64), torch.zeros(0, MEL_BINS), embedding, "", 0.0)
    return replace(prompt.features, speaker_embedding=embedding, content_hash="")
