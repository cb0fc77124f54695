"""What `decode_check` looks at: each part is a function of a Bench, and returns figures by name."""

from __future__ import annotations

import json
import statistics
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from light_tts.models.flow.fast import ops as fast_ops
from light_tts.models.flow.fast.flow import FastFlow
from light_tts.models.flow.fast.ops import ALL, Ops, Segments
from light_tts.models.flow.flow_runner import FlowRunner
from light_tts.models.flow.flow_state import FlowInput
from light_tts.models.flow.token_to_mel import Flow
from light_tts.models.vocoder.fast_hift import FastHiFT
from light_tts.models.vocoder.hift import HiFT
from test.gpu.decode_cases import LIMITS, cases, relative
from test.gpu.decode_models import Voices, random_flow, random_vocoder

Figures = dict[str, Any]
PROMPT = 75


@dataclass
class Bench:
    """without: names of `Ops` that run as their references; tiny: small models and few repetitions"""

    device: torch.device
    version: int
    tiny: bool
    without: frozenset[str] = frozenset()
    half: torch.dtype = torch.float16
    figures: Figures = field(default_factory=dict)
    path: Path | None = None

    def save(self) -> None:
        """After each figure: a part that hangs or dies is killed, and what it knew must be there."""
        if self.path is not None:
            self.path.write_text(json.dumps(self.figures, indent=1) + "\n")

    def lost(self) -> bool:
        """Whether the device refuses all further work; a graph that cannot be recorded alone is no such case."""
        try:
            self.wait()
        except RuntimeError:
            return True
        return False

    @property
    def speech(self) -> int:
        """Tokens of a ten-second utterance."""
        return 50 if self.tiny else 250

    @property
    def gpu(self) -> bool:
        return self.device.type == "cuda"

    @cached_property
    def flow(self) -> Flow:
        return random_flow(self.version, self.device, tiny=self.tiny)

    @cached_property
    def vocoder(self) -> HiFT:
        return random_vocoder(self.version, self.device, tiny=self.tiny)

    @cached_property
    def voices(self) -> Voices:
        return Voices(self.flow.cfg.vocab_size)

    def fast(
        self, pool_gb: float, dtype: torch.dtype, residual: torch.dtype, *, record: bool = True
    ) -> FastFlow:
        ops = Ops.best(self.device, dtype).without(*(self.without & ALL))
        size = round(pool_gb * 1e9) if not self.tiny else 50_000_000
        return FastFlow(self.flow, dtype, pool_bytes=size, stream_dtype=residual, ops=ops, record=record)

    def fast_vocoder(self, *, record: bool = True) -> FastHiFT:
        dtype = self.half if self.gpu else torch.float32
        return FastHiFT(
            self.vocoder, dtype, triton=None if "conv" not in self.without else False, record=record
        )

    def inputs(self, count: int, lengths: Sequence[int] | None = None) -> list[FlowInput]:
        sizes = lengths or [self.speech] * count
        return [
            FlowInput(self.voices.tokens(sizes[i], i), self.voices.prompt(PROMPT if not self.tiny else 30, i))
            for i in range(count)
        ]

    def ms(self, work: Callable[[], object], repeat: int = 10) -> float:
        """Median wall time with the device's end, milliseconds."""
        work()
        times = []
        for _ in range(2 if self.tiny else repeat):
            self.wait()
            start = time.perf_counter()
            work()
            self.wait()
            times.append(1000 * (time.perf_counter() - start))
        return round(statistics.median(times), 3)

    def wait(self) -> None:
        if self.gpu:
            torch.cuda.synchronize()

    def attempt(self, name: str, work: Callable[[], Any]) -> Any:
        """One figure; what fails is told in its place, unless the device is lost."""
        try:
            with torch.inference_mode():
                value = work()
        except Exception as error:
            value = told(error)
            if self.lost():
                self.figures[name] = value
                self.save()
                raise
        self.figures[name] = value
        self.save()
        print(f"  {name}: {value}", flush=True)
        return value


