"""The one noise that every utterance starts from."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

NOISE_SEED = 0
NOISE_FRAMES = 15_000  # 300 s of mel, prompt and speech together: no utterance can be longer


@lru_cache(maxsize=16)
def fixed_noise(channels: int, device: torch.device) -> Tensor:
    """(channels, NOISE_FRAMES) float32 normal noise; frame 0 belongs to the first prompt frame.

    Chunks of a stream read neighbouring pieces of it, so that together they start from what the whole would.
    """
    with torch.inference_mode(False):  # a cached inference tensor could not be used in training later
        generator = torch.Generator().manual_seed(NOISE_SEED)
        return torch.randn([1, channels, NOISE_FRAMES], generator=generator)[0].to(device)
