"""Between the encode process's messages and what it works with."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from light_tts.encode.open_text import MAX_SEQUENCE_TOKENS, TextStep
from light_tts.encode.planner import Plan
from light_tts.encode.request_state import OpenSpeech
from light_tts.messages import LlmTask, Message, Synthesize, TextIds, VoiceFeatures
from light_tts.request import SynthesisRequest


def request_of(message: Synthesize) -> SynthesisRequest:
    """Raises InvalidInput. Empty strings are fields that were left empty."""
    sampling = message.sampling
    return SynthesisRequest(
        text=message.text,
        voice=message.voice or None,
        prompt_audio=message.prompt_wav,
        prompt_text=message.prompt_text or None,
        instruct_text=message.instruct_text or None,
        seed=sampling.seed,
        speed=message.speed,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        win_size=sampling.win_size,
        tau_r=sampling.tau_r,
        min_token_text_ratio=sampling.min_token_text_ratio,
        max_token_text_ratio=sampling.max_token_text_ratio,
        normalise=message.normalise,
        allow_tags=message.allow_tags,
        mode=message.mode,
    )


def task_of(
    message: Synthesize,
    plan: Plan,
    voice: VoiceFeatures,
    number: int,
    text: tuple[int, ...],
    max_text_tokens: int | None = None,
) -> LlmTask:
    seed = plan.segment_seed(number)
    return LlmTask(
        request_id=message.request_id,
        reply_to=message.reply_to,
        deadline_s=message.deadline_s,
        segment=number,
        text=text,
        prompt_text=plan.voice.prompt_text,
        prompt_speech=plan.voice.prompt_speech,
        seed=seed,
        sampling=msgspec.structs.replace(plan.sampling, seed=seed),
        voice=voice,
        stream=message.stream,
        speed=plan.speed,
        max_text_tokens=max_text_tokens,
        end_of_prompt_id=plan.frontend.end_of_prompt_id,
    )


def step_messages(message: Synthesize, speech: OpenSpeech, step: TextStep) -> Iterator[Message]:
    """What the LLM process is told of more text."""
    if step.opens:
        yield task_of(message, speech.plan, speech.voice, step.sequence, step.ids, MAX_SEQUENCE_TOKENS)
        if step.ends:
            yield TextIds(message.request_id, step.sequence, (), end=True)
    else:
        yield TextIds(message.request_id, step.sequence, step.ids, step.ends)