def told(error: Exception) -> str:
    """A failure and where it comes from; all of it goes to the part's log."""
    traceback.print_exception(error)
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    places = " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(frames))
    return f"{type(error).__name__}: {str(error)[:300]} at {places}"


def kernels(bench: Bench) -> None:
    """Each kernel against its reference; the names of bad ones under `bad`."""
    bad: set[str] = set()
    types = (torch.float16, torch.bfloat16) if bench.gpu else (torch.float32,)
    for dtype in types:
        for case in cases(bench.device, dtype, tiny=bench.tiny):
            name = f"{case.kernel}: {case.name} {str(dtype)[6:]}"
            try:
                error = case.run()
            except Exception as failure:
                bench.figures[name] = told(failure)
                _found_bad(bench, bad, case.kernel)
                if bench.lost():
                    raise
                continue
            if not error <= LIMITS[dtype]:
                bench.figures[name] = error
                _found_bad(bench, bad, case.kernel)
    bench.figures["cases done"] = True
    if bench.gpu:
        for name, run in (("attention", _attention_error), ("gelu", _gelu_error)):
            error = bench.attempt(f"{name} error", partial(run, bench))
            if not (isinstance(error, float) and error <= 5e-3):
                _found_bad(bench, bad, name)
        _attention_times(bench)
    _found_bad(bench, bad)


def _found_bad(bench: Bench, bad: set[str], *names: str) -> None:
    bad.update(names)
    bench.figures["bad"] = sorted(bad)
    bench.save()


def _attention_error(bench: Bench) -> float:
    """Pieces that begin anywhere in memory and overlap, as streams' do."""

    def make(*size: int) -> Tensor:
        return torch.randn(*size, device=bench.device, dtype=bench.half)

    memory = make(5000, 2, 512)
    query = make(9 * 50, 3 * 512)[:, :512].unflatten(1, (8, 64))
    key, value = (memory[:, i].unflatten(1, (8, 64)) for i in (0, 1))
    starts = torch.tensor(
        [0, 100, 100, 100, 1200, 1200, 3000, 4900, 0], dtype=torch.int32, device=bench.device
    )
    lens = torch.tensor([1, 50, 100, 133, 700, 717, 1500, 100, 1], dtype=torch.int32, device=bench.device)
    segments = Segments.of(starts, lens, 50, 4096)
    actual = fast_ops.attend_flash(query, key, value, segments)
    return relative(actual, fast_ops.attend_reference(query.float(), key.float(), value.float(), segments))


def _gelu_error(bench: Bench) -> float:
    x, w, b = (
        torch.randn(*s, device=bench.device, dtype=bench.half) for s in ((700, 256), (1024, 256), (1024,))
    )
    linear = fast_ops.Linear.of(w / 16, b, bench.half)
    fused = Ops(frozenset({"gelu"})).gelu_linear(x, linear, tanh=False)
    wide = fast_ops.Linear(linear.weight.float(), b.float())
    return relative(fused, Ops().gelu_linear(x.float(), wide, tanh=False))


def _attention_times(bench: Bench) -> None:
    """Whole utterances of 650 frames, 16 rows, 8 heads of 64: microseconds."""
    rows, frames = 16, 650
    qkv = torch.randn(rows * frames, 3 * 512, device=bench.device, dtype=bench.half)
    first = torch.arange(rows, dtype=torch.int32, device=bench.device) * frames
    segments = Segments.of(first, torch.full_like(first, frames), frames, frames)
    q, k, v = (part.unflatten(1, (8, 64)) for part in qkv.chunk(3, dim=1))
    dense = [part.unflatten(0, (rows, frames)).transpose(1, 2) for part in (q, k, v)]

    def sdpa(kind: torch.nn.attention.SDPBackend) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with torch.nn.attention.sdpa_kernel(kind):
                return torch.nn.functional.scaled_dot_product_attention(*dense)

        return run

    backends = torch.nn.attention.SDPBackend
    ways = {
        "varlen": lambda: fast_ops.attend_flash(q, k, v, segments),
        "flash": sdpa(backends.FLASH_ATTENTION),
        "cudnn": sdpa(backends.CUDNN_ATTENTION),
    }
    for name, way in ways.items():
        bench.attempt(f"attention {name} us", partial(_many_us, bench, way))


