"""The rest of what `decode_check` looks at: streams, the vocoder, and both together."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from light_tts.decode.segment import SegmentStream, SpokenTokens
from light_tts.decode.speech_decoder import SpeechDecoder
from light_tts.models.flow.flow_runner import FlowRunner
from light_tts.models.flow.flow_state import FlowChunk, FlowInput, FlowState
from light_tts.models.vocoder.fast_hift import FastHiFT
from light_tts.models.vocoder.source_noise import SourceNoise
from light_tts.models.vocoder.streaming import StreamInput, VocoderState, stream_batch
from test.gpu.decode_parts import Bench, Figures, flow, kernels, profile, worst


def streams(bench: Bench) -> None:
    """The flow as streams: against whole utterances under the same masks, and the time of chunks."""
    half = bench.half if bench.gpu else torch.float32
    residual = torch.float32 if bench.version == 3 else half
    cases = bench.inputs(3, [bench.speech, 57, 130 if not bench.tiny else 40])
    whole = bench.flow(cases, streaming=True)
    bench.attempt(  # without graphs, in a pool of its own that is gone after it
        "eager stream error",
        lambda: worst(_streamed(bench.fast(8.0, half, residual, record=False), cases), whole),
    )
    fast = bench.fast(min(70.0, _free_gb(bench) * 0.6), half, residual)
    bench.figures["pool frames"] = fast.pool.num_frames
    bench.figures["bytes per frame"] = fast.state_bytes_per_frame
    bench.attempt("stream error against float32 whole", lambda: worst(_streamed(fast, cases), whole))
    bench.attempt("recomputed error", lambda: worst(fast(cases, streaming=True), whole))
    for count in (1, 8) if bench.tiny else (1, 8, 32):
        bench.attempt(f"{count} streams, chunk ms", partial(_chunk_times, bench, fast, count))
    if bench.gpu:
        bench.attempt("memory GB", lambda: round(torch.cuda.max_memory_reserved() / 1e9, 1))


def _free_gb(bench: Bench) -> float:
    """What earlier models left is given back first."""
    if not bench.gpu:
        return 1.0
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return float(torch.cuda.mem_get_info()[0] / 1e9)


def _streamed(flow: FlowRunner, cases: Sequence[FlowInput]) -> list[Tensor]:
    """Hops of one chunk, all streams together while they last."""
    states: list[FlowState | None] = [flow.prefill_prompt(case.prompt) for case in cases]
    fed, mels = [0] * len(cases), [[] for _ in cases]  # type: ignore[var-annotated]
    while any(state is not None for state in states):
        live = [index for index, state in enumerate(states) if state is not None]
        chunks = [_next_chunk(flow, cases[index], fed, index) for index in live]
        new, after = flow.stream(chunks, [states[index] for index in live])  # type: ignore[misc]
        for index, mel, state in zip(live, new, after, strict=True):
            mels[index].append(mel)
            states[index] = state
    return [torch.cat(parts, dim=1) for parts in mels]


def _next_chunk(flow: FlowRunner, case: FlowInput, fed: list[int], index: int) -> FlowChunk:
    prompt, ahead, size = len(case.prompt.tokens), flow.cfg.pre_lookahead_len, flow.chunk_size
    start = fed[index]
    done = prompt + max(0, start - ahead)
    end = done + size - done % size - prompt + ahead
    if end >= len(case.tokens):
        fed[index] = len(case.tokens)
        return FlowChunk(case.tokens[start:], finalize=True)
    fed[index] = end
    return FlowChunk(case.tokens[start:end])


def _chunk_times(bench: Bench, flow: FlowRunner, count: int) -> Figures:
    """Chunks of one second in streams that advance together: prompt's voice, first, second 2 to 10."""
    cases = bench.inputs(count)
    result: Figures = {}
    for attempt in range(2):  # the first records graphs
        start = time.perf_counter()
        states = [flow.prefill_prompt(case.prompt) for case in cases]
        bench.wait()
        result["voice"] = round(1000 * (time.perf_counter() - start) / count, 2)
        fed, times = [0] * count, []
        for _ in range(2 if bench.tiny else 9):
            chunks = [_next_chunk(flow, case, fed, index) for index, case in enumerate(cases)]
            bench.wait()
            start = time.perf_counter()
            _, after = flow.stream(chunks, states)
            bench.wait()
            times.append(round(1000 * (time.perf_counter() - start), 2))
            states = [state for state in after if state is not None]
        result |= {"first": times[0], "second 2": times[1], "last": times[-1], "all": times}
        if attempt and count == 1:
            result["reserved"] = states[0].held.lease is not None if states and states[0].held else None
    return result


