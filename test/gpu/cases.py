"""Each kernel on fresh random inputs, beside its oracle. Outputs are poisoned, so that what nobody wrote is seen.

A case returns how far the kernel is from the reference and how far it may be; pytest and the check script run the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from light_tts.kernels import (
    embed,
    flash_decode,
    flash_prefill,
    rms_norm,
    rotary,
    sample,
    silu_mul,
    skinny_linear,
)
from light_tts.kernels.flash_prefill import PackedPrompts
from light_tts.kernels.kv_rows import KVRows
from light_tts.kernels.seat_table import MAX_WINDOW, Column, new_seats
from light_tts.kernels.skinny_linear import Tiles
from light_tts.kernels.workspace import Workspace

# Relative to the reference's norm: one rounding of the result, and of what was rounded on the way.
TOLERANCE = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a model, and of what it is run on."""

    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    num_ids: int
    rows: tuple[int, ...]
    context: int

    @property
    def qkv(self) -> int:
        return (self.heads + 2 * self.kv_heads) * self.head_dim


FULL = Shape(896, 4864, 14, 2, 64, 6564, (1, 2, 16, 33, 64, 100), 900)
TINY = Shape(96, 160, 6, 2, 16, 203, (1, 3, 17), 150)


@dataclass(frozen=True, slots=True)
class Case:
    """run: to (error, limit); kernel: its name in `suite.KERNELS`"""

    kernel: str
    name: str
    run: Callable[[], tuple[float, float]]


