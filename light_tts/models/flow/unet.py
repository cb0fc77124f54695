"""CosyVoice2's flow estimator: a causal U-Net with a single resolution.

Inside, sequences are channels-last (B, T, C): every layer but the convolutions wants them so, and the
convolutions have three taps at most. Right padding needs no masks: nothing but attention looks to the right.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from light_tts.models.config import UNetConfig
from light_tts.models.flow.estimator_state import Carry, EstimatorState, Velocity
from light_tts.models.layers.attention import SelfAttention
from light_tts.models.layers.causal_conv import causal_conv, conv_over_time, pointwise_conv, with_left_context
from light_tts.models.layers.ragged import Frames, next_tail
from light_tts.models.layers.time_embedding import time_sinusoids

_KERNEL = 3
_TIME_WIDTH = 4  # times the channels
_FEED_FORWARD_WIDTH = 4


class CausalBlock(nn.Module):
    """Causal convolution, LayerNorm over channels, Mish."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        # The checkpoint counts two transpositions (1, 3) and the activation (4), which have no weights.
        conv = nn.Conv1d(in_channels, out_channels, _KERNEL)
        self.block = nn.ModuleDict({"0": conv, "2": nn.LayerNorm(out_channels)})

    @property
    def conv(self) -> nn.Conv1d:
        return cast(nn.Conv1d, self.block["0"])

    def forward(self, x: Tensor, carry: Carry) -> Tensor:
        return self.activate(causal_conv(self.conv, x, carry))

    def activate(self, convolved: Tensor) -> Tensor:
        return F.mish(self.block["2"](convolved))


