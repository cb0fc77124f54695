"""From what the encode stage planned to what the language model is asked for."""

from __future__ import annotations

from light_tts.encode.open_text import MAX_SEQUENCE_TOKENS
from light_tts.encode.planner import Plan
from light_tts.llm.request import LengthLimits, SamplingParams, SequenceRequest
from light_tts.models.config import SamplingConfig


def sequence_requests(plan: Plan, model: SamplingConfig) -> list[SequenceRequest]:
    """One for each segment of a complete text. model: its own sampling values"""
    return [_request(plan, segment.text, segment.seed, model) for segment in plan.segments]


def open_request(plan: Plan, number: int, model: SamplingConfig) -> SequenceRequest:
    """For sequence `number` of a text that arrives in pieces."""
    return _request(plan, (), plan.segment_seed(number), model, MAX_SEQUENCE_TOKENS)


def _request(
    plan: Plan, text: tuple[int, ...], seed: int, model: SamplingConfig, max_text_tokens: int | None = None
) -> SequenceRequest:
    return SequenceRequest(
        text=text,
        prompt_text=plan.voice.prompt_text,
        prompt_speech=plan.voice.prompt_speech,
        sampling=SamplingParams.asked(plan.sampling, seed, model),
        limits=LengthLimits.asked(plan.sampling),
        max_text_tokens=max_text_tokens,
    )
