"""CosyVoice3's flow estimator: a diffusion transformer.

The time modulates every block. All modulations of a solution are computed at once by `embed_times`: their
weights are more than a third of the model, and are so read once instead of at every step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from light_tts.models.config import DiTConfig
from light_tts.models.flow.estimator_state import Carry, EstimatorState, Velocity
from light_tts.models.layers.attention import Rotation, SelfAttention
from light_tts.models.layers.ragged import Frames
from light_tts.models.layers.time_embedding import time_sinusoids

_TIME_SINUSOIDS = 256
_POSITION_KERNEL = 31
_POSITION_GROUPS = 16
_NORM_EPS = 1e-6
_BLOCK_MODULATIONS = 6  # shift, scale, gate of attention, then of the feed-forward
_FINAL_MODULATIONS = 2  # scale, shift: the other way round than in the blocks


class TimeEmbedding(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.time_mlp = nn.ModuleDict({"0": nn.Linear(_TIME_SINUSOIDS, dim), "2": nn.Linear(dim, dim)})

    def forward(self, t: Tensor) -> Tensor:
        """(N,) to (N, dim)."""
        first = cast(nn.Linear, self.time_mlp["0"])
        sinusoids = time_sinusoids(t, _TIME_SINUSOIDS).to(first.weight.dtype)
        return self.time_mlp["2"](F.silu(first(sinusoids)))


class PositionConv(nn.Module):
    """Two causal grouped convolutions with Mish."""

    def __init__(self, dim: int) -> None:
        super().__init__()

        def conv() -> nn.ModuleList:
            return nn.ModuleList([nn.Conv1d(dim, dim, _POSITION_KERNEL, groups=_POSITION_GROUPS)])

        self.conv1 = conv()
        self.conv2 = conv()

    def forward(self, x: Tensor, carry: Carry) -> Tensor:
        for (conv,) in (self.conv1, self.conv2):
            padded = carry.left_context(x, _POSITION_KERNEL - 1)
            x = F.mish(conv(padded.transpose(1, 2))).transpose(1, 2)
        return x


class InputEmbedding(nn.Module):
    """Projection of x, cond, mu and speaker, in this order, and convolutions that tell positions."""

    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(in_channels, dim)
        self.conv_pos_embed = PositionConv(dim)

    def project_condition(self, cond: Tensor, mu: Tensor, spks: Tensor) -> Tensor:
        """What all inputs but x add to the projection. cond, mu: (B, T, mel); spks: (B, mel)."""
        rest = torch.cat([cond, mu, spks[:, None].expand(-1, mu.shape[1], -1)], dim=-1)
        return F.linear(rest, self.proj.weight[:, -rest.shape[-1] :], self.proj.bias)

    def forward(self, x: Tensor, projected_condition: Tensor, carry: Carry) -> Tensor:
        x = F.linear(x, self.proj.weight[:, : x.shape[-1]]) + projected_condition
        return self.conv_pos_embed(x, carry) + x


class RotaryEmbedding(nn.Module):
    """Holds the checkpoint's frequencies, in float32 whatever the model's dtype."""

    inv_freq: Tensor

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        exponents = torch.arange(0, head_dim, 2).float() / head_dim
        self.register_buffer("inv_freq", 10_000.0**-exponents)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RotaryEmbedding:
        exact = self.inv_freq
        super()._apply(fn, recurse)
        if self.inv_freq.dtype != exact.dtype:
            self.inv_freq = exact.to(self.inv_freq.device)
        return self


class Modulation(nn.Module):
    """Turns the time embedding into shifts, scales and gates."""

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, count * dim)
        self.count = count

    def forward(self, time: Tensor) -> Tensor:
        """(N, dim) to (N, count, dim)."""
        return self.linear(F.silu(time)).unflatten(-1, (self.count, -1))


class FeedForward(nn.Module):
    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        into = nn.Sequential(nn.Linear(dim, inner), nn.GELU(approximate="tanh"))
        self.ff = nn.ModuleDict({"0": into, "2": nn.Linear(inner, dim)})

    def forward(self, x: Tensor) -> Tensor:
        return self.ff["2"](self.ff["0"](x))


class DiTBlock(nn.Module):
    def __init__(self, cfg: DiTConfig) -> None:
        super().__init__()
        self.attn_norm = Modulation(cfg.dim, _BLOCK_MODULATIONS)
        self.attn = SelfAttention(cfg.dim, cfg.heads, cfg.dim_head, qkv_bias=True)
        self.ff = FeedForward(cfg.dim, cfg.ff_mult * cfg.dim)

    def forward(
        self, x: Tensor, modulation: Tensor, mask: Tensor | None, rotation: Rotation, carry: Carry
    ) -> Tensor:
        """modulation: (B or 1, 6, dim)."""
        shift, scale, gate, ff_shift, ff_scale, ff_gate = modulation[:, :, None].unbind(1)
        x = x + gate * self.attn(_modulated_norm(x, scale, shift), mask, carry, rotation)
        return x + ff_gate * self.ff(_modulated_norm(x, ff_scale, ff_shift))


@dataclass(frozen=True, slots=True)
class _Condition:
    """What does not change from step to step."""

    frames: Frames
    mask: Tensor | None
    rotation: Rotation
    projected: Tensor  # (B, T, dim)


class DiT(nn.Module):
    """Estimates the velocity of the flow at x, given time, mu, speaker and prompt."""

    def __init__(self, cfg: DiTConfig) -> None:
        super().__init__()
        self.time_embed = TimeEmbedding(cfg.dim)
        self.input_embed = InputEmbedding(2 * cfg.mel_dim + cfg.mu_dim + cfg.spk_dim, cfg.dim)
        self.rotary_embed = RotaryEmbedding(cfg.dim_head)
        self.transformer_blocks = nn.ModuleList([DiTBlock(cfg) for _ in range(cfg.depth)])
        self.norm_out = Modulation(cfg.dim, _FINAL_MODULATIONS)
        self.proj_out = nn.Linear(cfg.dim, cfg.out_channels)

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
        """(N,) to (N, 6 * depth + 2, dim): the modulations of all blocks, then of the final norm."""
        time = self.time_embed(t)
        blocks = cast(list[DiTBlock], list(self.transformer_blocks))
        return torch.cat([*(block.attn_norm(time) for block in blocks), self.norm_out(time)], dim=1)

    def bind(
        self, mu: Tensor, spks: Tensor, cond: Tensor, frames: Frames, state: EstimatorState | None
    ) -> Velocity:
        """The estimator with all its inputs fixed but x and t, as `Velocity` describes."""
        condition = _Condition(
            frames,
            frames.attention_mask(mu.device),
            Rotation.at(frames.positions(mu.device), self.rotary_embed.inv_freq, mu.dtype),
            self.input_embed.project_condition(cond.transpose(1, 2), mu.transpose(1, 2), spks),
        )
        return partial(self._velocity, condition)

    def _velocity(
        self, condition: _Condition, x: Tensor, time: Tensor, state: EstimatorState | None, keep_state: bool
    ) -> tuple[Tensor, EstimatorState | None]:
        carry = Carry(condition.frames, state, keep_state)
        x = self.input_embed(x, condition.projected, carry)
        for index, block in enumerate(self.transformer_blocks):
            modulation = time[:, index * _BLOCK_MODULATIONS : (index + 1) * _BLOCK_MODULATIONS]
            x = block(x, modulation, condition.mask, condition.rotation, carry)
        scale, shift = time[:, -_FINAL_MODULATIONS:, None].unbind(1)
        return self.proj_out(_modulated_norm(x, scale, shift)), carry.next_state()


def _modulated_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    size = int(x.shape[-1])  # a number also where the model is traced for export
    return F.layer_norm(x, (size,), eps=_NORM_EPS) * (1 + scale) + shift
