"""From a request to work: which voice, which mode, which segments, which random numbers."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace

from light_tts.encode.frontend import TextFrontend
from light_tts.encode.text import language_of
from light_tts.encode.voice_catalog import VoiceCatalog
from light_tts.encode.voice_file import Voice
from light_tts.errors import InvalidInput
from light_tts.llm.request import SamplingParams, SequenceRequest
from light_tts.models.config import SamplingConfig
from light_tts.models.flow.flow_state import FlowPrompt
from light_tts.models.vocoder.source_noise import SourceNoise
from light_tts.request import MAX_SEED, AudioSource, SynthesisRequest
from light_tts.timing import StageTimes

_SEED_STEP = 0x9E37_79B9_7F4A_7C15  # odd, so that no two segments of a request share a seed
_ENOUGH_PIECE_TOKENS, _MAX_PIECE_TOKENS = 60, 200  # text tokens of one sequence where text arrives in pieces
_SENTENCE_ENDS = tuple("。！？!?.…\n")


@dataclass(frozen=True, slots=True, eq=False)
class PlannedVoice:
    """A voice as the models take it.

    prompt: for the flow
    prompt_text, prompt_speech: for the language model; empty unless the mode uses them
    key: of the recording's content
    """

    prompt: FlowPrompt
    key: str
    prompt_text: tuple[int, ...] = ()
    prompt_speech: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class PlannedSegment:
    request: SequenceRequest
    noise: SourceNoise


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    voice: PlannedVoice
    segments: tuple[PlannedSegment, ...]
    speed: float
    sampling: SamplingParams
    frontend: TextFrontend


class Planner:
    """Decides the mode as the reference has them: a voice with a transcript speaks zero-shot, one without
    cross-lingual, one with an instruction follows it, one with an embedding only is a registered speaker.
    """

    def __init__(
        self,
        frontend: TextFrontend,
        verbatim: TextFrontend,
        catalog: VoiceCatalog,
        sampling: SamplingConfig,
        times: StageTimes,
    ) -> None:
        """verbatim: the front end for requests that switch normalisation off"""
        self._frontend = frontend
        self._verbatim = verbatim
        self._catalog = catalog
        self._sampling = sampling
        self._times = times

    def plan(self, request: SynthesisRequest) -> Plan:
        """Raises InvalidInput and its kinds for text, voice or audio that cannot be used."""
        # Text first: it is cheap to refuse, a recording is not.
        with self._times.measure("text"):
            instruct = self._instruct_ids(request)
            with_prefix = instruct is None and not self._speaks_zero_shot(request)
            frontend = self._frontend_of(request)
            texts = frontend.segments(request.text, with_prefix=with_prefix, allow_tags=request.allow_tags)
        voice = self._voice(request, instruct)
        sampling = self._sampling_of(request)
        segments = tuple(
            self._segment(tuple(text.token_ids), voice, sampling, number) for number, text in enumerate(texts)
        )
        return Plan(voice, segments, request.speed, sampling, frontend)

    def plan_open(self, request: SynthesisRequest) -> Plan:
        """A plan whose text arrives later; see `open_segment`. Raises InvalidInput and its kinds."""
        if request.allow_tags:
            raise InvalidInput("allow_tags cannot be had where text arrives in pieces: they may cut a tag")
        voice = self._voice(request, self._instruct_ids(request))
        if not voice.prompt_text:
            voice = replace(voice, prompt_text=tuple(self._frontend.prefix_ids()))
        sampling, frontend = self._sampling_of(request), self._frontend_of(request)
        return Plan(voice, (), request.speed, sampling, frontend)

    @staticmethod
    def ends_sequence(text: str, num_tokens: int) -> bool:
        """Whether a sequence that gets its text in pieces ends here and the next begins: at a sentence's end once it
        is long enough, anywhere when it is too long.
        """
        at_sentence_end = text.rstrip().endswith(_SENTENCE_ENDS)
        return num_tokens >= (_ENOUGH_PIECE_TOKENS if at_sentence_end else _MAX_PIECE_TOKENS)

    def open_segment(self, plan: Plan, number: int) -> PlannedSegment:
        """The next sequence of a plan whose text arrives in pieces."""
        return self._segment((), plan.voice, plan.sampling, number, max_text_tokens=2 * _MAX_PIECE_TOKENS)

    @staticmethod
    def piece_ids(plan: Plan, text: str, *, so_far: str) -> tuple[int, ...]:
        """Ids of text that arrived in pieces and is complete up to here.

        so_far: what came before in the same sequence; it tells in which language a lone number is to be read
        """
        first = not so_far.strip()
        text = text.lstrip() if first else text
        if not text.strip():
            return ()
        language = language_of(so_far + text)
        return tuple(plan.frontend.piece_ids(text, language, first=first))

    def conversion_voice(self, voice: str | None, prompt_audio: AudioSource | None) -> PlannedVoice:
        """The target of a voice conversion: nothing is trimmed, as in the reference."""
        if prompt_audio is not None and voice is None:
            features = self._catalog.encode(prompt_audio, trim=False)
            prompt = FlowPrompt(features.speech_token, features.prompt_mel, features.speaker_embedding)
            return PlannedVoice(prompt, f"{features.content_hash}/untrimmed")
        if prompt_audio is not None:
            raise InvalidInput("give voice or prompt_audio, not both")
        found = self._catalog.get(voice) if voice is not None else self._catalog.default("en")
        return _planned(found)

    def seed(self, seed: int | None) -> int:
        """`seed`, or a fresh one."""
        return secrets.randbelow(MAX_SEED) if seed is None else int(seed)

    def _frontend_of(self, request: SynthesisRequest) -> TextFrontend:
        return self._frontend if request.normalise else self._verbatim

    def _instruct_ids(self, request: SynthesisRequest) -> tuple[int, ...] | None:
        if request.instruct_text is None:
            return None
        return tuple(self._frontend.instruct_ids(request.instruct_text))

    def _speaks_zero_shot(self, request: SynthesisRequest) -> bool:
        """Whether the language model will get a transcript."""
        if request.prompt_audio is not None:
            return bool(request.prompt_text)
        voice = self._named_voice(request)
        return bool(voice.info.prompt_text) or voice.prompt_text_ids is not None

    def _named_voice(self, request: SynthesisRequest) -> Voice:
        if request.voice is not None:
            return self._catalog.get(request.voice)
        return self._catalog.default(language_of(request.text))

    def _voice(self, request: SynthesisRequest, instruct: tuple[int, ...] | None) -> PlannedVoice:
        with self._times.measure("voice"):
            if request.prompt_audio is not None:
                features = self._catalog.encode(request.prompt_audio)
                text = request.prompt_text or ""
                prompt = FlowPrompt(features.speech_token, features.prompt_mel, features.speaker_embedding)
                planned = PlannedVoice(prompt, features.content_hash)
                ids = self._frontend.prompt_ids(text) if text else []
            else:
                voice = self._named_voice(request)
                planned, ids = _planned(voice), self._voice_ids(voice)
        if instruct is not None:
            return replace(planned, prompt_text=instruct)
        if not ids:
            return planned
        return replace(planned, prompt_text=tuple(ids), prompt_speech=tuple(planned.prompt.tokens.tolist()))

    def _voice_ids(self, voice: Voice) -> list[int]:
        if voice.prompt_text_ids is not None:
            return [int(token) for token in voice.prompt_text_ids]
        return self._frontend.prompt_ids(voice.info.prompt_text) if voice.info.prompt_text else []

    def _sampling_of(self, request: SynthesisRequest) -> SamplingParams:
        params = SamplingParams.of(self._sampling, request.temperature, self.seed(request.seed))
        return replace(
            params,
            top_p=params.top_p if request.top_p is None else request.top_p,
            top_k=params.top_k if request.top_k is None else request.top_k,
        )

    @staticmethod
    def _segment(
        text: tuple[int, ...],
        voice: PlannedVoice,
        sampling: SamplingParams,
        number: int,
        max_text_tokens: int | None = None,
    ) -> PlannedSegment:
        assert sampling.seed is not None
        seed = (sampling.seed + number * _SEED_STEP) & MAX_SEED
        request = SequenceRequest(
            text=text,
            prompt_text=voice.prompt_text,
            prompt_speech=voice.prompt_speech,
            sampling=replace(sampling, seed=seed),
            max_text_tokens=max_text_tokens,
        )
        return PlannedSegment(request, SourceNoise.seeded(seed))


def _planned(voice: Voice) -> PlannedVoice:
    features = voice.features
    prompt = FlowPrompt(features.speech_token, features.prompt_mel, features.speaker_embedding)
    return PlannedVoice(prompt, features.content_hash)
