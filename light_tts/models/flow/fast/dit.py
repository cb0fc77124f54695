"""CosyVoice3's estimator on packed weights; `light_tts.models.flow.dit` is its oracle."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from light_tts.kernels.flow_windows import extended
from light_tts.kernels.hift_conv import Taps
from light_tts.models.flow.dit import _BLOCK_MODULATIONS, _NORM_EPS, DiT, DiTBlock
from light_tts.models.flow.fast.binding import Binding
from light_tts.models.flow.fast.estimator import FastEstimator, TailShape, VelocityAt
from light_tts.models.flow.fast.ops import Linear, Norm, Ops
from light_tts.models.flow.fast.unet import linear_of, qkv_linear


@dataclass(frozen=True, slots=True)
class _Block:
    qkv: Linear
    out: Linear
    widen: Linear
    narrow: Linear


@dataclass(frozen=True, slots=True)
class _Modulation:
    """A block's at one step: what its norms become, and the gates of its two halves."""

    attention: Norm
    gate: Tensor
    feed_forward: Norm
    ff_gate: Tensor


@dataclass(frozen=True, slots=True)
class _Condition:
    """projected: (R * T, dim); cos, sin: (R * T, head_dim / 2) float32"""

    projected: Tensor
    cos: Tensor
    sin: Tensor


def _packed(block: DiTBlock, dtype: torch.dtype) -> _Block:
    into = cast(nn.Sequential, block.ff.ff["0"])
    return _Block(
        qkv_linear(block.attn, dtype),
        linear_of(cast(nn.Linear, block.attn.to_out[0]), dtype),
        linear_of(cast(nn.Linear, into[0]), dtype),
        linear_of(cast(nn.Linear, block.ff.ff["2"]), dtype),
    )


class FastDiT(FastEstimator):
    """Layout: (R * T, dim), rows padded to T frames."""

    def __init__(self, dit: DiT, times: Tensor, dtype: torch.dtype, stream: torch.dtype, ops: Ops) -> None:
        """times: (steps,); stream: type of the blocks' residual sums"""
        self._ops, self._dtype, self._stream = ops, dtype, stream
        blocks = cast(list[DiTBlock], list(dit.transformer_blocks))
        self._blocks = tuple(_packed(block, dtype) for block in blocks)
        modulations = dit.embed_times(times).detach().to(dtype)  # (steps, 6 * depth + 2, dim)
        self._modulations = tuple(
            tuple(_modulation(vectors[index * _BLOCK_MODULATIONS :]) for index in range(len(blocks)))
            for vectors in modulations
        )
        self._ends = tuple(Norm(1 + vectors[-2], vectors[-1].clone(), _NORM_EPS) for vectors in modulations)
        embed = dit.input_embed
        self.mel = dit.proj_out.out_features
        self._x_projection = Linear.of(embed.proj.weight[:, : self.mel], None, dtype)
        self._rest_projection = Linear.of(embed.proj.weight[:, self.mel :], embed.proj.bias, dtype)
        convs = [
            cast(nn.Conv1d, conv[0]) for conv in (embed.conv_pos_embed.conv1, embed.conv_pos_embed.conv2)
        ]
        self._convs = tuple(Taps.of(c.weight, c.bias, dtype, groups=c.groups) for c in convs)
        self._project = linear_of(dit.proj_out, dtype)
        self._frequencies = dit.rotary_embed.inv_freq.detach().float()
        attention = blocks[0].attn
        self.heads, self.inner = attention.heads, attention.to_q.out_features
        self.num_attentions = len(blocks)
        self.tails = tuple(TailShape(conv.taps - 1, conv.out_channels, True) for conv in self._convs)

    def bind(self, mu: Tensor, spks: Tensor, cond: Tensor, binding: Binding) -> VelocityAt:
        rest = torch.cat([cond, mu, spks[:, None].expand_as(mu)], dim=-1)
        angles = binding.positions.float()[:, None] * self._frequencies
        projected = self._rest_projection(rest.flatten(0, 1))
        return partial(self._velocity, _Condition(projected, angles.cos(), angles.sin()), binding)

    def _velocity(self, condition: _Condition, binding: Binding, x: Tensor, step: int) -> Tensor:
        ops = self._ops
        h = torch.addmm(condition.projected, x.flatten(0, 1), self._x_projection.weight)
        moved = h.view(binding.num_rows, binding.num_frames, -1)
        for index, conv in enumerate(self._convs):
            ext = extended(moved, conv.taps - 1, binding.tails(index, step))
            moved = ops.grouped_mish_conv(ext, conv)
        x = (h + moved.flatten(0, 1)).to(self._stream)
        delta, gate = None, None
        for layer, (block, modulation) in enumerate(zip(self._blocks, self._modulations[step], strict=True)):
            h = ops.add_norm(x, delta, modulation.attention, gate)
            delta = block.out(self._attention(block.qkv(h), condition, binding, layer, step))
            h = ops.add_norm(x, delta, modulation.feed_forward, modulation.gate)
            delta, gate = block.narrow(ops.gelu_linear(h, block.widen, tanh=True)), modulation.ff_gate
        return self._project(ops.add_norm(x, delta, self._ends[step], gate))

    def _attention(
        self, qkv: Tensor, condition: _Condition, binding: Binding, layer: int, step: int
    ) -> Tensor:
        self._ops.rotate_first_head(qkv, condition.cos, condition.sin)
        memory = binding.keys_values(self._ops, qkv, layer, step)
        query = qkv[:, : self.inner].unflatten(1, (self.heads, -1))
        key, value = (memory[:, index].unflatten(1, (self.heads, -1)) for index in (0, 1))
        return self._ops.attend(query, key, value, binding.segments).flatten(1)


def _modulation(vectors: Tensor) -> _Modulation:
    """vectors: (6 or more, dim): shift, scale and gate of attention, then of the feed-forward"""
    shift, scale, gate, ff_shift, ff_scale, ff_gate = (v.clone() for v in vectors[:_BLOCK_MODULATIONS])
    return _Modulation(
        Norm(1 + scale, shift, _NORM_EPS), gate, Norm(1 + ff_scale, ff_shift, _NORM_EPS), ff_gate
    )
