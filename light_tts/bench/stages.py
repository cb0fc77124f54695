"""Stages of a model directory alone, as the server builds them: `python -m light_tts.bench.stages PART ...`.

A process for each part: one that loses the GPU, or hangs, leaves the others alone. Figures are written as they come.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from light_tts.config import ServerConfig
from light_tts.decode.backend import GRAPHS, TENSORRT, choose_flow_backend, half_precision, make_decoder
from light_tts.decode.segment import SegmentStream
from light_tts.decode.speech_decoder import SpeechDecoder
from light_tts.llm.backend import choose_backend
from light_tts.llm.engine import Engine, FailedEvent, TokenEvent
from light_tts.llm.process import engine_of
from light_tts.llm.request import LengthLimits, SamplingParams, SequenceRequest
from light_tts.messages import Stage
from light_tts.models.flow.flow_runner import FlowRunner
from light_tts.models.flow.flow_state import FlowInput, FlowPrompt
from light_tts.models.loader import device_of, dtype_of, load_flow, load_speech_lm, load_vocoder
from light_tts.models.model_yaml import read_model_config
from light_tts.models.vocoder.source_noise import SourceNoise
from light_tts.models.vocoder.streaming import VocoderRunner
from light_tts.threads import use_threads

PARTS = ("llm", "flow", "vocoder", "stream")
PROMPT_TOKENS, TEXT_TOKENS, PROMPT_TEXT_TOKENS = 75, 20, 10
TOKEN_RATE_HZ = 25
DECODE_BATCHES = (1, 8)
POOL_BYTES = 4_000_000_000  # for streams: enough for a few

Note = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Setting:
    """batches: of the language model; tokens: of speech, per sequence; repeats: of each measurement of flow, vocoder"""

    model_dir: Path
    device: str
    dtype: str
    batches: tuple[int, ...]
    tokens: int
    repeats: int

    @property
    def config(self) -> ServerConfig:
        longest = PROMPT_TOKENS + TEXT_TOKENS + PROMPT_TEXT_TOKENS + self.tokens + 2
        return ServerConfig(
            model_dir=self.model_dir,
            num_gpus=0 if self.device == "cpu" else 1,
            gpt_paral_num=max(self.batches),
            max_total_token_num=max(longest * max(self.batches), 1024),
            max_req_total_len=longest,
            dtype=self.dtype,
        )

    def now_s(self) -> float:
        """After the device has done what it was given."""
        if self.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()

    def ms(self, work: Callable[[], object]) -> float:
        """Median over `repeats`, after one that does not count."""
        work()
        times = []
        for _ in range(self.repeats):
            start = self.now_s()
            work()
            times.append(1000 * (self.now_s() - start))
        return statistics.median(times)


# --- language model


def llm(setting: Setting, note: Note) -> None:
    """Time of a step with everything in it, sampling and the host's part included, by number of sequences."""
    config = setting.config
    device = device_of(config.device_of(Stage.LLM, 0))
    use_threads(1)
    cfg = read_model_config(setting.model_dir).llm
    model = load_speech_lm(setting.model_dir, cfg, device, dtype_of(setting.dtype)).prepare()
    backend = choose_backend((), str(device), str(model.dtype).removeprefix("torch."))
    start = setting.now_s()
    engine = engine_of(config, model, backend)
    note("start-up, s", setting.now_s() - start)
    _speak(engine, _sequences(1, 10))
    for batch in setting.batches:
        _speak(engine, _sequences(batch, 8))
        first_s, steps_s, emitted = _speak(engine, _sequences(batch, setting.tokens))
        note(f"first token, batch {batch}, ms", 1000 * first_s)
        note(f"step, batch {batch}, ms", 1000 * steps_s / (setting.tokens - 1))
        note(f"tokens a second, batch {batch}", emitted / (first_s + steps_s))


def _sequences(number: int, tokens: int) -> list[SequenceRequest]:
    """Each speaks `tokens` tokens, whatever it draws. Ids are below those of the smallest model."""
    ratio = (tokens + 0.5) / TEXT_TOKENS
    ids = tuple((7 * i) % 200 for i in range(PROMPT_TOKENS))
    return [
        SequenceRequest(
            ids[:TEXT_TOKENS],
            ids[:PROMPT_TEXT_TOKENS],
            ids,
            SamplingParams(seed=seed),
            LengthLimits(ratio, ratio),
        )
        for seed in range(number)
    ]


def _speak(engine: Engine, requests: Sequence[SequenceRequest]) -> tuple[float, float, int]:
    """Seconds until every sequence has spoken once, seconds from there to the end, and tokens spoken."""
    start = time.perf_counter()
    waiting = {engine.add(request) for request in requests}
    all_began_s, emitted = start, 0
    while not engine.is_idle():
        for event in engine.step():
            if isinstance(event, FailedEvent):
                raise RuntimeError(f"a sequence failed: {event.error}")
            if not isinstance(event, TokenEvent):
                continue
            emitted += 1
            if event.sequence_id in waiting:
                waiting.remove(event.sequence_id)
                all_began_s = time.perf_counter()
    return all_began_s - start, time.perf_counter() - all_began_s, emitted


