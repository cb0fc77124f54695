"""voices: the built-in voices of a model directory, from the recordings that were made for them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from light_tts.decode.stream import HopPlan, HopSchedule
from light_tts.encode.audio import load_audio
from light_tts.encode.prompt_encoder import PromptEncoder
from light_tts.encode.voice_file import Voice, VoiceInfo
from light_tts.encode.voices import VoiceStore
from light_tts.models.model_yaml import read_model_config
from recipes.mini.errors import RecipeError
from recipes.mini.recordings import RECORDINGS, VoicePlan, voice_plans

logger = logging.getLogger(__name__)

SOURCE = "synthetic: Kokoro-82M (Apache-2.0), read for this purpose"
MOST_FIRST_TOKENS = 15  # of a stream's first chunk: more would delay it


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
        features = encoder.encode(load_audio(path.read_bytes()))
        first = first_chunk_tokens(len(features.speech_token))
        if first > MOST_FIRST_TOKENS:
            raise RecipeError(
                f"{plan.name}: {len(features.speech_token)} tokens make a stream's first chunk {first} tokens long, "
                f"limit {MOST_FIRST_TOKENS}"
            )
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


def first_chunk_tokens(prompt_tokens: int) -> int:
    """New tokens in the first chunk of a stream after such a prompt."""
    plan = HopPlan()
    return HopSchedule(plan, prompt_tokens).tokens_wanted() - plan.lookahead
