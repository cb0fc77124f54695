"""The layer that lets each speech token see the three tokens after it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from light_tts.models.layers.ragged import Frames, join_past, next_tail


class PreLookaheadLayer(nn.Module):
    """Residual pair of convolutions, one looking `pre_lookahead_len` tokens ahead, the other two back."""

    def __init__(self, in_channels: int, channels: int, pre_lookahead_len: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(in_channels, channels, kernel_size=pre_lookahead_len + 1)
        self.conv2 = nn.Conv1d(channels, in_channels, kernel_size=3)

    @property
    def lookahead_len(self) -> int:
        return self.conv1.kernel_size[0] - 1

    def forward(
        self, x: Tensor, frames: Frames, context: Tensor | None = None, tail: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """x: (B, T, C) embedded tokens, right-padded as `frames` says

        context: (B, lookahead_len, C) the embedded tokens after each row's last one; zeros where nothing
            follows, None if that is so for all rows
        tail: (B, channels, 2) what the last call returned; None at the start of a stream
        Returns (B, T, C) and the next tail.
        """
        ahead = with_context(x, frames, context, self.lookahead_len)
        hidden = F.leaky_relu(self.conv1(ahead.transpose(1, 2)), 0.01)  # (B, channels, T)
        left = self.conv2.kernel_size[0] - 1
        hidden = F.pad(hidden, (left, 0)) if tail is None else join_past(tail, hidden, dim=2)
        return x + self.conv2(hidden).transpose(1, 2), next_tail(hidden, frames, dim=2, length=left)


def with_context(x: Tensor, frames: Frames, context: Tensor | None, length: int) -> Tensor:
    """(B, T + length, C): `context` right after each row's last valid token, zeros after that."""
    if context is not None and bool((frames.new_lens == frames.num_new).all()):
        return torch.cat([x, context], dim=1)
    extended = F.pad(x.masked_fill(~frames.valid(x.device)[:, :, None], 0.0), (0, 0, 0, length))
    if context is None:
        return extended
    index = (frames.new_lens[:, None] + torch.arange(length)).to(x.device)
    return extended.scatter(1, index[:, :, None].expand(-1, -1, x.shape[2]), context)
