"""What the check of the language model's GPU path measures, one function a part. Each returns numbers and texts."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from light_tts.bench.random_model import random_speech_lm
from light_tts.kernels.seat_table import Column
from light_tts.kernels.suite import KernelSuite
from light_tts.llm.ahead import AheadSequence
from light_tts.llm.batch import embed
from light_tts.llm.device_engine import DeviceEngine
from light_tts.llm.device_step import DeviceStep, Plan
from light_tts.llm.engine import Engine, FinishedEvent, TokenEvent
from light_tts.llm.packed_weights import PackedWeights
from light_tts.llm.request import LengthLimits, SamplingParams, SequenceRequest
from light_tts.llm.sequence import UniSequence, speech_symbols
from light_tts.llm.step_graphs import StepRunner, padded_sizes
from light_tts.llm.step_plan import default_plan
from light_tts.models.config import Qwen2Config, SamplingConfig, SpeechLMConfig
from light_tts.models.kv_cache import ForwardBatch
from light_tts.models.speech_lm import SpeechLM
from light_tts.quirks import ReferenceQuirks
from test.gpu import cases

Result = dict[str, object]


@dataclass(frozen=True, slots=True)
class Setting:
    """tiny: few and small, to see that the check itself works
    fast: kernels that run in Triton
    """

    device: torch.device
    tiny: bool
    fast: frozenset[str]

    @property
    def suite(self) -> KernelSuite:
        return KernelSuite(self.fast)

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def pick(self, full: int, tiny: int) -> int:
        return tiny if self.tiny else full

    def now_s(self) -> float:
        if self.on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter()


def random_model(setting: Setting, dtype: torch.dtype, seed: int = 0, layers: int = 24) -> SpeechLM:
    """CosyVoice2-0.5B in size; layers add about as much to the residual as the embedding brought."""
    qwen = Qwen2Config(151936, 896, 4864, layers, 14, 2)
    ids = 6561
    if setting.tiny:
        qwen, ids = Qwen2Config(300, 96, 160, 2, 6, 2), 203
    torch.manual_seed(seed)
    model = random_speech_lm(SpeechLMConfig(2, qwen, ids, SamplingConfig()), setting.device)
    return model.to(dtype).eval().requires_grad_(False).prepare()


def kernels(setting: Setting, dtype: torch.dtype) -> Result:
    """Every kernel against its reference.

    table: by kernel (number of cases, worst error over limit, first failure); lost: the GPU's context broke on the way,
    so what came after is not in it
    """
    shape = cases.TINY if setting.tiny else cases.FULL
    found: dict[str, tuple[int, float, str]] = {}
    lost = False
    for case in cases.cases(setting.device, dtype, shape, 17):
        number, worst, text = found.get(case.kernel, (0, 0.0, ""))
        if case.kernel not in setting.fast:
            continue
        try:
            error, limit = case.run()
            ratio = error / max(limit, 1e-30) if error else 0.0
            if math.isnan(ratio):  # compares as equal to anything
                ratio = float("inf")
            if not error <= limit and not text:
                text = f"{case.name}: error {error:.2e}, limit {limit:.2e}"
        except Exception as error:  # a check reports what goes wrong, and goes on
            traceback.print_exc()
            ratio, text = (
                float("inf"),
                text or f"{case.name}: {type(error).__name__}: {first_and_last(error)}",
            )
            lost = "CUDA error" in str(error) or "[CUDA]" in str(error)
        found[case.kernel] = number + 1, max(worst, ratio), text
        if lost:
            break
    return {"table": found, "lost": lost}


def first_and_last(error: Exception) -> str:
    """Of a text of many lines: Triton says where first, and what last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ... ".join(line[:150] for line in dict.fromkeys((*lines[:1], *lines[-1:])))


# --- the whole step against the plain path


@dataclass(frozen=True)
class NotingSuite(KernelSuite):
    """Keeps the logits that are sampled from."""

    noted: list[Tensor] = field(default_factory=list)

    def sample(self, logits: Tensor, seats: Tensor, row_seat: Tensor, out: Tensor) -> None:
        self.noted.append(logits.clone())
        KernelSuite.sample(self, logits, seats, row_seat, out)


