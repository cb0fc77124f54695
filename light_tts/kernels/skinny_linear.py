"""A linear layer for few rows, with what stands around it in a decoder layer: such a product only reads its weights,
so what is fused into it is free.

RMSNorm before it: the norm's weight is in the layer's, and a row's scale can be applied to the product. The sums of
squares that it needs come from whoever wrote the rows: `embed.begin_step`, or this kernel where it adds to a residual.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from light_tts.kernels.lang import jit, overlap, power_of_two, prefetch, tl, triton, wait_for_earlier
from light_tts.kernels.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Tiles:
    """How the work is cut: block_m rows by block_n outputs a program, block_k inputs at a time; split: of the inputs"""

    block_m: int
    block_n: int
    block_k: int
    split: int
    num_warps: int
    num_stages: int


def skinny_linear_reference(
    x: Tensor,
    weight: Tensor,
    out: Tensor,
    *,
    bias: Tensor | None = None,
    squares: Tensor | None = None,
    eps: float = 0.0,
    gated: bool = False,
    out_squares: Tensor | None = None,
) -> None:
    """out = [silu of the first half, times the second] ([out +] [RMSNorm] (x) @ weight.T [+ bias]), rounded once.

    x: (B, size); weight: (cols, size), with `gated` (2 * cols, size), gates first; out: (B, cols), of any float type
    squares: (parts, B) float32, whose sum over parts is each row's sum of squares; None: x is taken as it is
    out_squares: (parts, B) float32, gets the same for the new `out`, to whose old value the product is added then;
        None: `out` is overwritten
    """
    numbers = x.float() @ weight.float().T
    if squares is not None:
        numbers *= torch.rsqrt(squares.sum(dim=0) / x.shape[1] + eps)[:, None]
    if bias is not None:
        numbers += bias.float()
    if gated:
        gate, up = numbers.chunk(2, dim=-1)
        numbers = F.silu(gate) * up
    if out_squares is None:
        out.copy_(numbers)
        return
    out.copy_(numbers + out.float())
    out_squares.zero_()
    out_squares[0] = out.float().square().sum(dim=-1)


@jit("rows", "stride", "parts")
def _finish(
    acc, gate_acc, bias, squares, out, out_squares, rows, stride, parts, eps, tile_n, m, n,
    NORM: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr, GATED: tl.constexpr,
    COLS: tl.constexpr, DEPTH: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    inside = (m < rows)[:, None] & (n < COLS)[None, :]
    if NORM:
        part = tl.arange(0, PARTS)
        held = tl.load(
            squares + part[:, None] * stride + m[None, :],
            mask=(part < parts)[:, None] & (m < rows)[None, :],
            other=0.0,
        )
        scale = tl.rsqrt(tl.sum(held, axis=0) / DEPTH + eps)[:, None]
        acc *= scale
        if GATED:
            gate_acc *= scale
    if BIAS:
        acc += tl.load(bias + n, mask=n < COLS, other=0.0).to(tl.float32)[None, :]
    if GATED:
        acc *= gate_acc * tl.sigmoid(gate_acc)
    at = out + m.to(tl.int64)[:, None] * COLS + n[None, :]
    if RESIDUAL:
        acc += tl.load(at, mask=inside, other=0.0).to(tl.float32)
    rounded = acc.to(out.dtype.element_ty)
    tl.store(at, rounded, mask=inside)
    if RESIDUAL:
        wide = tl.where(inside, rounded.to(tl.float32), 0.0)
        tl.store(out_squares + tile_n * stride + m, tl.sum(wide * wide, axis=1), mask=m < rows)


@jit("rows", "stride", "parts")
def _kernel(
    x, weight, bias, squares, out, out_squares, partial, arrivals, rows, stride, parts, eps,
    NORM: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr, GATED: tl.constexpr,
    COLS: tl.constexpr, DEPTH: tl.constexpr, PARTS: tl.constexpr, SPLIT: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, LINES: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    tile_n = tl.program_id(0)
    tile_m = tl.program_id(1)
    split = tl.program_id(2)
    blocks: tl.constexpr = (DEPTH + BLOCK_K - 1) // BLOCK_K
    share: tl.constexpr = (blocks + SPLIT - 1) // SPLIT
    if PDL == 2:  # weights are nobody's output
        line = tl.arange(0, LINES)[None, :] * 64
        first = weight + tl.minimum(tile_n * BLOCK_N + tl.arange(0, BLOCK_N), COLS - 1)[:, None] * DEPTH
        ahead = first + tl.minimum(split * share * BLOCK_K + line, DEPTH - 1)
        prefetch(ahead)
        if GATED:
            prefetch(ahead + COLS * DEPTH)
    wait_for_earlier(PDL)
    m = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    column = tl.minimum(n, COLS - 1)  # outputs beyond the last repeat it: no mask where weights are loaded
    row = tl.minimum(m, rows - 1)
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    gate_acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for block in range(split * share, tl.minimum(split * share + share, blocks)):
        k = block * BLOCK_K + tl.arange(0, BLOCK_K)
        x_at = x + row[:, None] * DEPTH + k[None, :]
        w_at = weight + column[None, :] * DEPTH + k[:, None]
        if DEPTH % BLOCK_K == 0:
            numbers = tl.load(x_at)
            w = tl.load(w_at)
        else:
            numbers = tl.load(x_at, mask=(k < DEPTH)[None, :], other=0.0)
            w = tl.load(w_at, mask=(k < DEPTH)[:, None], other=0.0)
        if GATED:
            gate_acc = tl.dot(numbers, w, gate_acc, input_precision="ieee")
            if DEPTH % BLOCK_K == 0:
                w = tl.load(w_at + COLS * DEPTH)
            else:
                w = tl.load(w_at + COLS * DEPTH, mask=(k < DEPTH)[:, None], other=0.0)
        acc = tl.dot(numbers, w, acc, input_precision="ieee")
    if SPLIT == 1:
        _finish(
            acc, gate_acc, bias, squares, out, out_squares, rows, stride, parts, eps, tile_n, m, n,
            NORM, BIAS, RESIDUAL, GATED, COLS, DEPTH, PARTS,
        )  # fmt: skip
    else:
        height = tl.num_programs(1) * BLOCK_M
        at = partial + m.to(tl.int64)[:, None] * COLS + n[None, :]
        inside = (m < rows)[:, None] & (n < COLS)[None, :]
        tl.store(at + split * height * COLS, acc, mask=inside)
        tl.debug_barrier()  # all threads have stored before one of them says so
        tile = tile_m * tl.num_programs(0) + tile_n
        arrived = tl.atomic_add(arrivals + tile, 1, sem="acq_rel", scope="gpu")
        if arrived == SPLIT - 1:
            # In the order of the parts, whichever came last; past the L1 cache, for others wrote it.
            acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
            for part in tl.static_range(SPLIT):
                acc += tl.load(at + part * height * COLS, mask=inside, other=0.0, cache_modifier=".cg")
            _finish(
                acc, gate_acc, bias, squares, out, out_squares, rows, stride, parts, eps, tile_n, m, n,
                NORM, BIAS, RESIDUAL, GATED, COLS, DEPTH, PARTS,
            )  # fmt: skip
            tl.store(arrivals + tile, 0)


def skinny_linear_triton(
    x: Tensor,
    weight: Tensor,
    out: Tensor,
    *,
    tiles: Tiles,
    workspace: Workspace,
    bias: Tensor | None = None,
    squares: Tensor | None = None,
    eps: float = 0.0,
    gated: bool = False,
    out_squares: Tensor | None = None,
    pdl: int = 0,
) -> None:
    """As the reference. `out_squares` needs a part for each block of outputs; parts that nobody fills must be zero."""
    rows, depth = x.shape
    cols = out.shape[1]
    grid = (triton.cdiv(cols, tiles.block_n), triton.cdiv(rows, tiles.block_m), tiles.split)
    if gated and tiles.split > 1:
        raise ValueError(f"split is {tiles.split}, a gated layer cannot be split")
    if out_squares is not None and len(out_squares) < grid[0]:
        raise ValueError(f"out_squares has {len(out_squares)} parts, {grid[0]} are needed")
    if tiles.split > 1:
        workspace.check(tiles.split * grid[1] * tiles.block_m * cols, grid[0] * grid[1])
    either = squares if squares is not None else out_squares
    _kernel[grid](
        x,
        weight,
        x if bias is None else bias,
        x if squares is None else squares,
        out,
        x if out_squares is None else out_squares,
        workspace.numbers,
        workspace.arrivals,
        rows,
        0 if either is None else either.stride(0),
        0 if squares is None else len(squares),
        eps,
        NORM=squares is not None,
        BIAS=bias is not None,
        RESIDUAL=out_squares is not None,
        GATED=gated,
        COLS=cols,
        DEPTH=depth,
        PARTS=1 if squares is None else power_of_two(len(squares)),
        SPLIT=tiles.split,
        BLOCK_M=tiles.block_m,
        BLOCK_N=tiles.block_n,
        BLOCK_K=tiles.block_k,
        LINES=power_of_two(-(-depth // tiles.split) // 64 + 1),
        PDL=pdl,
        num_warps=tiles.num_warps,
        num_stages=tiles.num_stages,
        **overlap(pdl),
    )