def _many_us(bench: Bench, work: Callable[[], object]) -> float:
    return round(bench.ms(lambda: [work() for _ in range(50)], 5) * 20, 1)


def flow(bench: Bench) -> None:
    """Errors of each precision, and times of whole utterances."""
    inputs = bench.inputs(8)
    mixed = bench.inputs(5, [bench.speech, 33, 10, 120 if not bench.tiny else 41, 1])
    expected = bench.flow(mixed)
    full = bench.flow(inputs[:2])
    half, wide = (bench.half, torch.float32) if bench.gpu else (torch.float32, torch.float32)
    forms = {"half/half": (half, half), "half/f32": (half, wide)}
    if bench.gpu:
        forms |= {"bf16/f32": (torch.bfloat16, wide), "bf16/bf16": (torch.bfloat16, torch.bfloat16)}
    # Without graphs first: what is wrong here is wrong in the numbers, what is wrong below alone is in the recording.
    eager = bench.fast(0.1, half, half, record=False)
    bench.attempt("eager error, 10 s", lambda: worst(eager(inputs[:2]), full))
    bench.attempt("eager error, mixed", lambda: worst(eager(mixed), expected))
    bench.attempt("eager fast alone ms", lambda: bench.ms(lambda: eager(inputs[:1]), 3))
    for name, (dtype, residual) in forms.items():
        try:
            _form(bench, name, bench.fast(0.1, dtype, residual), (inputs, full), (mixed, expected))
        except Exception as error:
            bench.figures[f"{name} failed"] = told(error)
            bench.save()
            if bench.lost():
                raise
    bench.attempt("slow float32 alone ms", lambda: bench.ms(lambda: bench.flow(inputs[:1]), 3))


Expected = tuple[list[FlowInput], list[Tensor]]


def _form(bench: Bench, name: str, fast: FastFlow, same: Expected, mixed: Expected) -> None:
    """One precision. same, mixed: inputs, and the oracle's mels of the first of them or of all"""
    inputs = same[0]
    bench.attempt(f"{name} error, 10 s", lambda: worst(fast(inputs[:2]), same[1]))
    bench.attempt(f"{name} error, mixed", lambda: worst(fast(mixed[0]), mixed[1]))
    bench.attempt(f"{name} batch 8 ms each", lambda: _each(bench, fast, inputs))
    if name != "half/half":
        return
    bench.attempt("alone ms", lambda: bench.ms(lambda: fast(inputs[:1])))
    bench.attempt("batch 16 ms each", lambda: _each(bench, fast, inputs * 2))
    bench.attempt(
        "batch 8 against singles", lambda: worst(fast(inputs), [fast([item])[0] for item in inputs])
    )
    bench.attempt("profile, batch 8", lambda: profile(bench, lambda: fast(inputs)))
    bench.attempt("profile, alone", lambda: profile(bench, lambda: fast(inputs[:1])))


def _each(bench: Bench, fast: FlowRunner, inputs: list[FlowInput]) -> float:
    return round(bench.ms(lambda: fast(inputs)) / len(inputs), 3)


def worst(actual: Iterable[Tensor], expected: Iterable[Tensor]) -> float:
    return round(max(relative(a, e) for a, e in zip(actual, expected, strict=True)), 6)


def profile(bench: Bench, work: Callable[[], object]) -> list[str]:
    """Kernels by time, of one call."""
    if not bench.gpu:
        work()
        return []
    work()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as recorded:
        work()
        torch.cuda.synchronize()
    rows = sorted(recorded.key_averages(), key=lambda e: -e.self_device_time_total)
    total = sum(row.self_device_time_total for row in rows)
    lines = [f"{row.self_device_time_total / 1000:.2f} ms {row.count}x {row.key[:90]}" for row in rows[:14]]
    return [f"{total / 1000:.2f} ms in all, {sum(row.count for row in rows)} kernels", *lines]
