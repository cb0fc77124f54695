"""CosyVoice2's estimator on packed weights; `light_tts.models.flow.unet` is its oracle."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from light_tts.models.flow.fast.binding import Binding
from light_tts.models.flow.fast.estimator import FastEstimator, TailShape, VelocityAt
from light_tts.models.flow.fast.ops import Linear, Norm, Ops
from light_tts.models.flow.unet import CausalBlock, ConditionalUNet, ResnetBlock, Stage, TransformerBlock
from light_tts.models.layers.attention import SelfAttention

TAPS = 3


@dataclass(frozen=True, slots=True)
class _Resnet:
    conv1: Linear
    norm1: Norm
    conv2: Linear
    norm2: Norm
    residual: Linear


@dataclass(frozen=True, slots=True)
class _Block:
    norm1: Norm
    qkv: Linear
    out: Linear
    norm2: Norm
    widen: Linear
    narrow: Linear


@dataclass(frozen=True, slots=True)
class _Stage:
    resnet: _Resnet
    blocks: tuple[_Block, ...]
    conv: Linear | None


def taps_linear(conv: nn.Conv1d, dtype: torch.dtype, channels: slice = slice(None)) -> Linear:
    """A convolution as the linear layer that windows go through; channels: those of its input."""
    weight = conv.weight[:, channels].transpose(1, 2).flatten(1)
    return Linear.of(weight, conv.bias, dtype)


def norm_of(norm: nn.LayerNorm, dtype: torch.dtype) -> Norm:
    return Norm(norm.weight.detach().to(dtype), norm.bias.detach().to(dtype), norm.eps)


def qkv_linear(attention: SelfAttention, dtype: torch.dtype) -> Linear:
    parts = (attention.to_q, attention.to_k, attention.to_v)
    weight = torch.cat([part.weight for part in parts])
    bias = None if parts[0].bias is None else torch.cat([part.bias for part in parts])
    return Linear.of(weight, bias, dtype)


def linear_of(layer: nn.Linear, dtype: torch.dtype) -> Linear:
    return Linear.of(layer.weight, layer.bias, dtype)


def _resnet(block: ResnetBlock, dtype: torch.dtype) -> _Resnet:
    def norm(part: CausalBlock) -> Norm:
        return norm_of(part.block["2"], dtype)  # type: ignore[arg-type]

    return _Resnet(
        taps_linear(block.block1.conv, dtype),
        norm(block.block1),
        taps_linear(block.block2.conv, dtype),
        norm(block.block2),
        Linear.of(block.res_conv.weight[:, :, 0], block.res_conv.bias, dtype),
    )


def _block(block: TransformerBlock, dtype: torch.dtype) -> _Block:
    net = block.ff.net
    return _Block(
        norm_of(block.norm1, dtype),
        qkv_linear(block.attn1, dtype),
        linear_of(block.attn1.to_out[0], dtype),  # type: ignore[arg-type]
        norm_of(block.norm3, dtype),
        linear_of(net["0"].proj, dtype),  # type: ignore[arg-type]
        linear_of(net["2"], dtype),  # type: ignore[arg-type]
    )


def _transformers(stage: Stage) -> list[TransformerBlock]:
    return cast(list[TransformerBlock], list(cast(nn.ModuleList, stage[1])))


def _stage(stage: Stage, dtype: torch.dtype) -> _Stage:
    blocks = tuple(_block(block, dtype) for block in _transformers(stage))
    return _Stage(
        _resnet(stage.resnet, dtype), blocks, taps_linear(stage.conv, dtype) if len(stage) > 2 else None
    )


@dataclass(frozen=True, slots=True)
class _Condition:
    """What does not change from step to step: (R * T, channels) each."""

    convolved: Tensor
    residual: Tensor


class FastUNet(FastEstimator):
    """Layout: (R * T, C), rows padded to T frames."""

    def __init__(
        self, unet: ConditionalUNet, times: Tensor, dtype: torch.dtype, stream: torch.dtype, ops: Ops
    ):
        """times: (steps,); stream: type of the transformers' residual sums"""
        self._ops, self._dtype, self._stream = ops, dtype, stream
        self._shifts = unet.embed_times(times).detach().to(dtype)  # (steps, resnets, channels)
        stages = unet._stages
        self._stages = tuple(_stage(stage, dtype) for stage in stages)
        self._final = taps_linear(unet.final_block.conv, dtype)
        self._final_norm = norm_of(unet.final_block.block["2"], dtype)  # type: ignore[arg-type]
        self._project = Linear.of(unet.final_proj.weight[:, :, 0], unet.final_proj.bias, dtype)
        first = stages[0].resnet
        conv, residual = first.block1.conv, first.res_conv
        self.mel = unet.final_proj.out_channels
        rest = conv.in_channels - self.mel
        self._x_conv = taps_linear(conv, dtype, slice(0, self.mel))
        self._rest_conv = taps_linear(conv, dtype, slice(self.mel, None))
        self._x_residual = Linear.of(residual.weight[:, : self.mel, 0], None, dtype)
        self._rest_residual = Linear.of(residual.weight[:, self.mel :, 0], residual.bias, dtype)
        attention = _transformers(stages[0])[0].attn1
        self.heads, self.inner = attention.heads, attention.to_q.out_features
        self.num_attentions = sum(len(stage.blocks) for stage in self._stages)
        channels = unet.final_proj.in_channels
        widths = [self.mel, channels, channels]  # the first stage's input, its inner convolution, its end
        widths += [channels, channels] * (len(stages) - 2)
        widths += [2 * channels, channels, channels, channels]  # the last stage's, and the final block's
        self.tails = (
            TailShape(TAPS - 1, rest, False),
            *(TailShape(TAPS - 1, width, True) for width in widths),
        )

    def bind(self, mu: Tensor, spks: Tensor, cond: Tensor, binding: Binding) -> VelocityAt:
        rest = torch.cat([mu, spks[:, None].expand_as(mu), cond], dim=-1)
        windows = self._ops.windows(rest, TAPS, binding.tails(0, 0))
        condition = _Condition(self._rest_conv(windows), self._rest_residual(rest.flatten(0, 1)))
        return partial(self._velocity, condition, binding)

    def _velocity(self, condition: _Condition, binding: Binding, x: Tensor, step: int) -> Tensor:
        call = _Call(self._ops, binding, step, self.heads)
        shifts = self._shifts[step].unbind(0)
        down, *middle, up = self._stages
        convolved = torch.addmm(condition.convolved, call.windows(x), self._x_conv.weight)
        residual = torch.addmm(condition.residual, x.flatten(0, 1), self._x_residual.weight)
        h = self._resnet_end(down.resnet, convolved, residual, shifts[0], call)
        h = skip = self._transform(down, h, call)
        assert down.conv is not None
        assert up.conv is not None
        h = down.conv(call.windows(h))
        for stage, shift in zip(middle, shifts[1:-1], strict=True):
            h = self._transform(stage, self._resnet(stage.resnet, h, shift, call), call)
        h = self._resnet(up.resnet, torch.cat([h, skip], dim=-1), shifts[-1], call)
        h = up.conv(call.windows(self._transform(up, h, call)))
        h = self._final(call.windows(h))
        h = self._ops.norm_mish(h, self._final_norm, None, None, self._dtype)
        return self._project(h)

    def _resnet(self, net: _Resnet, x: Tensor, shift: Tensor, call: _Call) -> Tensor:
        convolved = net.conv1(call.windows(x))
        return self._resnet_end(net, convolved, net.residual(x), shift, call)

    def _resnet_end(
        self, net: _Resnet, convolved: Tensor, residual: Tensor, shift: Tensor, call: _Call
    ) -> Tensor:
        h = self._ops.norm_mish(convolved, net.norm1, shift, None, self._dtype)
        h = net.conv2(call.windows(h))
        return self._ops.norm_mish(h, net.norm2, None, residual, self._stream)

    def _transform(self, stage: _Stage, x: Tensor, call: _Call) -> Tensor:
        """x: (R * T, channels), changed in place. Returns it in half precision."""
        delta = None
        for block in stage.blocks:
            h = self._ops.add_norm(x, delta, block.norm1)
            delta = block.out(call.attention(block.qkv(h)))
            h = self._ops.add_norm(x, delta, block.norm2)
            delta = block.narrow(self._ops.gelu_linear(h, block.widen, tanh=False))
        return (x if delta is None else x + delta).to(self._dtype)


class _Call:
    """One evaluation: counts its convolutions and attentions in the order in which memory knows them."""

    def __init__(self, ops: Ops, binding: Binding, step: int, heads: int) -> None:
        self._ops, self._binding, self._step, self._heads = ops, binding, step, heads
        self._convolution, self._layer = 1, 0  # convolution 0 is the conditions'

    def windows(self, x: Tensor) -> Tensor:
        """x: (R, T, C) or (R * T, C)"""
        rows, frames = self._binding.num_rows, self._binding.num_frames
        tails = self._binding.tails(self._convolution, self._step)
        self._convolution += 1
        return self._ops.windows(x.reshape(rows, frames, -1), TAPS, tails)

    def attention(self, qkv: Tensor) -> Tensor:
        memory = self._binding.keys_values(self._ops, qkv, self._layer, self._step)
        self._layer += 1
        query = qkv[:, : qkv.shape[1] // 3].unflatten(1, (self._heads, -1))
        key, value = (memory[:, index].unflatten(1, (self._heads, -1)) for index in (0, 1))
        return self._ops.attend(query, key, value, self._binding.segments).flatten(1)
