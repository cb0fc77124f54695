"""voices: the built-in voices of a model directory, from the recordings that were made for them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from light_tts.audio import Audio
from light_tts.decode.stream import HopPlan, HopSchedule
from light_tts.encode.audio import load_audio
from light_tts.encode.prompt_encoder import PromptEncoder
from light_tts.encode.voice_file import Voice, VoiceInfo
from light_tts.encode.voices import VoiceStore
from light_tts.models.model_yaml import read_model_config
from recipes.mini.corpus import TOKEN
from recipes.mini.errors import RecipeError
from recipes.mini.recordings import RECORDINGS, VoicePlan, voice_plans
from recipes.mini.settings import SAMPLE_RATE

logger = logging.getLogger(__name__)

SOURCE = "synthetic: Kokoro-82M (Apache-2.0), read for this purpose"
QUIET = 0.01  # full scale is 1
EDGE_S = 0.02  # of silence that stays before the speech
MOST_FIRST_TOKENS = 20  # of a stream's first chunk: more would delay it


def make_voices(work: Path, model_dir: Path, plans: Sequence[VoicePlan] | None = None) -> list[str]:
    """Encode every recording with the directory's own models; returns the names. plans: None is voices.json

    Raises RecipeError if a recording is missing, or makes a stream's first chunk late.
    """
    plans = voice_plans() if plans is None else plans
    config = read_model_config(model_dir)
    encoder = PromptEncoder(model_dir, config)
    store = VoiceStore(model_dir / "voices", config.spk_embed_dim)
    for plan in plans:
        path = work / RECORDINGS / f"{plan.name}.wav"
        if not path.is_file():
            raise RecipeError(f"{path} does not exist (record makes it)")
        features = encoder.encode(_cut(plan.name, load_audio(path.read_bytes())))
        first = first_chunk_tokens(len(features.speech_token))
        info = VoiceInfo(
            name=plan.name,
            prompt_text=plan.text,
            language=plan.language,
            description=plan.description,
            source=SOURCE,
        )
        store.save(Voice(info, features))
        logger.info("%s: %d tokens, first chunk of a stream %d", plan.name, len(features.speech_token), first)
    return [plan.name for plan in plans]


def _cut(name: str, audio: Audio) -> Audio:
    """Without so much of the silence around it that a stream's first chunk is short. Raises RecipeError."""
    samples, rate = audio.samples, audio.sample_rate_hz
    token = TOKEN * rate // SAMPLE_RATE
    tokens = len(samples) // token
    wanted = next((n for n in range(tokens, 0, -1) if first_chunk_tokens(n) <= MOST_FIRST_TOKENS), 0)
    heard = np.flatnonzero(np.abs(samples) > QUIET)
    if not wanted or not len(heard):
        raise RecipeError(f"{name}: a recording of {audio.duration_s:.2f} s is no prompt")
    surplus = len(samples) - wanted * token
    start = min(max(0, int(heard[0]) - round(EDGE_S * rate)), surplus)
    if len(samples) - (surplus - start) < heard[-1]:
        raise RecipeError(
            f"{name}: {tokens} tokens make a stream's first chunk {first_chunk_tokens(tokens)} tokens long, limit "
            f"{MOST_FIRST_TOKENS}, and there is not enough silence to cut"
        )
    return Audio(samples[start : start + wanted * token], rate)


def first_chunk_tokens(prompt_tokens: int) -> int:
    """New tokens in the first chunk of a stream after such a prompt."""
    plan = HopPlan()
    return HopSchedule(plan, prompt_tokens).tokens_wanted() - plan.lookahead
