"""Reference voices as bytes: how the encode process hands them to the decode process."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from light_tts.errors import InvalidInput
from light_tts.messages import VoiceFeatures
from light_tts.models.flow.flow_state import FlowPrompt

_INT32, _FLOAT32 = np.dtype("<i4"), np.dtype("<f4")


def pack(prompt: FlowPrompt, key: str) -> VoiceFeatures:
    """key: of the recording's content; equal keys are equal voices"""
    return VoiceFeatures(
        key,
        prompt.tokens.numpy().astype(_INT32).tobytes(),
        prompt.mel.float().numpy().astype(_FLOAT32).tobytes(),
        prompt.embedding.float().numpy().astype(_FLOAT32).tobytes(),
    )


def unpack(
    voice: VoiceFeatures, vocab_size: int, *, embed_dim: int = 192, mel_bins: int = 80, mel_per_token: int = 2
) -> FlowPrompt:
    """The voice as the flow takes it, in memory of its own. Without a recording (0 tokens) only its embedding counts.

    vocab_size: number of speech tokens that the flow knows
    Raises InvalidInput where lengths do not fit one another, a token is unknown, or a number is not finite.
    """
    tokens = _numbers("speech_token", voice.speech_token, _INT32, 1)[:, 0]
    mel = _numbers("prompt_mel", voice.prompt_mel, _FLOAT32, mel_bins)
    embedding = _numbers("speaker_embedding", voice.speaker_embedding, _FLOAT32, embed_dim)
    if len(mel) != mel_per_token * len(tokens):
        raise InvalidInput(
            f"prompt_mel has {len(mel)} frames for {len(tokens)} speech tokens, must have {mel_per_token} for each"
        )
    if len(embedding) != 1:
        raise InvalidInput(
            f"speaker_embedding has {len(embedding) * embed_dim} numbers, must have {embed_dim}"
        )
    if len(tokens) and not 0 <= tokens.min() <= tokens.max() < vocab_size:
        worst = int(tokens.min() if tokens.min() < 0 else tokens.max())
        raise InvalidInput(f"speech_token holds id {worst}, the model has ids 0 to {vocab_size - 1}")
    return FlowPrompt(_owned(tokens.astype(np.int64)), _owned(mel), _owned(embedding[0]))


def _numbers(name: str, data: bytes, dtype: np.dtype[np.generic], width: int) -> NDArray[np.generic]:
    """(n, width); finite."""
    row = dtype.itemsize * width
    if len(data) % row:
        raise InvalidInput(f"{name} has {len(data)} bytes, must be a multiple of {row}")
    numbers = np.frombuffer(data, dtype).reshape(-1, width)
    if np.issubdtype(dtype, np.floating) and not np.isfinite(numbers).all():
        raise InvalidInput(f"{name} holds numbers that are not finite")
    return numbers


def _owned(numbers: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(np.array(numbers, dtype=numbers.dtype.newbyteorder("=")))
