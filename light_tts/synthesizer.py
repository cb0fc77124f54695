"""`LightTTS`: all stages in one process, for Python users and for `light-tts say`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
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
from light_tts.encode.lexicon import Lexicon
from light_tts.encode.open_text import OpenText, TextStep, opening
from light_tts.encode.planner import Plan, Planner, draw_seed
from light_tts.encode.prompt_cache import PromptCache
from light_tts.encode.prompt_encoder import PromptEncoder
from light_tts.encode.tokenizer import TextTokenizer
from light_tts.encode.voice_catalog import ListedVoice, VoiceCatalog
from light_tts.encode.voices import VoiceStore
from light_tts.errors import GenerationFailed, LightTTSError
from light_tts.llm.engine import Engine, Event, FailedEvent, FinishedEvent, TokenEvent
from light_tts.llm.pump import EnginePump
from light_tts.llm.request import SequenceRequest
from light_tts.models.bundled import resolve_model_dir
from light_tts.models.flow.flow_state import FlowState
from light_tts.models.loader import device_of, dtype_of, load_models
from light_tts.models.vocoder.source_noise import SourceNoise
from light_tts.planning import open_request, sequence_requests
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


@dataclass(frozen=True, slots=True)
class _OpenSequence:
    sequence_id: int
    stream: SegmentStream


class LightTTS:
    """A loaded model that speaks.

    model_dir: CosyVoice2 or CosyVoice3 model directory; None is the bundled voice
    device: "auto", "cpu", "cuda" or "cuda:N"
    dtype: "float32", "bfloat16" or "float16" for language model and flow; "auto" is float32
    voices_dir: where `register_voice` keeps voices; None: nowhere
    lexicon: file of words with their pronunciation, see `light_tts.encode.lexicon`
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
        lexicon: Path | str | None = None,
        num_threads: int | None = None,
        quirks: ReferenceQuirks | None = None,
        max_running: int = 16,
        pool_size_tokens: int = 32_768,
        cache_capacity: int = 50,
    ) -> None:
        where, number_type = device_of(device), dtype_of(dtype)
        words = Lexicon.read(Path(lexicon)) if lexicon is not None else None
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
        frontend = TextFrontend(tokenizer, config.version, quirks, lexicon=words)
        verbatim = TextFrontend(tokenizer, config.version, quirks, normalise=False)
        self._planner = Planner(frontend, verbatim, self._catalog)
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
                plans.append(self._planner.plan(request, self.times))
            except LightTTSError as error:
                plans.append(error)
        spoken = iter(self._speak([plan for plan in plans if isinstance(plan, Plan)]))
        return [next(spoken) if isinstance(plan, Plan) else plan for plan in plans]

    def run(self, request: SynthesisRequest) -> Audio:
        """Speak one request."""
        (result,) = self._speak([self._planner.plan(request, self.times)])
        if isinstance(result, LightTTSError):
            raise result
        return result

    def run_stream(self, request: SynthesisRequest) -> Iterator[Audio]:
        """Speak one request in chunks."""
        return self._stream_plan(self._planner.plan(request, self.times))

    def stream_text(self, pieces: Iterable[str], **options: Unpack[RequestOptions]) -> Iterator[Audio]:
        """Speak text while it arrives, for example from a language model.

        pieces: of any size, cut anywhere. Speech begins once a few words are there. Without a voice in the options,
            these words decide which one speaks.
        """
        request = SynthesisRequest(text="", **options)
        self._planner.check_open(request)
        if request.voice is None and request.prompt_audio is None:
            return self._stream_unvoiced(request, iter(pieces))
        return self._stream_pieces(self._planner.plan_open(request, self.times), pieces)

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
        noise = SourceNoise.seeded(draw_seed(seed))
        (wav,) = self._decoder.whole([SpokenTokens(tokens, target.prompt, noise, speed)])
        return self._audio([wav])

    def register_voice(
        self, name: str, prompt_audio: AudioSource, prompt_text: str = "", language: str = ""
    ) -> None:
        """Keep a voice in `voices_dir`, for `voice=name`. Raises InvalidInput for a bad name."""
        self._catalog.register(name, prompt_audio, prompt_text, language)

    def _speak(self, plans: Sequence[Plan]) -> list[Audio | LightTTSError]:
        """Generate the tokens of all segments together, then their audio together."""
        segments = [
            (number, request) for number, plan in enumerate(plans) for request in self._requests(plan)
        ]
        results: list[Audio | LightTTSError | None] = [None] * len(plans)
        ids: list[int | None] = []
        for number, request in segments:
            try:
                ids.append(self._pump.add(request))
            except LightTTSError as error:
                results[number] = error
                ids.append(None)
        events = self._finish([sequence_id for sequence_id in ids if sequence_id is not None])
        spoken: list[tuple[int, SpokenTokens]] = []
        for sequence_id, (number, request) in zip(ids, segments, strict=True):
            if sequence_id is None or results[number] is not None:
                continue
            tokens = _tokens(events[sequence_id])
            if isinstance(tokens, LightTTSError):
                results[number] = tokens
                continue
            plan = plans[number]
            spoken.append((number, SpokenTokens(tokens, plan.voice.prompt, _noise(request), plan.speed)))
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
        for request in self._requests(plan):
            sequence_id = self._pump.add(request)
            try:
                stream = self._open(plan, _noise(request))
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

    def _stream_unvoiced(self, request: SynthesisRequest, pieces: Iterator[str]) -> Iterator[Audio]:
        """The beginning of the text says in which language the default voice is to be."""
        arrived: list[str] = []
        begun = None
        for piece in pieces:
            arrived.append(piece)
            begun = opening("".join(arrived))
            if begun is not None:
                break
        request = replace(request, text="".join(arrived) if begun is None else begun)
        plan = self._planner.plan_open(request, self.times)
        yield from self._stream_pieces(plan, chain(arrived, pieces))

    def _stream_pieces(self, plan: Plan, pieces: Iterable[str]) -> Iterator[Audio]:
        text = OpenText(plan)
        current: _OpenSequence | None = None
        try:
            for step in chain(chain.from_iterable(map(text.push, pieces)), text.end()):
                if step.opens or current is None:
                    current = self._open_sequence(plan, step.sequence)
                yield from self._take_step(current, step)
                if step.ends:
                    self._pump.close(current.sequence_id)
        finally:
            if current is not None:
                self._pump.close(current.sequence_id)

    def _open_sequence(self, plan: Plan, number: int) -> _OpenSequence:
        request = open_request(plan, number, self.config.llm.sampling)
        stream = self._open(plan, _noise(request))
        return _OpenSequence(self._pump.add(request), stream)

    def _take_step(self, current: _OpenSequence, step: TextStep) -> Iterator[Audio]:
        """What can be heard once this much text is there."""
        if step.ids:
            self._pump.append_text(current.sequence_id, step.ids)
        if step.ends:
            self._pump.end_text(current.sequence_id)
            yield from self._drain(current.sequence_id, current.stream)
            return
        while self._pump.step(current.sequence_id):
            self._collect(current.sequence_id, current.stream)
            yield from self._ready(current.stream)

    def _requests(self, plan: Plan) -> list[SequenceRequest]:
        return sequence_requests(plan, self.config.llm.sampling)

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


def _noise(request: SequenceRequest) -> SourceNoise:
    """The vocoder's randomness: of the same seed as the language model's."""
    assert request.sampling is not None
    assert request.sampling.seed is not None
    return SourceNoise.seeded(request.sampling.seed)


def _tokens(events: Sequence[Event]) -> Tensor | LightTTSError:
    """(n,) int64, or why there are none."""
    last = events[-1]
    if isinstance(last, FailedEvent):
        return last.error
    tokens = [event.token for event in events if isinstance(event, TokenEvent)]
    return torch.tensor(tokens) if tokens else GenerationFailed("the model ended the speech before it began")
