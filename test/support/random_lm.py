"""A small speech language model with random weights, of any shape."""

from __future__ import annotations

import torch

from light_tts.models.config import Qwen2Config, SamplingConfig, SpeechLMConfig
from light_tts.models.speech_lm import SpeechLM


def random_lm(
    version: int = 2,
    *,
    speech_token_size: int = 61,
    vocab_size: int = 50,
    hidden_size: int = 24,
    layers: int = 2,
    heads: int = 6,
    kv_heads: int = 2,
    seed: int = 0,
) -> SpeechLM:
    """Weights are drawn wide enough that tokens depend on all of the input, and near-ties are rare."""
    qwen = Qwen2Config(vocab_size, hidden_size, 2 * hidden_size + 4, layers, heads, kv_heads)
    model = SpeechLM(SpeechLMConfig(version, qwen, speech_token_size, SamplingConfig()))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.1 * noise if name.endswith("norm.weight") else 0.3 * noise)
    return model.eval().requires_grad_(False)
