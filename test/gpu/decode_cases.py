"""Inputs for each Triton kernel of the flow and the vocoder, and what its reference makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from light_tts.kernels import flow_norm, flow_rotate, flow_store, flow_windows, hift_conv
from light_tts.kernels.flow_windows import Tails
from light_tts.kernels.hift_conv import Ending, Taps

LIMITS = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


@dataclass(frozen=True, slots=True)
class Case:
    """kernel: name in `Ops`; run: the relative error of the kernel against its reference in float32"""

    kernel: str
    name: str
    run: Callable[[], float]


def relative(actual: Tensor, expected: Tensor) -> float:
    """Size of the difference over the size of what is right; NaN counts as infinite."""
    error = float((actual.float() - expected.float()).norm() / expected.float().norm().clamp(min=1e-12))
    return error if error == error else float("inf")


def cases(device: torch.device, dtype: torch.dtype, *, tiny: bool, seed: int = 0) -> Iterator[Case]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int, kind: torch.dtype = dtype) -> Tensor:
        return torch.randn(*size, generator=generator).to(device, kind)

    yield from _norms(normal, dtype, tiny)
    yield from _windows(normal, device, tiny)
    yield Case("rotate", "first head", lambda: _rotate(normal, tiny))
    yield Case("store", "rows", lambda: _store(normal, tiny))
    yield from _convs(normal, device, tiny)


Normal = Callable[..., Tensor]


def _norms(normal: Normal, dtype: torch.dtype, tiny: bool) -> Iterator[Case]:
    rows = 5 if tiny else 1301
    for size in (24,) if tiny else (256, 1024):
        for gated in (False, True):
            for stream in {torch.float32, dtype}:

                def add(size: int = size, gated: bool = gated, stream: torch.dtype = stream) -> float:
                    x, delta = normal(rows, size, kind=stream), normal(rows, size)
                    gate, scale, shift = (normal(size) for _ in range(3))
                    wide = x.float().clone()
                    kept = gate if gated else None
                    expected = flow_norm.add_layer_norm_reference(
                        wide, delta.float(), kept, scale.float(), shift.float(), 1e-5
                    )
                    actual = flow_norm.add_layer_norm_triton(x, delta, kept, scale, shift, 1e-5)
                    return max(relative(actual, expected), relative(x, wide))

                yield Case("norm", f"add {size} gate {gated} {stream}", add)

        def mish(size: int = size) -> float:
            x, residual = 3 * normal(rows, size), normal(rows, size)
            scale, shift, vector = (normal(size) for _ in range(3))
            arguments = (scale, shift, 1e-5, vector, residual, torch.float32)
            return relative(
                flow_norm.norm_mish_triton(x, *arguments), flow_norm.norm_mish_reference(x, *arguments)
            )

        yield Case("norm", f"mish {size}", mish)


def _windows(normal: Normal, device: torch.device, tiny: bool) -> Iterator[Case]:
    for channels in (6, 16) if tiny else (80, 256, 512):
        for streamed in (False, True):

            def run(channels: int = channels, streamed: bool = streamed) -> float:
                rows, frames = (3, 9) if tiny else (6, 150)
                x, memory = normal(rows, frames, channels), normal(20, 2, channels)
                ints = [[3, 5, 9, 1, 7, 13], [4, 6, 10, 2, 8, 14], [frames, 1, 0, 2, frames - 1, 3]]
                read, write, lens = (torch.tensor(v[:rows], dtype=torch.int32, device=device) for v in ints)
                results = []
                for run in (flow_windows.windows_triton, flow_windows.windows_reference):
                    own = memory.clone()
                    results.append((run(x, 3, Tails(own, read, write, lens) if streamed else None), own))
                (actual, kept), (expected, wanted) = results
                return max(relative(actual, expected), relative(kept, wanted))

            yield Case("windows", f"{channels} channels, streamed {streamed}", run)


def _rotate(normal: Normal, tiny: bool) -> float:
    rows, inner = (7, 32) if tiny else (1301, 1024)
    qkv, angle = normal(rows, 3 * inner), normal(rows, 8 if tiny else 32, kind=torch.float32)
    expected = qkv.float()
    flow_rotate.rotate_first_head_reference(expected, angle.cos(), angle.sin())
    flow_rotate.rotate_first_head_triton(qkv, angle.cos(), angle.sin())
    return relative(qkv, expected)


def _store(normal: Normal, tiny: bool) -> float:
    rows, size = (5, 24) if tiny else (700, 1024)
    memory, new = normal(2000, size), normal(rows, 2 * size)[:, size:]
    expected = memory.clone()
    places = torch.randperm(2000)[:rows].to(memory.device)
    flow_store.store_rows_triton(memory, places, new)
    flow_store.store_rows_reference(expected, places, new)
    return relative(memory, expected)


def _convs(normal: Normal, device: torch.device, tiny: bool) -> Iterator[Case]:
    # in, out, taps, dilation, groups, zeros before; what is done with the result
    shapes = [
        ((18, 20, 1, 1, 1, 0), "plain"),
        ((16, 16, 3, 5, 1, 5), "all"),
        ((24, 24, 7, 1, 1, 6), "snake"),
        ((64, 64, 31, 1, 4, 0), "plain"),
    ]
    if not tiny:
        shapes = [
            ((80, 512, 7, 1, 1, 3), "plain"),
            ((256, 256, 7, 3, 1, 9), "snake"),
            ((128, 128, 11, 5, 1, 25), "all"),
            ((64, 64, 11, 3, 1, 15), "all"),
            ((64, 18, 7, 1, 1, 3), "plain"),
            ((1024, 1024, 31, 1, 16, 0), "plain"),
        ]
    for shape, form in shapes:

        def run(shape: tuple[int, ...] = shape, form: str = form) -> float:
            return _conv(normal, device, shape, form, 40 if tiny else 700)

        yield Case("conv", f"{shape} {form}", run)
    alpha = normal(24, kind=torch.float32).abs() + 0.5
    x = normal(3, 11, 24)
    snakes = hift_conv.snake_triton, hift_conv.snake_reference
    yield Case("conv", "snake", lambda: relative(snakes[0](x, alpha), snakes[1](x.float(), alpha)))


def _conv(normal: Normal, device: torch.device, shape: tuple[int, ...], form: str, length: int) -> float:
    cin, cout, taps, dilation, groups, left = shape
    x = normal(2, length, cin)
    frames = length if left or taps == 1 else length - taps + 1
    weight = normal(cout, cin // groups, taps, kind=torch.float32) / (taps * cin // groups) ** 0.5
    conv = Taps.of(weight, normal(cout, kind=torch.float32), x.dtype, dilation, groups)
    ending = Ending()
    if form != "plain":
        ending = Ending(
            residual=normal(2, frames, cout),
            extra=normal(2, frames, cout),
            factor=0.3,
            slope=0.1,
            lens=torch.tensor([frames, frames // 2], dtype=torch.int32, device=device),
            alpha=normal(cout, kind=torch.float32).abs() + 0.5,
            only_snake=form == "snake",
        )
    actual = hift_conv.conv_triton(x, conv, frames, -left, ending)
    expected = hift_conv.conv_reference(x, conv, frames, -left, ending)
    if form == "snake":
        return relative(actual[1], expected[1])
    return max(relative(a, e) for a, e in zip(actual, expected, strict=True))
