"""Which implementation of each operation runs: Triton's, a library's or the plain one. Chosen here alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from light_tts.kernels import flow_norm, flow_rotate, flow_store, flow_windows, hift_conv
from light_tts.kernels.flow_windows import Tails
from light_tts.kernels.lang import can_run

ALL = frozenset({"norm", "windows", "rotate", "store", "conv", "attention", "gelu"})


@dataclass(frozen=True, slots=True)
class Linear:
    """weight: (in, out), as a matrix product takes it; bias: (out,)"""

    weight: Tensor
    bias: Tensor | None

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Linear:
        """weight: (out, in)"""
        return cls(
            weight.detach().to(dtype).contiguous().t(), None if bias is None else bias.detach().to(dtype)
        )

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.weight if self.bias is None else torch.addmm(self.bias, x, self.weight)


@dataclass(frozen=True, slots=True)
class Norm:
    """scale, shift: (size,)"""

    scale: Tensor
    shift: Tensor
    eps: float


@dataclass(frozen=True, slots=True)
class Segments:
    """Which keys which queries see: piece s of the queries sees `lens[s]` keys from `starts[s]` on. No masks.

    starts: (S + 1,), lens: (S,) int32; every query belongs to one piece of `step` queries; no piece sees nothing
    max_keys: bound of `lens`
    """

    borders: Tensor
    starts: Tensor
    lens: Tensor
    step: int
    max_keys: int

    @classmethod
    def of(cls, starts: Tensor, lens: Tensor, step: int, max_keys: int) -> Segments:
        """starts, lens: (S,) int32"""
        borders = torch.arange(len(lens) + 1, dtype=torch.int32, device=lens.device) * step
        return cls(borders, torch.cat([starts, starts[-1:]]), lens, step, max_keys)


def attend_reference(query: Tensor, key: Tensor, value: Tensor, segments: Segments) -> Tensor:
    """query: (N, heads, head_dim); key, value: (rows, heads, head_dim). Returns (N, heads, head_dim)."""
    out = []
    pieces = query.split(segments.step)
    places = zip(pieces, segments.starts.tolist(), segments.lens.tolist(), strict=False)
    for piece, start, length in places:
        q, k, v = (t.transpose(0, 1)[None] for t in (piece, key[start:][:length], value[start:][:length]))
        out.append(F.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1))
    return torch.cat(out)


def attend_flash(query: Tensor, key: Tensor, value: Tensor, segments: Segments) -> Tensor:
    """As the reference, by torch's FlashAttention for sequences of different lengths; half precision on a GPU."""
    result = torch.ops.aten._flash_attention_forward(
        query,
        key,
        value,
        segments.borders,
        segments.starts,
        segments.step,
        segments.max_keys,
        0.0,
        False,
        False,
        seqused_k=segments.lens,
    )
    return result[0]


@dataclass(frozen=True, slots=True)
class Ops:
    """fast: names out of ALL; what is not named runs as its reference, with the same results"""

    fast: frozenset[str] = frozenset()

    @classmethod
    def best(cls, device: torch.device, dtype: torch.dtype) -> Ops:
        if device.type != "cuda" or dtype == torch.float32:
            return cls()
        return cls(ALL if can_run(device) else frozenset({"attention", "gelu"}))

    def without(self, *names: str) -> Ops:
        return replace(self, fast=self.fast - set(names))

    def add_norm(self, x: Tensor, delta: Tensor | None, norm: Norm, gate: Tensor | None = None) -> Tensor:
        run = flow_norm.add_layer_norm_triton if "norm" in self.fast else flow_norm.add_layer_norm_reference
        return run(x, delta, gate, norm.scale, norm.shift, norm.eps)

    def norm_mish(
        self, x: Tensor, norm: Norm, vector: Tensor | None, residual: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        run = flow_norm.norm_mish_triton if "norm" in self.fast else flow_norm.norm_mish_reference
        return run(x, norm.scale, norm.shift, norm.eps, vector, residual, dtype)

    def windows(self, x: Tensor, taps: int, tails: Tails | None) -> Tensor:
        run = flow_windows.windows_triton if "windows" in self.fast else flow_windows.windows_reference
        return run(x, taps, tails)

    def rotate_first_head(self, qkv: Tensor, cos: Tensor, sin: Tensor) -> None:
        fast = "rotate" in self.fast
        run = flow_rotate.rotate_first_head_triton if fast else flow_rotate.rotate_first_head_reference
        run(qkv, cos, sin)

    def store_rows(self, memory: Tensor, places: Tensor, rows: Tensor) -> None:
        run = flow_store.store_rows_triton if "store" in self.fast else flow_store.store_rows_reference
        run(memory, places, rows)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, segments: Segments) -> Tensor:
        run = attend_flash if "attention" in self.fast else attend_reference
        return run(query, key, value, segments)

    def gelu_linear(self, x: Tensor, linear: Linear, tanh: bool) -> Tensor:
        """GELU of a linear layer. In one kernel it is the tanh form, 5e-4 from the exact one at most."""
        assert linear.bias is not None
        if "gelu" in self.fast:
            return torch._addmm_activation(linear.bias, x, linear.weight, use_gelu=True)
        return F.gelu(linear(x), approximate="tanh" if tanh else "none")

    def grouped_mish_conv(self, x: Tensor, conv: hift_conv.Taps) -> Tensor:
        """mish of a convolution without padding: (R, k - 1 + T, C) to (R, T, C)."""
        run = hift_conv.conv_triton if "conv" in self.fast else hift_conv.conv_reference
        return F.mish(run(x.contiguous(), conv, x.shape[1] - conv.taps + 1, 0, hift_conv.Ending())[0])