def vocoder(bench: Bench) -> None:
    """HiFT: errors against float32 and times."""
    frames, fast = 2 * bench.speech, bench.fast_vocoder()
    mel = torch.randn(8, 80, frames, device=bench.device)
    lens = torch.tensor([frames, frames // 2, 37, frames - 1, 90, 64, 50, 33][:8])
    lens, every = lens.clamp(max=frames), torch.full((8,), frames)
    noise = [SourceNoise.seeded(index) for index in range(8)]
    whole = bench.vocoder.synthesize(mel, lens, noise)
    bench.figures["level"] = round(float(whole.std()), 4)
    eager = bench.fast_vocoder(record=False)
    bench.attempt("eager error, mixed lengths", lambda: worst(eager.synthesize(mel, lens, noise), whole))
    bench.attempt("error, mixed lengths", lambda: worst(fast.synthesize(mel, lens, noise), whole))
    silent = [SourceNoise.zeros()] * 8
    expected = bench.vocoder.synthesize(mel, lens, silent)
    bench.attempt("error without noise", lambda: worst(fast.synthesize(mel, lens, silent), expected))
    bench.attempt("stream error", lambda: worst([_vocoded(fast, mel[:1], noise[0])], whole[:1]))
    bench.attempt("alone ms", lambda: bench.ms(lambda: fast.synthesize(mel[:1], every[:1], noise[:1])))
    bench.attempt(
        "batch 8 ms each", lambda: round(bench.ms(lambda: fast.synthesize(mel, every, noise)) / 8, 3)
    )
    bench.attempt(
        "slow float32 alone ms",
        lambda: bench.ms(lambda: bench.vocoder.synthesize(mel[:1], every[:1], noise[:1]), 3),
    )
    bench.attempt(
        "eager fast alone ms", lambda: bench.ms(lambda: eager.synthesize(mel[:1], every[:1], noise[:1]), 3)
    )
    for count in (1, 8) if bench.tiny else (1, 8, 32):
        bench.attempt(f"{count} streams, 1 s chunk ms", partial(_vocoder_chunk, bench, fast, count))
    bench.attempt("profile, batch 8", lambda: profile(bench, lambda: fast.synthesize(mel, every, noise)))


def _vocoded(model: FastHiFT, mel: Tensor, noise: SourceNoise) -> Tensor:
    state: VocoderState | None = None
    parts = []
    for start in range(0, mel.shape[2], 50):
        last = start + 50 >= mel.shape[2]
        ((wav, state),) = stream_batch(
            model, [StreamInput(mel[:, :, start : start + 50], state, noise, last)]
        )
        parts.append(wav)
    return torch.cat(parts, dim=1)


def _vocoder_chunk(bench: Bench, model: FastHiFT, count: int) -> float:
    states: list[VocoderState | None] = [None] * count
    pieces = [torch.randn(1, 80, 50, device=bench.device) for _ in range(count)]

    def step() -> None:
        given = [
            StreamInput(piece, state, SourceNoise.seeded(index), finalize=False)
            for index, (piece, state) in enumerate(zip(pieces, states, strict=True))
        ]
        states[:] = [state for _, state in stream_batch(model, given)]

    for _ in range(3):
        step()
    return bench.ms(step, 5)


def together(bench: Bench) -> None:
    """Flow and vocoder as the decode process uses them."""
    half = bench.half if bench.gpu else torch.float32
    fast = bench.fast(70.0, half, torch.float32 if bench.version == 3 else half)
    decoder = SpeechDecoder(fast, bench.fast_vocoder())
    spoken = [SpokenTokens(i.tokens, i.prompt, SourceNoise.seeded(n)) for n, i in enumerate(bench.inputs(8))]
    bench.attempt("whole alone ms", lambda: bench.ms(lambda: decoder.whole(spoken[:1]), 5))
    bench.attempt("whole batch 8 ms each", lambda: round(bench.ms(lambda: decoder.whole(spoken), 5) / 8, 3))
    for count in (1, 2) if bench.tiny else (1, 8, 32):
        bench.attempt(f"{count} streams ms per call", partial(_advance_times, bench, decoder, count))


def _advance_times(bench: Bench, decoder: SpeechDecoder, count: int) -> list[float]:
    cases = bench.inputs(count)
    times: list[float] = []
    prefilled = [decoder.prefill(case.prompt) for case in cases]
    for _ in range(2):
        times.clear()
        streams: list[SegmentStream] = []
        for index, (case, voice) in enumerate(zip(cases, prefilled, strict=True)):
            stream = decoder.open(case.prompt, SourceNoise.seeded(index), prefilled=voice)
            for token in case.tokens.tolist():
                stream.add(token)
            stream.end()
            streams.append(stream)
        while not all(stream.finished for stream in streams):
            bench.wait()
            start = time.perf_counter()
            decoder.advance(streams)
            bench.wait()
            times.append(round(1000 * (time.perf_counter() - start), 2))
    return list(times)


PARTS = {"kernels": kernels, "flow": flow, "streams": streams, "vocoder": vocoder, "together": together}
