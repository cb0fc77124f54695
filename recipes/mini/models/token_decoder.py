"""What makes the codes carry speech: a decoder that has to recover phones, mel and pitch from them. Training only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recipes.mini.models import ge2e
from recipes.mini.models.tokenizer import DIGITS, Block, TokenizerShape, attention_bias

NUM_PHONES = 256  # of the teacher: uint8, so that no label can be out of range
NUM_MELS = 80

_HEADS = 4


@dataclass(frozen=True, slots=True)
class Decoded:
    """At 50 Hz, float32. phones: (B, 2T, 256) logits; mel: (B, 2T, 80); voicing: (B, 2T) logits; log_f0: (B, 2T)"""

    phones: Tensor
    mel: Tensor
    voicing: Tensor
    log_f0: Tensor


class TokenDecoder(nn.Module):
    """Phones are read off before the speaker is known, mel and pitch after."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        shape = TokenizerShape(width, 3, _HEADS, 3 * width)
        self.embed = nn.Linear(DIGITS, width)
        self.content = nn.ModuleList(Block(shape, dropout) for _ in range(2))
        self.phone_rate = nn.ConvTranspose1d(width, width, 4, 2, 1)
        self.phones = nn.Linear(width, NUM_PHONES)
        self.speaker = nn.Linear(ge2e.EMBED_DIM, width)
        self.voice = Block(shape, dropout)
        self.mel_rate = nn.ConvTranspose1d(width, width, 4, 2, 1)
        self.mel = nn.Linear(width, NUM_MELS)
        self.pitch = nn.Linear(width, 2)

    def forward(self, digits: Tensor, mask: Tensor, speaker: Tensor) -> Decoded:
        """digits: (B, T, 6) at 25 Hz, mask: (B, T), speaker: (B, 256) of unit length"""
        bias = attention_bias(mask)
        x = self.embed(digits)
        for block in self.content:
            x = block(x, mask, bias)
        phones = self.phones(_doubled(self.phone_rate, x))
        # unit length in 256 dimensions has tiny components
        x = self.voice(x + self.speaker(speaker * ge2e.EMBED_DIM**0.5)[:, None], mask, bias)
        x = _doubled(self.mel_rate, x)
        voicing, log_f0 = self.pitch(x).float().unbind(-1)
        return Decoded(phones.float(), self.mel(x).float(), voicing, log_f0)


def _doubled(layer: nn.ConvTranspose1d, x: Tensor) -> Tensor:
    """(B, T, C) to (B, 2T, C)"""
    return F.gelu(layer(x.transpose(1, 2))).transpose(1, 2)


def code_distribution(hidden: Tensor, mask: Tensor, sharpness: float = 4.0) -> Tensor:
    """(729,) how often each code is used, in a way that can be differentiated; sums to 1.

    hidden: (B, T, 6), mask: (B, T). Each digit is softly one of its three levels; the halves of a code are
    multiplied out per frame, and the mean of their products over frames is one matrix product.
    """
    levels = torch.arange(-1.0, 2.0, device=hidden.device)
    soft = (-sharpness * (hidden.float()[..., None] - levels).square()).softmax(dim=-1)
    low, high = (_joint(soft[:, :, part : part + 3]).flatten(0, 1) for part in (0, 3))
    weight = mask.flatten() / mask.sum()
    return ((low * weight[:, None]).T @ high).flatten()


def _joint(soft: Tensor) -> Tensor:
    """(B, T, 3, 3) probabilities of three digits to (B, T, 27) of their combinations."""
    pair = soft[:, :, 0, :, None] * soft[:, :, 1, None, :]
    return (pair.flatten(2)[..., None] * soft[:, :, 2, None, :]).flatten(2)