def equality(setting: Setting, dtype: torch.dtype, int8: bool) -> Result:
    """Greedy runs of the device's engine, in graphs, against the plain path over the same tokens.

    A run is equal where the plain path would have said each of its tokens: then its own greedy run is the same.
    """
    model = random_model(setting, dtype)
    runs, steps = setting.pick(20, 3), setting.pick(200, 12)
    pool = setting.pick(20_000, 2000)
    engine = DeviceEngine(model, pool, runs, int8_kv=int8, max_sequence_tokens=1024, suite=setting.suite)
    if setting.on_gpu:
        engine.capture(_quiet)
    greedy = SamplingParams(top_k=1, tau_r=2.0, seed=0)
    requests = [_request(setting, 10 + index, steps, greedy, index) for index in range(runs)]
    spoken = _speak(engine, requests)
    equal, margins = 0, list[float]()
    for request, tokens in zip(requests, spoken, strict=True):
        logits = _plain_logits(model, request, tokens)
        wanted = logits.argmax(dim=-1).tolist()
        equal += wanted == tokens
        for row, (said, expected) in enumerate(zip(tokens, wanted, strict=True)):
            if said != expected:
                margins.append(float((logits[row, expected] - logits[row, said]) / logits[row].std()))
    with setting.device:
        truth = SpeechLM(model.cfg).eval().requires_grad_(False)
    truth.load_state_dict({name: weight.float() for name, weight in model.state_dict().items()})
    errors = [
        pair
        for plan in (default_plan, no_plan)
        for pair in _logits_errors(setting, model, truth, requests[:3], plan, int8)
    ]
    return {
        "equal_runs": equal,
        "runs": runs,
        "steps": steps,
        "different_steps": len(margins),
        "worst_margin": max(margins, default=0.0),
        "logits_error": max(error for error, _, _ in errors),
        "logits_error_to_float32": max(error for _, error, _ in errors),
        "plain_error_to_float32": max(error for _, _, error in errors),
    }


def no_plan(num_rows: int) -> None:
    return None


def _quiet(text: str) -> None:
    pass


def _request(
    setting: Setting, num_text: int, steps: int, sampling: SamplingParams, seed: int
) -> SequenceRequest:
    """Speaks `steps` tokens, whatever it draws."""
    generator = np.random.default_rng(seed)
    text = tuple(int(token) for token in generator.integers(0, 300, num_text))
    speech = tuple(int(token) for token in generator.integers(0, 200, setting.pick(75, 10)))
    ratio = (steps + 0.5) / num_text
    return SequenceRequest(text, text[:5], speech, sampling, LengthLimits(ratio, ratio))


def _speak(engine: Engine, requests: list[SequenceRequest]) -> list[list[int]]:
    ids = [engine.add(request) for request in requests]
    spoken: dict[int, list[int]] = {sequence_id: [] for sequence_id in ids}
    while not engine.is_idle():
        for event in engine.step():
            if isinstance(event, TokenEvent):
                spoken[event.sequence_id].append(event.token)
            elif not isinstance(event, FinishedEvent):
                raise RuntimeError(str(event))
    return [spoken[sequence_id] for sequence_id in ids]


@torch.inference_mode()
def _plain_logits(model: SpeechLM, request: SequenceRequest, tokens: list[int]) -> Tensor:
    """(len(tokens), num_ids): before each token, by `SpeechLM.forward` over the whole sequence; ends banned."""
    feed = UniSequence(model.cfg, request, ReferenceQuirks()).next_feed()
    assert feed is not None
    symbols = [*feed, *speech_symbols(tokens[:-1])]
    hidden = model(embed(model, symbols), ForwardBatch.whole([len(symbols)], model.device))
    logits = model.logits(hidden[len(feed) - 1 :])
    logits[:, model.cfg.stop_ids.start : model.cfg.stop_ids.stop] = -1e4
    return logits


@torch.inference_mode()
def _logits_errors(
    setting: Setting,
    model: SpeechLM,
    truth: SpeechLM,
    requests: list[SequenceRequest],
    plan: Plan,
    int8: bool,
) -> list[tuple[float, float, float]]:
    """Of the last step's logits: to the plain path over the same tokens, to the same in float32, and between those."""
    suite = NotingSuite(setting.fast)
    engine = DeviceEngine(
        model, 4000, len(requests), int8_kv=int8, max_sequence_tokens=1024, suite=suite, plan=plan
    )
    errors = []
    for row, (request, tokens) in enumerate(zip(requests, _speak(engine, requests), strict=True)):
        ids = slice(0, model.cfg.speech_token_size)
        device = suite.noted[-1][row, ids]
        plain, exact = (_plain_logits(one, request, tokens)[-1, ids] for one in (model, truth))
        errors.append(
            (cases.relative(device, plain), cases.relative(device, exact), cases.relative(plain, exact))
        )
    return errors


# --- times