# --- decode


class _Decode:
    """Flow, vocoder and both, as a decode process has them."""

    def __init__(self, setting: Setting) -> None:
        config = setting.config
        where = config.device_of(Stage.DECODE, 0)
        device = device_of(where)
        model = read_model_config(setting.model_dir)
        backend = choose_flow_backend(True, where, dtype=setting.dtype)
        graphs = backend.name in (GRAPHS, TENSORRT)
        dtype = torch.float32 if graphs else dtype_of(setting.dtype)
        flow = load_flow(setting.model_dir, model.flow, device, dtype)
        vocoder = load_vocoder(setting.model_dir, model.hift, device, dtype)
        precision = half_precision(setting.dtype, model.version)
        decoder, self.backend = make_decoder(flow, vocoder, backend, precision, POOL_BYTES if graphs else 0)
        self.decoder: SpeechDecoder = decoder
        self.flow: FlowRunner = decoder._flow
        self.vocoder: VocoderRunner = decoder._vocoder
        self.device, self.cfg = device, model
        self._generator = torch.Generator().manual_seed(1)

    def tokens(self, number: int) -> Tensor:
        return torch.randint(0, self.cfg.flow.vocab_size, (number,), generator=self._generator)

    def prompt(self) -> FlowPrompt:
        frames = PROMPT_TOKENS * self.cfg.flow.token_mel_ratio
        mel = torch.randn(frames, self.cfg.flow.output_size, generator=self._generator)
        embedding = torch.randn(self.cfg.spk_embed_dim, generator=self._generator)
        return FlowPrompt(self.tokens(PROMPT_TOKENS), mel, embedding)


@torch.inference_mode()
def flow(setting: Setting, note: Note) -> None:
    """Whole utterances, prompt and guidance included: time of each."""
    decode = _Decode(setting)
    inputs = [FlowInput(decode.tokens(setting.tokens), decode.prompt()) for _ in range(max(DECODE_BATCHES))]
    for batch in DECODE_BATCHES:
        note(f"batch {batch}, ms each", setting.ms(lambda n=batch: decode.flow(inputs[:n])) / batch)  # type: ignore[misc]


@torch.inference_mode()
def vocoder(setting: Setting, note: Note) -> None:
    """Whole utterances: time of each."""
    decode = _Decode(setting)
    frames = setting.tokens * decode.cfg.flow.token_mel_ratio
    for batch in DECODE_BATCHES:
        mel = torch.randn(batch, decode.cfg.hift.in_channels, frames, device=decode.device)
        lens, noise = torch.full((batch,), frames), [SourceNoise.seeded(i) for i in range(batch)]
        took = setting.ms(lambda m=mel, n=lens, s=noise: decode.vocoder.synthesize(m, n, s))  # type: ignore[misc]
        note(f"batch {batch}, ms each", took / batch)


@torch.inference_mode()
def stream(setting: Setting, note: Note) -> None:
    """A stream's chunks, flow and vocoder, by a second of speech: the later must not cost more than the earlier.
    Chunks grow; short ones cost more of it.
    """
    decode = _Decode(setting)
    prompt = decode.prompt()
    runs = [_chunks(setting, decode, prompt) for _ in range(1 + setting.repeats)][1:]
    for chunks in zip(*runs, strict=True):
        first, last, _ = chunks[0]
        each = statistics.median(ms for _, _, ms in chunks) * TOKEN_RATE_HZ / (last - first)
        note(f"chunk of tokens {first}-{last}, ms a second", each)


def _chunks(setting: Setting, decode: _Decode, prompt: FlowPrompt) -> list[tuple[int, int, float]]:
    """Of each chunk but the last: its first token, the one behind it, and milliseconds."""
    stream: SegmentStream = decode.decoder.open(
        prompt, SourceNoise.seeded(0), prefilled=decode.decoder.prefill(prompt)
    )
    chunks: list[tuple[int, int, float]] = []
    for token in decode.tokens(setting.tokens).tolist():
        stream.add(token)
        before, start = stream.num_fed, setting.now_s()
        if decode.decoder.advance([stream])[0] is not None:
            chunks.append((before, stream.num_fed, 1000 * (setting.now_s() - start)))
    stream.end()
    while not stream.finished:
        decode.decoder.advance([stream])
    return chunks


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures one part and writes its figures to a JSON file, those before a failure too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--model_dir", type=Path, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--batches", required=True, help="of the language model: 1,8,64")
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--repeats", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    batches = tuple(int(batch) for batch in options.batches.split(","))
    setting = Setting(
        options.model_dir, options.device, options.dtype, batches, options.tokens, options.repeats
    )
    figures: dict[str, float] = {}

    def note(name: str, value: float) -> None:
        figures[name] = round(value, 4)
        options.out.write_text(json.dumps(figures), "utf-8")

    {"llm": llm, "flow": flow, "vocoder": vocoder, "stream": stream}[options.part](setting, note)
    return 0


if __name__ == "__main__":
    sys.exit(main())