class ResnetBlock(nn.Module):
    """Two causal blocks with the time in between, and a residual path."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.mlp = nn.ModuleDict({"1": nn.Linear(_TIME_WIDTH * channels, channels)})
        self.block1 = CausalBlock(in_channels, channels)
        self.block2 = CausalBlock(channels, channels)
        self.res_conv = nn.Conv1d(in_channels, channels, 1)

    def time_shift(self, time: Tensor) -> Tensor:
        """(N, time width) to (N, channels)."""
        return self.mlp["1"](F.mish(time))

    def forward(self, x: Tensor, shift: Tensor, carry: Carry) -> Tensor:
        convolved = causal_conv(self.block1.conv, x, carry)
        return self.finish(convolved, pointwise_conv(self.res_conv, x), shift, carry)

    def finish(self, convolved: Tensor, residual: Tensor, shift: Tensor, carry: Carry) -> Tensor:
        """The rest after block1's convolution and the residual's."""
        x = self.block1.activate(convolved) + shift
        return self.block2(x, carry) + residual


class GELUProjection(nn.Module):
    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, inner)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x))


class FeedForward(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        inner = _FEED_FORWARD_WIDTH * dim
        self.net = nn.ModuleDict({"0": GELUProjection(dim, inner), "2": nn.Linear(inner, dim)})

    def forward(self, x: Tensor) -> Tensor:
        return self.net["2"](self.net["0"](x))


class TransformerBlock(nn.Module):
    def __init__(self, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn1 = SelfAttention(dim, heads, head_dim, qkv_bias=False)
        self.norm3 = nn.LayerNorm(dim)
        self.ff = FeedForward(dim)

    def forward(self, x: Tensor, mask: Tensor | None, carry: Carry) -> Tensor:
        x = x + self.attn1(self.norm1(x), mask, carry)
        return x + self.ff(self.norm3(x))


class TimeMLP(nn.Module):
    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.linear_1 = nn.Linear(in_channels, dim)
        self.linear_2 = nn.Linear(dim, dim)

    def forward(self, t: Tensor) -> Tensor:
        """(N,) to (N, dim)."""
        sinusoids = time_sinusoids(t, self.in_channels).to(self.linear_1.weight.dtype)
        return self.linear_2(F.silu(self.linear_1(sinusoids)))


class Stage(nn.ModuleList):
    """A ResnetBlock (0), transformer blocks (1) and, at the ends of the net, a convolution (2)."""

    def __init__(self, cfg: UNetConfig, in_channels: int, conv: bool) -> None:
        dim, heads, head_dim = cfg.channels, cfg.num_heads, cfg.attention_head_dim
        blocks = [TransformerBlock(dim, heads, head_dim) for _ in range(cfg.n_blocks)]
        super().__init__([ResnetBlock(in_channels, dim), nn.ModuleList(blocks)])
        if conv:
            self.append(nn.Conv1d(dim, dim, _KERNEL))

    @property
    def resnet(self) -> ResnetBlock:
        return cast(ResnetBlock, self[0])

    @property
    def conv(self) -> nn.Conv1d:
        return cast(nn.Conv1d, self[2])

    def transform(self, x: Tensor, mask: Tensor | None, carry: Carry) -> Tensor:
        for block in cast(nn.ModuleList, self[1]):
            x = block(x, mask, carry)
        return x


@dataclass(frozen=True, slots=True)
class _Condition:
    """What mu, speaker and prompt add to the first layer, which is the same at every step."""

    frames: Frames
    mask: Tensor | None
    convolved: Tensor  # (B, T, channels)
    residual: Tensor  # (B, T, channels)
    tail: Tensor  # (B, 2, in_channels - mel), the next call's left context


class ConditionalUNet(nn.Module):
    """Estimates the velocity of the flow at x, given time, mu, speaker and prompt."""

    def __init__(self, cfg: UNetConfig) -> None:
        super().__init__()
        channels = cfg.channels
        self.time_mlp = TimeMLP(cfg.in_channels, _TIME_WIDTH * channels)
        self.down_blocks = nn.ModuleList([Stage(cfg, cfg.in_channels, conv=True)])
        self.mid_blocks = nn.ModuleList([Stage(cfg, channels, conv=False) for _ in range(cfg.num_mid_blocks)])
        self.up_blocks = nn.ModuleList([Stage(cfg, 2 * channels, conv=True)])
        self.final_block = CausalBlock(channels, channels)
        self.final_proj = nn.Conv1d(channels, cfg.out_channels, 1)

    def forward(
        self,
        x: Tensor,
        mu: Tensor,
        t: Tensor,
        spks: Tensor,
        cond: Tensor,
        frames: Frames,
        state: EstimatorState | None = None,
        keep_state: bool = False,
    ) -> tuple[Tensor, EstimatorState | None]:
        """One evaluation. x, mu, cond: (B, mel, T); t: (B,); spks: (B, mel). Returns (B, mel, T), state."""
        velocity = self.bind(mu, spks, cond, frames, state)
        out, kept = velocity(x.transpose(1, 2), self.embed_times(t), state, keep_state)
        return out.transpose(1, 2), kept

    def embed_times(self, t: Tensor) -> Tensor:
        """(N,) to (N, num_resnets, channels): what each ResnetBlock adds at that time."""
        time = self.time_mlp(t)
        return torch.stack([stage.resnet.time_shift(time) for stage in self._stages], dim=1)

    def bind(
        self, mu: Tensor, spks: Tensor, cond: Tensor, frames: Frames, state: EstimatorState | None
    ) -> Velocity:
        """The estimator with all its inputs fixed but x and t, as `Velocity` describes."""
        mu, cond = mu.transpose(1, 2), cond.transpose(1, 2)
        rest = torch.cat([mu, spks[:, None].expand_as(mu), cond], dim=-1)
        padded = with_left_context(rest, state.tails[0] if state else None, _KERNEL - 1)
        first = self._stages[0].resnet
        conv, res_conv = first.block1.conv, first.res_conv
        mel = conv.in_channels - rest.shape[-1]  # x has the first input channels
        condition = _Condition(
            frames,
            frames.attention_mask(mu.device),
            conv_over_time(padded, conv.weight[:, mel:], conv.bias),
            F.linear(rest, res_conv.weight[:, mel:, 0], res_conv.bias),
            next_tail(padded, frames, 1, _KERNEL - 1),
        )
        return partial(self._velocity, condition)

    def _velocity(
        self, condition: _Condition, x: Tensor, time: Tensor, state: EstimatorState | None, keep_state: bool
    ) -> tuple[Tensor, EstimatorState | None]:
        carry = Carry(condition.frames, state, keep_state, (condition.tail,))
        mask = condition.mask
        shifts = time[:, :, None].unbind(1)  # (N, 1, channels) each
        down, *middle, up = self._stages

        convolved, residual = self._first_layer(x, condition, carry)
        x = down.resnet.finish(convolved, residual, shifts[0], carry)
        x = skip = down.transform(x, mask, carry)
        x = causal_conv(down.conv, x, carry)
        for stage, shift in zip(middle, shifts[1:-1], strict=True):
            x = stage.transform(stage.resnet(x, shift, carry), mask, carry)
        x = up.resnet(torch.cat([x, skip], dim=-1), shifts[-1], carry)
        x = causal_conv(up.conv, up.transform(x, mask, carry), carry)
        x = pointwise_conv(self.final_proj, self.final_block(x, carry))
        return x, carry.next_state()

    def _first_layer(self, x: Tensor, condition: _Condition, carry: Carry) -> tuple[Tensor, Tensor]:
        """Convolution and residual of the first block: x's own part, to which the condition's is added."""
        mel = x.shape[-1]
        first = self._stages[0].resnet
        padded = carry.left_context(x, _KERNEL - 1)
        convolved = conv_over_time(padded, first.block1.conv.weight[:, :mel], None) + condition.convolved
        return convolved, F.linear(x, first.res_conv.weight[:, :mel, 0]) + condition.residual

    @property
    def _stages(self) -> list[Stage]:
        return cast(list[Stage], [*self.down_blocks, *self.mid_blocks, *self.up_blocks])
