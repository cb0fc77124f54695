"""`LightTTS`: all stages in one process, for Python users and for `light-tts say`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Unpack

import numpy as np
import torch
from torch import Tensor

from light_tts.audio import Audio
from light_tts.decode.segment import SegmentStream, SpokenTokens
from light_tts.decode.speech_decoder import SpeechDecoder
from light_tts.decode.stream import HopPlan
from light_tts.encode.frontend import TextFrontend
from light_tts.encode.pieces import PieceBuffer, small_pieces
from light_tts.encode.prompt_cache import PromptCache
from light_tts.encode.prompt_encoder import PromptEncoder
from light_tts.encode.tokenizer import TextTokenizer
from light_tts.encode.voice_catalog import ListedVoice, VoiceCatalog
from light_tts.encode.voices import VoiceStore
from light_tts.errors import GenerationFailed, LightTTSError
from light_tts.llm.engine import Engine, Event, FailedEvent, FinishedEvent, TokenEvent
from light_tts.llm.pump import EnginePump
from light_tts.models.bundled import resolve_model_dir
from light_tts.models.flow.flow_state import FlowState
from light_tts.models.loader import device_of, dtype_of, load_models
from light_tts.models.vocoder.source_noise import SourceNoise
from light_tts.planning import Plan, Planner
from light_tts.quirks import ReferenceQuirks
from light_tts.request import (
    AudioSource,
    RequestOptions,
    SynthesisRequest,
    check_audio_source,
    check_seed,
    check_speed,
)
from light_tts.threads import use_threads
from light_tts.timing import StageTimes

PREFILLED_VOICES = 4  # the flow's share of a voice takes tens of megabytes


class LightTTS:
    """A loaded model that speaks.

    model_dir: CosyVoice2 or CosyVoice3 model directory; None is the bundled voice
    device: "auto", "cpu", "cuda" or "cuda:N"
    dtype: "float32", "bfloat16" or "float16" for language model and flow; "auto" is float32
    voices_dir: where `register_voice` keeps voices; None: nowhere
    num_threads: CPU threads of this process; None leaves torch's choice
    max_running, pool_size_tokens: sequences generated together, and KV slots for them

    Safe to use from several threads. Raises errors of `light_tts.errors.ModelError` for an unusable directory.
    """

    def __init__(
        self,
        model_dir: Path | str | None = None,
        device: str = "auto",
        *,
        dtype: str = "auto",
        voices_dir: Path | str | None = None,
        num_threads: int | None = None,
        quirks: ReferenceQuirks | None = None,
        max_running: int = 16,
        pool_size_tokens: int = 32_768,
        cache_capacity: int = 50,
    ) -> None:
        where, number_type = device_of(device), dtype_of(dtype)
        if num_threads is not None:
            use_threads(num_threads)
        folder = resolve_model_dir(model_dir)
        quirks = quirks or ReferenceQuirks()
        models = load_models(folder, where, number_type)
        models.speech_lm.prepare()
        config = models.config
        tokenizer = TextTokenizer.from_model_dir(folder / "CosyVoice-BlankEN", config.version)
        tokenizer.check_fits(config.llm.qwen.vocab_size)
        encoder = PromptEncoder(folder, config, device=str(where), intra_op_threads=torch.get_num_threads())
        store = VoiceStore(Path(voices_dir), config.spk_embed_dim) if voices_dir is not None else None
        self.config = config
        self.times = StageTimes()
        self._catalog = VoiceCatalog(folder, encoder, config.spk_embed_dim, store, cache_capacity)
        self._encoder = encoder
        frontend = TextFrontend(tokenizer, config.version, quirks)
        verbatim = TextFrontend(tokenizer, config.version, quirks, normalise=False)
        self._planner = Planner(frontend, verbatim, self._catalog, config.llm.sampling, self.times)
        engine = Engine(
            models.speech_lm,
            pool_size_tokens,
            max_running,
            quirks,
            end_of_prompt_id=tokenizer.end_of_prompt_id,
        )
        self._pump = EnginePump(engine, self.times)
        hops = HopPlan.reference(models.flow.chunk_size, config.flow.pre_lookahead_len)
        self._decoder = SpeechDecoder(
            models.flow, models.vocoder, quirks, hops if quirks.hop_never_reset else None, self.times
        )
        self._grown_hop = hops.hop if quirks.hop_never_reset else None
        self._prefilled: PromptCache[FlowState] = PromptCache(PREFILLED_VOICES)

    @property
    def sample_rate_hz(self) -> int:
        return self.config.sample_rate

    @property
    def num_free_slots(self) -> int:
        """KV slots that no sequence holds."""
        return self._pump.num_free_slots

    def voices(self) -> list[ListedVoice]:
        """All voices that `voice=` accepts."""
        return self._catalog.list()

    def synthesize(self, text: str, **options: Unpack[RequestOptions]) -> Audio:
        """Speak `text`; options are the fields of `SynthesisRequest`. Raises errors of `light_tts.errors`."""
        return self.run(SynthesisRequest(text=text, **options))

    def stream(self, text: str, **options: Unpack[RequestOptions]) -> Iterator[Audio]:
        """As `synthesize`, in chunks as they are made. Bad input raises here, before the first chunk."""
        return self.run_stream(SynthesisRequest(text=text, **options))

    def synthesize_batch(self, requests: Sequence[SynthesisRequest]) -> list[Audio | LightTTSError]:
        """Speak several requests together; one that fails gives its error in its place."""
        plans: list[Plan | LightTTSError] = []
        for request in requests:
            try:
                plans.append(self._planner.plan(request))
            except LightTTSError as error:
                plans.append(error)
        spoken = iter(self._speak([plan for plan in plans if isinstance(plan, Plan)]))
        return [next(spoken) if isinstance(plan, Plan) else plan for plan in plans]

    def run(self, request: SynthesisRequest) -> Audio:
        """Speak one request."""
        (result,) = self._speak([self._planner.plan(request)])
        if isinstance(result, LightTTSError):
            raise result
        return result

    def run_stream(self, request: SynthesisRequest) -> Iterator[Audio]:
        """Speak one request in chunks."""
        return self._stream_plan(self._planner.plan(request))

    def stream_text(self, pieces: Iterable[str], **options: Unpack[RequestOptions]) -> Iterator[Audio]:
        """Speak text while it arrives, for example from a language model.

        pieces: of any size, cut anywhere. Speech begins once a few words are there.
        """
        plan = self._planner.plan_open(SynthesisRequest(text="", **options))
        return self._stream_pieces(plan, pieces)

    def convert(
        self,
        source: AudioSource,
        *,
        voice: str | None = None,
        prompt_audio: AudioSource | None = None,
        speed: float = 1.0,
        seed: int | None = None,
    ) -> Audio:
        """Voice conversion: the words and timing of a recording (at most 30 s), in another voice."""
        check_speed(speed)
        check_seed(seed)
        check_audio_source("source", source)
        check_audio_source("prompt_audio", prompt_audio)
        target = self._planner.conversion_voice(voice, prompt_audio)
        tokens = self._encoder.tokenize_source(self._catalog.decode(source))
        noise = SourceNoise.seeded(self._planner.seed(seed))
        (wav,) = self._decoder.whole([SpokenTokens(tokens, target.prompt, noise, speed)])
        return self._audio([wav])

    def register_voice(
        self, name: str, prompt_audio: AudioSource, prompt_text: str = "", language: str = ""
    ) -> None:
        """Keep a voice in `voices_dir`, for `voice=name`. Raises InvalidInput for a bad name."""
        self._catalog.register(name, prompt_audio, prompt_text, language)

    def _speak(self, plans: Sequence[Plan]) -> list[Audio | LightTTSError]:
        """Generate the tokens of all segments together, then their audio together."""
        segments = [(number, segment) for number, plan in enumerate(plans) for segment in plan.segments]
        results: list[Audio | LightTTSError | None] = [None] * len(plans)
        ids: list[int | None] = []
        for number, segment in segments:
            try:
                ids.append(self._pump.add(segment.request))
            except LightTTSError as error:
                results[number] = error
                ids.append(None)
        events = self._finish([sequence_id for sequence_id in ids if sequence_id is not None])
        spoken: list[tuple[int, SpokenTokens]] = []
        for sequence_id, (number, segment) in zip(ids, segments, strict=True):
            if sequence_id is None or results[number] is not None:
                continue
            tokens = _tokens(events[sequence_id])
            if isinstance(tokens, LightTTSError):
                results[number] = tokens
                continue
            plan = plans[number]
            spoken.append((number, SpokenTokens(tokens, plan.voice.prompt, segment.noise, plan.speed)))
        spoken = [(number, item) for number, item in spoken if results[number] is None]
        wavs: dict[int, list[Tensor]] = {}
        for (number, _), wav in zip(spoken, self._decode([item for _, item in spoken]), strict=True):
            if isinstance(wav, LightTTSError):
                results[number] = wav
            else:
                wavs.setdefault(number, []).append(wav)
        return [self._audio(wavs[n]) if result is None else result for n, result in enumerate(results)]

    def _decode(self, segments: list[SpokenTokens]) -> list[Tensor | LightTTSError]:
        """All waveforms; should one fail, each by itself, so that the others do not suffer from it."""
        try:
            return [*self._decoder.whole(segments)]
        except GenerationFailed as error:
            if len(segments) == 1:
                return [error]
            return [wav for segment in segments for wav in self._decode([segment])]

    def _finish(self, ids: list[int]) -> dict[int, list[Event]]:
        try:
            return self._pump.run(ids)
        finally:
            for sequence_id in ids:
                self._pump.close(sequence_id)

    def _stream_plan(self, plan: Plan) -> Iterator[Audio]:
        for segment in plan.segments:
            sequence_id = self._pump.add(segment.request)
            try:
                stream = self._open(plan, segment.noise)
                yield from self._drain(sequence_id, stream)
            finally:
                self._pump.close(sequence_id)

    def _drain(self, sequence_id: int, stream: SegmentStream) -> Iterator[Audio]:
        """The rest of a segment, whose text is complete."""
        while not stream.finished:
            yield from self._ready(stream)
            if not stream.ended:
                self._pump.step()
                self._collect(sequence_id, stream)
        if self._grown_hop is not None:
            self._grown_hop = stream.schedule.hop

    def _stream_pieces(self, plan: Plan, pieces: Iterable[str]) -> Iterator[Audio]:
        buffer, arriving = PieceBuffer(), small_pieces(pieces)
        number, ended = 0, False
        while not ended:
            segment = self._planner.open_segment(plan, number)
            sequence_id = self._pump.add(segment.request)
            stream = self._open(plan, segment.noise)
            text, num_tokens = "", 0
            try:
                while not (ended or self._planner.ends_sequence(text, num_tokens)):
                    piece = next(arriving, None)
                    ended = piece is None
                    released = buffer.flush() if piece is None else buffer.push(piece)
                    ids = self._planner.piece_ids(plan, released, so_far=text)
                    self._pump.append_text(sequence_id, ids)
                    text, num_tokens = text + released, num_tokens + len(ids)
                    while not ended and self._pump.step(sequence_id):
                        self._collect(sequence_id, stream)
                        yield from self._ready(stream)
                self._pump.end_text(sequence_id)
                if num_tokens:
                    yield from self._drain(sequence_id, stream)
            finally:
                self._pump.close(sequence_id)
            number += 1

    def _open(self, plan: Plan, noise: SourceNoise) -> SegmentStream:
        voice = plan.voice
        with self._prefilled.acquire(voice.key, lambda: self._decoder.prefill(voice.prompt)) as handle:
            return self._decoder.open(voice.prompt, noise, plan.speed, handle.value, self._grown_hop)

    def _collect(self, sequence_id: int, stream: SegmentStream) -> None:
        """Hand a sequence's new tokens to its stream. Raises the error that ended it."""
        for event in self._pump.take(sequence_id):
            match event:
                case TokenEvent(token=token):
                    stream.add(token)
                case FinishedEvent():
                    stream.end()
                case FailedEvent(error=error):
                    raise error

    def _ready(self, stream: SegmentStream) -> Iterator[Audio]:
        """Chunks that can be made now; the first ones of a segment may hold no audio yet."""
        while (wav := self._decoder.advance([stream])[0]) is not None:
            if len(wav):
                yield self._audio([wav])

    def _audio(self, wavs: Sequence[Tensor]) -> Audio:
        return Audio(np.concatenate([wav.numpy() for wav in wavs]), self.sample_rate_hz)


def _tokens(events: Sequence[Event]) -> Tensor | LightTTSError:
    """(n,) int64, or why there are none."""
    last = events[-1]
    if isinstance(last, FailedEvent):
        return last.error
    tokens = [event.token for event in events if isinstance(event, TokenEvent)]
    return torch.tensor(tokens) if tokens else GenerationFailed("the model ended the speech before it began")
