"""Fundamental frequency from the mel: five convolutions and a linear layer."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from light_tts.models.vocoder.convolution import PaddedConv1d
from light_tts.models.vocoder.reach import Reach

NUM_CONVOLUTIONS = 5


class F0Predictor(nn.Module):
    """CosyVoice2: kernels of 3 around their frame. CosyVoice3: one that looks 3 frames ahead, then causal."""

    def __init__(self, in_channels: int, cond_channels: int, causal: bool) -> None:
        super().__init__()
        same = PaddedConv1d.same
        first = (
            PaddedConv1d(in_channels, cond_channels, 4, left=0, right=3)
            if causal
            else same(in_channels, cond_channels, 3, causal)
        )
        rest = [same(cond_channels, cond_channels, 3, causal) for _ in range(NUM_CONVOLUTIONS - 1)]
        # The ELUs have no weights; they are here so that the convolutions get the checkpoint's even numbers.
        self.condnet = nn.Sequential(*[module for conv in (first, *rest) for module in (conv, nn.ELU())])
        self.classifier = nn.Linear(cond_channels, 1)
        self.reach = sum((conv.reach for conv in (first, *rest)), Reach())

    def forward(self, mel: Tensor, valid: Tensor | None = None) -> Tensor:
        """f0 in Hz, in the dtype of the weights.

        mel: (B, in_channels, T); valid: (B, T) bool, False on right padding, None if there is none
        Returns (B, T) >= 0.
        """
        x = mel.to(self.classifier.weight.dtype)
        keep = None if valid is None else valid[:, None].to(x.dtype)
        for conv in self.condnet:
            if isinstance(conv, PaddedConv1d):
                # cuDNN may round float32 convolutions to TF32, whose three digits are too few for a pitch.
                x = F.elu(conv.as_product(x if keep is None else x * keep))
        return self.classifier(x.transpose(1, 2)).squeeze(2).abs()