def build_step(
    setting: Setting, model: SpeechLM, weights: PackedWeights, rows: int, *, int8: bool, pdl: int, plan: Plan
) -> DeviceStep:
    """A step whose `rows` sequences have 300 to 600 tokens, and never end."""
    context = setting.pick(600, 40)
    max_len = context + setting.pick(424, 60)
    cache = model.new_cache(rows * max_len + 1, int8=int8)
    for held in (*cache.keys, *cache.values):
        if isinstance(held, Tensor):
            held.normal_()
        else:
            held.data.random_(-127, 128)
            held.scales.uniform_(0.005, 0.02)
    step = DeviceStep(
        weights,
        cache,
        KernelSuite(setting.fast, pdl),
        num_seats=rows,
        max_rows=padded_sizes(rows)[-1],
        max_len=max_len,
        scratch_slot=rows * max_len,
        plan=plan,
    )
    request = _request(setting, 10, 10, SamplingParams(seed=1), 0)
    sequence = AheadSequence(UniSequence(model.cfg, request, ReferenceQuirks()), SamplingParams(seed=1))
    table = np.stack(
        [sequence.seat(row * max_len, context // 2 + (37 * row) % (context // 2)) for row in range(rows)]
    )
    table[:, Column.MAX_LEN] = 2**31 - 1
    table[:, Column.MIN_LEN] = 2**30
    table[:, Column.SEED_LOW] = np.arange(rows)
    step.seats[:-1] = torch.from_numpy(table).to(setting.device)
    return step


def timer(
    setting: Setting, model: SpeechLM, weights: PackedWeights, rows: int, *, int8: bool, pdl: int, plan: Plan
) -> Callable[[], float]:
    """Measures milliseconds of a step in a graph, everything in it: the median of several replays."""

    def measure() -> float:
        step = build_step(setting, model, weights, rows, int8=int8, pdl=pdl, plan=plan)
        seats = step.seats.clone()
        runner = StepRunner(step, rows)
        if setting.on_gpu:
            runner.capture_only(rows)
        step.seats.copy_(seats)
        step.row_seat[:rows] = torch.arange(rows, device=setting.device, dtype=torch.int32)
        times, inner = [], setting.pick(10, 1)
        for _ in range(setting.pick(12, 2)):
            begin_s = setting.now_s()
            for _ in range(inner):
                runner.decode(rows)
            times.append((setting.now_s() - begin_s) / inner * 1e3)
        return float(np.median(times[1:]))

    return measure


def speed(setting: Setting, dtype: torch.dtype, int8: bool, plan: Plan) -> Result:
    """Tokens per second through the engine's own interface, and the time to the first token of a prompt of 200."""
    model = random_model(setting, dtype)
    batch, steps = setting.pick(64, 3), setting.pick(250, 8)
    pool = setting.pick(100_000, 2000)
    engine = DeviceEngine(
        model, pool, batch, int8_kv=int8, max_sequence_tokens=1024, suite=setting.suite, plan=plan
    )
    begin_s = setting.now_s()
    if setting.on_gpu:
        engine.capture(_quiet)
    result: Result = {"capture_s": setting.now_s() - begin_s}
    for number in (1, batch):
        requests = [_request(setting, 20, steps, SamplingParams(seed=i), i) for i in range(number)]
        _speak(engine, requests[:2])
        begin_s = setting.now_s()
        spoken = _speak(engine, requests)
        result[f"tokens_per_s_{number}"] = sum(map(len, spoken)) / (setting.now_s() - begin_s)
    prompt = _request(setting, setting.pick(118, 10), 20, SamplingParams(seed=1), 1)
    firsts = [_first_token_ms(setting, engine, prompt) for _ in range(setting.pick(12, 2))]
    result["first_token_ms"] = float(np.median(firsts))
    result["host_ms_per_step"] = _host_ms(engine, setting, batch, steps)
    return result


def _first_token_ms(setting: Setting, engine: Engine, prompt: SequenceRequest) -> float:
    begin_s = setting.now_s()
    engine.add(prompt)
    while not any(isinstance(event, TokenEvent) for event in engine.step()):
        pass
    took_ms = (time.perf_counter() - begin_s) * 1e3
    while not engine.is_idle():
        engine.step()
    return took_ms


def _host_ms(engine: DeviceEngine, setting: Setting, batch: int, steps: int) -> float:
    """Of the processor alone: the device does nothing but say token 7."""
    runner, step = engine._runner, engine._step
    decode = runner.decode
    step.tokens.fill_(7)
    runner.decode = no_plan  # type: ignore[method-assign]
    try:
        requests = [_request(setting, 20, steps, SamplingParams(seed=i), i) for i in range(batch)]
        for request in requests:
            engine.add(request)
        for _ in range(4):
            engine.step()
        begin_s, number = time.process_time(), setting.pick(100, 2)
        for _ in range(number):
            engine.step()
        took_ms = (time.process_time() - begin_s) / number * 1e3
    finally:
        runner.decode = decode  # type: ignore[method-assign]
    while not engine.is_idle():
        engine.step()
    return took_ms