@dataclass(slots=True)
class Inputs:
    """Random numbers of one type on one device."""

    device: torch.device
    dtype: torch.dtype
    generator: torch.Generator

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(shape, generator=self.generator) * scale).to(self.device, self.dtype)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        numbers = torch.randint(low, high, shape, generator=self.generator)
        return numbers.to(self.device, torch.int32)

    def poisoned(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.full(shape, float("nan"), dtype=dtype or self.dtype, device=self.device)

    def kv(self, num_slots: int, shape: Shape, int8: bool) -> KVRows:
        rows = self.normal(num_slots, shape.kv_heads, shape.head_dim)
        if not int8:
            return KVRows(rows)
        held = KVRows(
            torch.zeros(rows.shape, dtype=torch.int8, device=self.device),
            torch.zeros((*rows.shape[:2], 1), device=self.device),
        )
        held.write(torch.arange(num_slots, device=self.device), rows)
        return held


def relative(actual: Tensor, expected: Tensor) -> float:
    """Distance over length; NaN and infinities are as far as can be."""
    if not actual.isfinite().all():
        return float("inf")
    distance = (actual.double() - expected.double()).norm()
    return float(distance / expected.double().norm().clamp_min(1e-30))


def worst(*pairs: tuple[Tensor, Tensor]) -> float:
    return max(relative(actual, expected) for actual, expected in pairs)


def copy(rows: KVRows) -> KVRows:
    return KVRows(rows.data.clone(), None if rows.scales is None else rows.scales.clone())


def _add_rms_norm(inputs: Inputs, shape: Shape, rows: int, add: bool) -> tuple[float, float]:
    x, weight = inputs.normal(rows, shape.hidden, scale=3), inputs.normal(shape.hidden)
    delta = inputs.normal(rows, shape.hidden) if add else None
    x2 = x.clone()
    expected = rms_norm.add_rms_norm_reference(x, delta, weight, 1e-6)
    actual = rms_norm.add_rms_norm_triton(x2, delta, weight, 1e-6)
    return worst((actual, expected), (x2, x)), TOLERANCE[inputs.dtype]


def _silu_mul(inputs: Inputs, shape: Shape, rows: int) -> tuple[float, float]:
    x = inputs.normal(rows, 2 * shape.inner, scale=2)
    return relative(silu_mul.silu_mul_triton(x), silu_mul.silu_mul_reference(x)), TOLERANCE[inputs.dtype]


def _embed(inputs: Inputs, shape: Shape, rows: int) -> tuple[float, float]:
    speech, text = inputs.normal(shape.num_ids, shape.hidden), inputs.normal(50, shape.hidden)
    ids = inputs.integers(-50, shape.num_ids, rows)
    return relative(embed.embed_triton(ids, speech, text), embed.embed_reference(ids, speech, text)), 0.0


def _begin_step(inputs: Inputs, shape: Shape, rows: int) -> tuple[float, float]:
    seats = random_seats(inputs, rows + 3, shape.num_ids)
    seats[:, Column.DONE] = inputs.integers(0, 2, len(seats))
    seats[-1, Column.DONE] = 1
    row_seat = torch.randperm(rows + 3, generator=inputs.generator)[:rows].to(inputs.device, torch.int32)
    row_seat[-1] = rows + 3
    table = inputs.normal(shape.num_ids, shape.hidden)
    results = []
    for run in (embed.begin_step_reference, embed.begin_step_triton):
        held = seats.clone()
        x, squares = inputs.poisoned(rows, shape.hidden), inputs.poisoned(4, rows, dtype=torch.float32)
        start, position = inputs.integers(-9, -8, rows), inputs.integers(-9, -8, rows)
        run(held, row_seat, table, 777, x, squares, start, position)
        results.append((x, squares[0], start, position, held))
    expected, actual = results
    same = all(torch.equal(a, b) for a, b in zip(actual[2:], expected[2:], strict=True))
    return (worst(*zip(actual[:2], expected[:2], strict=True)) if same else float("inf")), 1e-5


def _skinny(
    inputs: Inputs, rows: int, cols: int, depth: int, tiles: Tiles, kind: str, norm: bool
) -> tuple[float, float]:
    gated, residual = kind == "gated", kind == "residual"
    x = inputs.normal(rows, depth)
    weight = inputs.normal((2 if gated else 1) * cols, depth, scale=depth**-0.5)
    bias = inputs.normal(cols) if kind == "bias" else None
    squares = None
    if norm:
        squares = torch.zeros(3, rows, device=inputs.device)
        squares[1] = x.float().square().sum(dim=-1)
    out_type = torch.float32 if kind == "bias" else inputs.dtype
    first = (
        inputs.normal(rows, cols).to(out_type) if residual else inputs.poisoned(rows, cols, dtype=out_type)
    )
    second = first.clone()
    parts = -(-cols // tiles.block_n)
    sums = [torch.zeros(parts, rows, device=inputs.device) if residual else None for _ in range(2)]
    skinny_linear.skinny_linear_reference(
        x, weight, first, bias=bias, squares=squares, eps=1e-6, gated=gated, out_squares=sums[0]
    )
    workspace = Workspace.on(inputs.device, tiles.split * (rows + tiles.block_m) * cols, 4096)
    for _ in range(2 if not residual else 1):  # twice: what the first leaves behind must not matter
        skinny_linear.skinny_linear_triton(
            x,
            weight,
            second,
            tiles=tiles,
            workspace=workspace,
            bias=bias,
            squares=squares,
            eps=1e-6,
            gated=gated,
            out_squares=sums[1],
        )
    pairs = [(second, first)]
    if sums[0] is not None and sums[1] is not None:
        pairs.append((sums[1].sum(dim=0), sums[0].sum(dim=0)))
    clean = bool((workspace.arrivals == 0).all())
    return worst(*pairs) if clean else float("inf"), TOLERANCE[inputs.dtype]


def _rotary_store(inputs: Inputs, shape: Shape, rows: int, int8: bool) -> tuple[float, float]:
    num_slots = 2 * rows + 5
    keys, values = inputs.kv(num_slots, shape, int8), inputs.kv(num_slots, shape, int8)
    qkv = inputs.normal(rows, shape.qkv)
    cos, sin = rotary.rotary_tables(shape.context, shape.head_dim, 1e6, inputs.device)
    positions = inputs.integers(0, shape.context, rows)
    slots = torch.randperm(num_slots, generator=inputs.generator)[:rows].to(inputs.device, torch.int32)
    keys2, values2 = copy(keys), copy(values)
    expected = rotary.rotary_store_reference(qkv, shape.heads, keys, values, positions, slots, cos, sin)
    actual = rotary.rotary_store_triton(qkv, shape.heads, keys2, values2, positions, slots, cos, sin)
    return worst((actual, expected), *_kv_pairs(keys2, keys), *_kv_pairs(values2, values)), _kv_limit(
        inputs, int8
    )


def _kv_limit(inputs: Inputs, int8: bool) -> float:
    """In 8 bits a last bit of a rounded number may bring the next of 127 steps."""
    return max(TOLERANCE[inputs.dtype], 4e-3 if int8 else 0.0)


def _kv_pairs(actual: KVRows, expected: KVRows) -> Iterator[tuple[Tensor, Tensor]]:
    every = torch.arange(len(expected.data), device=expected.data.device)
    yield actual.read(every), expected.read(every)


def _flash_decode(inputs: Inputs, shape: Shape, rows: int, int8: bool, max_len: int) -> tuple[float, float]:
    starts = torch.arange(rows) * max_len
    positions = torch.randint(0, max_len, (rows,), generator=inputs.generator)
    positions[0] = max_len - 1
    if rows > 1:
        positions[1] = 0
    keys, values = inputs.kv(rows * max_len, shape, int8), inputs.kv(rows * max_len, shape, int8)
    keys2, values2 = copy(keys), copy(values)
    qkv = inputs.normal(rows, shape.qkv)
    cos, sin = rotary.rotary_tables(max_len, shape.head_dim, 1e6, inputs.device)
    start, position = (t.to(inputs.device, torch.int32) for t in (starts, positions))
    expected = flash_decode.flash_decode_reference(
        qkv, shape.heads, keys, values, start, position, cos, sin, max_len
    )
    workspace = Workspace.on(inputs.device, rows * 32 * 16 * 2 * (shape.head_dim + 2) * shape.kv_heads, 4096)
    for _ in range(2):
        actual = flash_decode.flash_decode_triton(
            qkv, shape.heads, keys2, values2, start, position, cos, sin, max_len, workspace
        )
    pairs = [(actual, expected), *_kv_pairs(keys2, keys), *_kv_pairs(values2, values)]
    clean = bool((workspace.arrivals == 0).all())
    return worst(*pairs) if clean else float("inf"), _kv_limit(inputs, int8)


def _flash_prefill(inputs: Inputs, shape: Shape, lens: tuple[int, ...], int8: bool) -> tuple[float, float]:
    spans, start = [], 3
    for index, new in enumerate(lens):
        past = (index * 37) % shape.context if index % 2 else 0
        spans.append((start, past, new))
        start += past + new + 2
    keys, values = inputs.kv(start, shape, int8), inputs.kv(start, shape, int8)
    prompts = PackedPrompts.pack(spans, inputs.device)
    query = inputs.normal(sum(lens), shape.heads, shape.head_dim)
    expected = flash_prefill.flash_prefill_reference(query, keys, values, prompts)
    actual = flash_prefill.flash_prefill_triton(query, keys, values, prompts)
    return relative(actual, expected), _kv_limit(inputs, int8)


def random_seats(inputs: Inputs, num_seats: int, num_ids: int) -> Tensor:
    """Sequences in the middle of their speech, each with its own rules."""
    seats = new_seats(num_seats, inputs.device)
    for column, (low, high) in {
        Column.LAST_TOKEN: (0, num_ids),
        Column.POSITION: (0, 400),
        Column.KV_START: (0, 10_000),
        Column.DRAWN: (0, 200),
        Column.MIN_LEN: (0, 150),
        Column.MAX_LEN: (100, 300),
        Column.SEED_LOW: (-(2**31), 2**31),
        Column.SEED_HIGH: (-(2**31), 2**31),
        Column.TOP_K: (1, 60),
        Column.WIN_SIZE: (1, MAX_WINDOW + 1),
        Column.REPEATS: (1, 3),
    }.items():
        seats[:-1, column] = inputs.integers(low, high, num_seats)
    seats[:-1, Column.DONE] = 0
    seats[:-1, Column.BAN_START] = seats[:-1, Column.STOP_START] = num_ids - 3
    seats[:-1, Column.BAN_STOP] = num_ids
    floats = seats[:, Column.TEMPERATURE : Column.TOP_P + 1].view(torch.float32)
    floats[:-1, 0] = (torch.rand(num_seats, generator=inputs.generator) + 0.5).to(inputs.device)
    floats[:-1, 1] = (torch.rand(num_seats, generator=inputs.generator) * 0.9 + 0.05).to(inputs.device)
    seats[:-1, Column.WINDOW :] = inputs.integers(0, num_ids, num_seats, MAX_WINDOW)
    return seats


def _sample(inputs: Inputs, shape: Shape, rows: int, steps: int) -> tuple[float, float]:
    """Error: how many rows differ; each kernel starts from the other's state, so that one does not bring the next."""
    seats = random_seats(inputs, rows, shape.num_ids)
    row_seat = torch.randperm(rows, generator=inputs.generator).to(inputs.device, torch.int32)
    row_seat = torch.cat([row_seat, torch.full((2,), rows, dtype=torch.int32, device=inputs.device)])
    differ = 0
    for _ in range(steps):
        logits = torch.randn(len(row_seat), shape.num_ids, generator=inputs.generator) * 3
        logits[:, :4] += 8.0  # some are drawn again and again
        logits[0, 5] = float("nan")
        logits = logits.to(inputs.device)
        other, out = seats.clone(), inputs.integers(-9, -8, len(row_seat))
        expected = out.clone()
        sample.sample_triton(logits.clone(), other, row_seat, out)
        sample.sample_reference(logits, seats, row_seat, expected)
        same = (out == expected) & (other[row_seat.long()] == seats[row_seat.long()]).all(dim=-1)
        # A row that is not finite has no token, and what its window gets does not matter.
        same |= (out == sample.NOT_FINITE) & (expected == sample.NOT_FINITE)
        differ += int((~same).sum())
    return float(differ), 0.02 * steps * rows  # ties within float32's last bits fall either way


def tiles_for(rows: int, split: int) -> Tiles:
    block_m = next(m for m in (16, 32, 64, 128) if rows <= m or m == 128)
    return Tiles(block_m, 32, 64, split, 4, 3)


def cases(device: torch.device, dtype: torch.dtype, shape: Shape, seed: int) -> Iterator[Case]:
    inputs = Inputs(device, dtype, torch.Generator().manual_seed(seed))
    few, many = shape.rows[0], shape.rows[-1]
    for rows in (few, many):
        for add in (False, True):
            yield Case(
                "add_rms_norm", f"{rows} rows, add {add}", partial(_add_rms_norm, inputs, shape, rows, add)
            )
        yield Case("silu_mul", f"{rows} rows", partial(_silu_mul, inputs, shape, rows))
        yield Case("embed", f"{rows} rows", partial(_embed, inputs, shape, rows))
        yield Case("begin_step", f"{rows} rows", partial(_begin_step, inputs, shape, rows))
    for rows in shape.rows:
        for kind, cols, depth, norm, split in (
            ("plain", shape.qkv, shape.hidden, True, 1),
            ("bias", shape.num_ids, shape.hidden, True, 1),
            ("gated", shape.inner, shape.hidden, True, 1),
            ("residual", shape.hidden, shape.hidden, False, 2),
            ("residual", shape.hidden, shape.inner, False, 4),
        ):
            run = partial(_skinny, inputs, rows, cols, depth, tiles_for(rows, split), kind, norm)
            yield Case("skinny_linear", f"{kind} {rows} x {depth} x {cols}", run)
    for int8 in (False, True):
        kind = "int8" if int8 else "same type"
        yield Case("rotary_store", f"{many} rows, {kind}", partial(_rotary_store, inputs, shape, many, int8))
        for rows in shape.rows:
            max_len = shape.context if rows < 64 else shape.context // 2
            run = partial(_flash_decode, inputs, shape, rows, int8, max_len)
            yield Case("flash_decode", f"{rows} rows of {max_len}, {kind}", run)
        for lens in ((1, 5, 64, 70), (130,)):
            yield Case("flash_prefill", f"{lens}, {kind}", partial(_flash_prefill, inputs, shape, lens, int8))
    yield Case("sample", f"{many} rows", partial(_sample, inputs, shape, many, 3))
