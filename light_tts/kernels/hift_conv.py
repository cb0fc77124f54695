"""Convolutions over time on channels-last rows, with the Snake activation and sums around them in the same kernel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from light_tts.kernels.lang import jit, power_of_two, tl


@dataclass(frozen=True, slots=True)
class Taps:
    """A convolution's weights.

    weight: (taps, in / groups, out), in the type of the input; bias: (out,) float32
    """

    weight: Tensor
    bias: Tensor
    dilation: int = 1
    groups: int = 1

    @classmethod
    def of(
        cls, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, dilation: int = 1, groups: int = 1
    ) -> Taps:
        """weight: (out, in / groups, taps), of a Conv1d"""
        out = weight.shape[0]
        zeros = torch.zeros(out, dtype=torch.float32, device=weight.device)
        packed = weight.detach().permute(2, 1, 0).to(dtype).contiguous()
        return cls(packed, zeros if bias is None else bias.detach().float(), dilation, groups)

    @property
    def taps(self) -> int:
        return self.weight.shape[0]

    @property
    def out_channels(self) -> int:
        return self.weight.shape[2]


@dataclass(frozen=True, slots=True)
class Ending:
    """What is done with a convolution's result before it is stored: y = leaky((result + residual + extra) * factor).

    residual, extra: (R, T, out); slope: of the leaky ReLU, 1 for none
    lens: (R,) int32, frames after which a row is zero
    alpha: (out,) float32 of the Snake of y; only_snake: y itself is not wanted
    dtype: of y and its Snake, None for that of the input
    """

    residual: Tensor | None = None
    extra: Tensor | None = None
    factor: float = 1.0
    slope: float = 1.0
    lens: Tensor | None = None
    alpha: Tensor | None = None
    only_snake: bool = False
    dtype: torch.dtype | None = None


def snake_reference(x: Tensor, alpha: Tensor) -> Tensor:
    """x + sin(alpha x)^2 / alpha along the last dimension, in float32."""
    wide = x.float()
    return (wide + torch.sin(wide * alpha).square() / (alpha + 1e-9)).to(x.dtype)


def conv_reference(x: Tensor, conv: Taps, frames: int, offset: int, ending: Ending) -> tuple[Tensor, Tensor]:
    """Frame t of the result sees x at t + offset + k * dilation, zeros outside.

    x: (R, T, in), zero beyond its rows' lengths. Returns y and its Snake, (R, frames, out); one of them may be the
    other where it is not wanted.
    """
    reach = (conv.taps - 1) * conv.dilation
    after = frames + offset + reach - x.shape[1]
    padded = F.pad(x, (0, 0, max(0, -offset), max(0, after)))[:, max(0, offset) :][:, : frames + reach]
    weight = conv.weight.permute(2, 1, 0).float()
    wide = F.conv1d(
        padded.transpose(1, 2).float(), weight, conv.bias, dilation=conv.dilation, groups=conv.groups
    )
    y = wide.transpose(1, 2)
    for more in (ending.residual, ending.extra):
        if more is not None:
            y = y + more
    y = F.leaky_relu(y * ending.factor, ending.slope)
    if ending.lens is not None:
        y = y * (torch.arange(frames, device=y.device) < ending.lens[:, None])[:, :, None]
    y = y.to(ending.dtype or x.dtype)
    return y, y if ending.alpha is None else snake_reference(y, ending.alpha)


@jit()
def _snake_of(x, frequency):
    """In float32; of the sine only its square counts, which repeats every half turn."""
    angle = x * frequency
    turns = tl.floor(angle * 0.3183098861837907 + 0.5)
    r = angle - turns * 3.140625 - turns * 9.67653589793e-4
    q = r * r
    s = r * (1.0 + q * (-1.6666667e-1 + q * (8.333333e-3 + q * (-1.984127e-4 + q * 2.7557319e-6))))
    return x + s * s / (frequency + 1e-9)


@jit("count")
def _snake(x, alpha, out, count, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    wide = tl.load(x + at, mask=at < count, other=0.0).to(tl.float32)
    a = tl.load(alpha + at % SIZE, mask=at < count, other=1.0)
    tl.store(out + at, _snake_of(wide, a).to(out.dtype.element_ty), mask=at < count)


def snake_triton(x: Tensor, alpha: Tensor) -> Tensor:
    """As the reference; x is contiguous."""
    out = torch.empty_like(x)
    _snake[(-(-x.numel() // 2048),)](x, alpha, out, x.numel(), SIZE=x.shape[-1], BLOCK=2048, num_warps=4)
    return out


@jit("length", "frames", "offset", "taps", "dilation")
def _conv(
    x, weight, bias, residual, extra, lens, alpha, out, snake, length, frames, offset, taps, dilation, factor, slope,
    CIN: tl.constexpr, COUT: tl.constexpr, CTOTAL: tl.constexpr, OTOTAL: tl.constexpr,
    BT: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, PARTS: tl.constexpr, BLOCKS: tl.constexpr,
    RESIDUAL: tl.constexpr, EXTRA: tl.constexpr, LENS: tl.constexpr, PLAIN: tl.constexpr, SNAKE: tl.constexpr
):  # fmt: skip
    row = tl.program_id(2).to(tl.int64)
    group = tl.program_id(1) // BLOCKS
    frame = tl.program_id(0) * BT + tl.arange(0, BT)
    own = (tl.program_id(1) % BLOCKS) * BN + tl.arange(0, BN)
    column = group * COUT + own
    wanted = own < COUT
    limit = frames
    if LENS:
        limit = tl.minimum(frames, tl.load(lens + row))
    total = tl.zeros((BT, BN), dtype=tl.float32)
    source = x + row * length * CTOTAL + group * CIN
    for step in range(taps * PARTS):
        tap = step // PARTS
        channel = (step % PARTS) * BK + tl.arange(0, BK)
        at = frame + offset + tap * dilation
        inside = ((at >= 0) & (at < length))[:, None] & (channel < CIN)[None, :]
        a = tl.load(source + at[:, None] * CTOTAL + channel[None, :], mask=inside, other=0.0)
        held = (channel < CIN)[:, None] & wanted[None, :]
        b = tl.load(weight + (tap * CIN + channel)[:, None] * OTOTAL + column[None, :], mask=held, other=0.0)
        total = tl.dot(a, b, total, input_precision="ieee")
    total += tl.load(bias + column, mask=wanted, other=0.0)[None, :]
    stored = (frame < frames)[:, None] & wanted[None, :]
    to = (row * frames + frame)[:, None] * OTOTAL + column[None, :]
    if RESIDUAL:
        total += tl.load(residual + to, mask=stored, other=0.0).to(tl.float32)
    if EXTRA:
        total += tl.load(extra + to, mask=stored, other=0.0).to(tl.float32)
    total *= factor
    total = tl.where(total >= 0, total, total * slope)
    total = tl.where((frame < limit)[:, None], total, 0.0)
    y = total.to(out.dtype.element_ty)
    if PLAIN:
        tl.store(out + to, y, mask=stored)
    if SNAKE:
        frequency = tl.load(alpha + column, mask=wanted, other=1.0)[None, :]
        tl.store(snake + to, _snake_of(y.to(tl.float32), frequency).to(out.dtype.element_ty), mask=stored)


def conv_triton(x: Tensor, conv: Taps, frames: int, offset: int, ending: Ending) -> tuple[Tensor, Tensor]:
    """As the reference; x, residual and extra are contiguous."""
    rows, length, channels = x.shape
    cin, cout = conv.weight.shape[1], conv.out_channels // conv.groups
    out = torch.empty(rows, frames, conv.out_channels, dtype=ending.dtype or x.dtype, device=x.device)
    plain = not (ending.only_snake and ending.alpha is not None)
    snake = torch.empty_like(out) if plain and ending.alpha is not None else out
    bn = min(128, max(16, power_of_two(cout)))
    bk = min(64, max(16, power_of_two(cin)))
    bt = 128 if rows * frames * conv.out_channels >= 128 * bn * 132 else 64

    def or_bias(tensor: Tensor | None) -> Tensor:
        return conv.bias if tensor is None else tensor

    blocks = -(-cout // bn)
    _conv[(-(-frames // bt), conv.groups * blocks, rows)](
        x, conv.weight, conv.bias, or_bias(ending.residual), or_bias(ending.extra), or_bias(ending.lens),
        or_bias(ending.alpha), out, snake, length, frames, offset, conv.taps, conv.dilation,
        ending.factor, ending.slope,
        CIN=cin, COUT=cout, CTOTAL=channels, OTOTAL=conv.out_channels,
        BT=bt, BN=bn, BK=bk, PARTS=-(-cin // bk), BLOCKS=blocks,
        RESIDUAL=ending.residual is not None, EXTRA=ending.extra is not None, LENS=ending.lens is not None,
        PLAIN=plain, SNAKE=ending.alpha is not None,
        num_warps=8 if bt * bn >= 128 * 128 else 4, num_stages=3,
    )  # fmt: skip
    return out, snake
