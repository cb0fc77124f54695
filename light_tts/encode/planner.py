"""From a request to work: which voice, which mode, which segments, which seeds."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from light_tts.encode.frontend import TextFrontend
from light_tts.encode.prompt_cache import PromptCache
from light_tts.encode.text import main_language
from light_tts.encode.voice_catalog import VoiceCatalog
from light_tts.encode.voice_file import Voice
from light_tts.errors import InvalidInput
from light_tts.messages import Mode, Sampling
from light_tts.models.flow.flow_state import FlowPrompt
from light_tts.request import MAX_SEED, AudioSource, SynthesisRequest
from light_tts.timing import StageTimes

_SEED_STEP = 0x9E37_79B9_7F4A_7C15  # odd, so that no two segments of a request share a seed
_TRANSCRIPTS_KEPT = 256


@dataclass(frozen=True, slots=True, eq=False)
class PlannedVoice:
    """A voice as the models take it.

    prompt: for the flow
    prompt_text, prompt_speech: for the language model; empty unless the mode uses them
    key: of the recording's content
    cache_hit: whether the recording had been encoded before; None for a named voice
    """

    prompt: FlowPrompt
    key: str
    prompt_text: tuple[int, ...] = ()
    prompt_speech: tuple[int, ...] = ()
    cache_hit: bool | None = None


@dataclass(frozen=True, slots=True)
class PlannedSegment:
    """text: token ids; spoken: the same in letters"""

    text: tuple[int, ...]
    spoken: str
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """segments: none where the text arrives in pieces
    num_text_tokens: of the text alone
    sampling: with a seed, from which each segment has its own
    """

    voice: PlannedVoice
    segments: tuple[PlannedSegment, ...]
    num_text_tokens: int
    speed: float
    sampling: Sampling
    frontend: TextFrontend

    def segment_seed(self, number: int) -> int:
        return _segment_seed(self.sampling, number)


class Planner:
    """Decides the mode as the reference has them: a voice with a transcript speaks zero-shot, one without
    cross-lingual, one with an instruction follows it, one with an embedding only is a registered speaker.

    Safe to share by threads.
    """

    def __init__(self, frontend: TextFrontend, verbatim: TextFrontend, catalog: VoiceCatalog) -> None:
        """verbatim: the front end for requests that switch normalisation off"""
        self._frontend = frontend
        self._verbatim = verbatim
        self._catalog = catalog
        self._transcripts: PromptCache[tuple[int, ...]] = PromptCache(_TRANSCRIPTS_KEPT)

    def plan(self, request: SynthesisRequest, times: StageTimes | None = None) -> Plan:
        """Raises InvalidInput and its kinds for text, voice or audio that cannot be used."""
        times = times or StageTimes()
        # Text first: it is cheap to refuse, a recording is not.
        with times.measure("text"):
            instruct = self._instruct_ids(request)
        with times.measure("voice"):
            named = self._named_voice(request)
        with times.measure("text"):
            with_prefix = instruct is None and not self._speaks_zero_shot(request, named)
            frontend = self._frontend_of(request)
            texts = frontend.segments(request.text, with_prefix=with_prefix, allow_tags=request.allow_tags)
        with times.measure("voice"):
            voice = self._voice(request, named, instruct)
        sampling = _sampling(request)
        segments = tuple(
            PlannedSegment(tuple(text.token_ids), text.text, _segment_seed(sampling, number))
            for number, text in enumerate(texts)
        )
        num_text_tokens = sum(len(text.token_ids) - text.num_prefix_ids for text in texts)
        return Plan(voice, segments, num_text_tokens, request.speed, sampling, frontend)

    def plan_open(self, request: SynthesisRequest, times: StageTimes | None = None) -> Plan:
        """A plan whose text arrives later, see `open_text`. request.text: its beginning, as far as that is known; it
        tells the language of a default voice.

        Raises InvalidInput and its kinds.
        """
        self.check_open(request)
        with (times or StageTimes()).measure("voice"):
            instruct = self._instruct_ids(request)
            named = self._named_voice(request)
            self._speaks_zero_shot(request, named)
            voice = self._voice(request, named, instruct)
        if not voice.prompt_text:
            voice = replace(voice, prompt_text=tuple(self._frontend.prefix_ids()))
        return Plan(voice, (), 0, request.speed, _sampling(request), self._frontend_of(request))

    @staticmethod
    def check_open(request: SynthesisRequest) -> None:
        """Raises InvalidInput for what cannot be had where text arrives in pieces."""
        if request.allow_tags:
            raise InvalidInput("allow_tags cannot be had where text arrives in pieces: they may cut a tag")

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

    def _frontend_of(self, request: SynthesisRequest) -> TextFrontend:
        return self._frontend if request.normalise else self._verbatim

    def _instruct_ids(self, request: SynthesisRequest) -> tuple[int, ...] | None:
        if request.instruct_text is None:
            return None
        return tuple(self._frontend.instruct_ids(request.instruct_text))

    def _named_voice(self, request: SynthesisRequest) -> Voice | None:
        """The voice that is named or taken by default; None for a recording."""
        if request.prompt_audio is not None:
            return None
        if request.voice is not None:
            return self._catalog.get(request.voice)
        return self._catalog.default(main_language(request.text))

    @staticmethod
    def _speaks_zero_shot(request: SynthesisRequest, named: Voice | None) -> bool:
        """Whether the language model will get a transcript, unless it gets an instruction. Raises InvalidInput where
        it should and there is none.
        """
        if request.mode is Mode.CROSS_LINGUAL:
            return False
        if named is None:
            return bool((request.prompt_text or "").strip())
        has_transcript = bool(named.info.prompt_text.strip()) or named.prompt_text_ids is not None
        if request.mode is Mode.ZERO_SHOT and not has_transcript:
            raise InvalidInput(f"mode zero_shot needs a transcript, voice {named.info.name!r} has none")
        return has_transcript

    def _voice(
        self, request: SynthesisRequest, named: Voice | None, instruct: tuple[int, ...] | None
    ) -> PlannedVoice:
        zero_shot = instruct is None and self._speaks_zero_shot(request, named)
        ids: Sequence[int] = ()
        if named is not None:
            planned = _planned(named)
            if zero_shot:
                ids = self._voice_ids(named)
        else:
            assert request.prompt_audio is not None
            if zero_shot:  # before the recording: it is cheap to refuse
                ids = self._transcript_ids(request.prompt_text or "")
            features, hit = self._catalog.look_up(request.prompt_audio)
            prompt = FlowPrompt(features.speech_token, features.prompt_mel, features.speaker_embedding)
            planned = PlannedVoice(prompt, features.content_hash, cache_hit=hit)
        if instruct is not None:
            return replace(planned, prompt_text=instruct)
        if not ids:
            return planned
        return replace(planned, prompt_text=tuple(ids), prompt_speech=tuple(planned.prompt.tokens.tolist()))

    def _voice_ids(self, voice: Voice) -> Sequence[int]:
        if voice.prompt_text_ids is not None:
            return [int(token) for token in voice.prompt_text_ids]
        return self._transcript_ids(voice.info.prompt_text)

    def _transcript_ids(self, text: str) -> tuple[int, ...]:
        handle = self._transcripts.acquire(text, lambda: tuple(self._frontend.prompt_ids(text)))
        with handle:
            return handle.value


def _planned(voice: Voice) -> PlannedVoice:
    features = voice.features
    prompt = FlowPrompt(features.speech_token, features.prompt_mel, features.speaker_embedding)
    return PlannedVoice(prompt, features.content_hash)


def _sampling(request: SynthesisRequest) -> Sampling:
    """What the request says, with a seed drawn if it has none."""
    low, high = request.token_text_ratios
    return Sampling(
        draw_seed(request.seed),
        float(request.temperature),
        request.top_p,
        request.top_k,
        request.win_size,
        request.tau_r,
        float(low),
        float(high),
    )


def draw_seed(seed: int | None) -> int:
    """`seed`, or a fresh one."""
    return secrets.randbelow(MAX_SEED) if seed is None else int(seed)


def _segment_seed(sampling: Sampling, number: int) -> int:
    assert sampling.seed is not None
    return (sampling.seed + number * _SEED_STEP) & MAX_SEED
