"""Everything in a model directory beside the weights: configuration, tokenizer, ONNX models, voices."""

from __future__ import annotations

from pathlib import Path

import torch

from light_tts.doctor.findings import Diagnosis
from light_tts.encode.prompt_encoder import PromptEncoder
from light_tts.encode.tokenizer import TextTokenizer
from light_tts.encode.voice_catalog import VoiceCatalog
from light_tts.errors import LightTTSError
from light_tts.models.config import ModelConfig
from light_tts.models.model_yaml import QWEN_DIR, YAML_NAMES, read_model_config
from light_tts.models.speaker_encoder import SpeakerEncoder
from light_tts.models.speech_tokenizer import SpeechTokenizer

NUM_FRAMES = 100  # 1 s
MAX_VOICES = 50
VOICE_SOURCES = ("voices", "prompts.json", "spk2info.pt")
SAMPLE_TEXT = "Hello, 你好。"


def check_config(diagnosis: Diagnosis, model_dir: Path) -> ModelConfig | None:
    """Findings on yaml and Qwen's config.json; None if they cannot be used."""
    try:
        config = read_model_config(model_dir)
    except LightTTSError as error:
        diagnosis.error("config", error)
        return None
    llm, qwen = config.llm, config.llm.qwen
    diagnosis.ok(
        "config",
        f"{YAML_NAMES[config.version]}: CosyVoice{config.version}, {qwen.num_hidden_layers} layers of "
        f"{qwen.hidden_size}, {llm.speech_token_size} speech tokens",
    )
    return config


def check_tokenizer(diagnosis: Diagnosis, model_dir: Path, config: ModelConfig) -> None:
    """Can text be turned into ids that the language model knows?"""
    try:
        tokenizer = TextTokenizer.from_model_dir(model_dir / QWEN_DIR, config.version)
        tokenizer.check_fits(config.llm.qwen.vocab_size)
        num_ids = len(tokenizer.encode(SAMPLE_TEXT))
    except LightTTSError as error:
        diagnosis.error("tokenizer", error)
        return
    if not num_ids:
        diagnosis.error("tokenizer", f"{SAMPLE_TEXT!r} becomes no token at all")
        return
    diagnosis.ok(
        "tokenizer",
        f"{tokenizer.vocab_size} tokens, {len(tokenizer.special_ids)} of them special; "
        f"the embedding has {config.llm.qwen.vocab_size} rows",
    )
    if config.version == 3 and tokenizer.end_of_prompt_id is None:
        diagnosis.error("tokenizer", "<|endofprompt|> is missing, which CosyVoice3 needs in every prompt")


def check_onnx(diagnosis: Diagnosis, model_dir: Path, config: ModelConfig) -> None:
    """Run both models on a second of noise; what they return is checked by their wrappers."""
    noise = torch.Generator().manual_seed(0)
    tokenizer_path = model_dir / f"speech_tokenizer_v{config.version}.onnx"
    try:
        tokens = SpeechTokenizer(tokenizer_path, config.flow.vocab_size)(
            torch.randn(128, NUM_FRAMES, generator=noise)
        )
        diagnosis.ok("speech tokenizer", f"{tokenizer_path.name} makes {len(tokens)} tokens of 1 s")
    except LightTTSError as error:
        diagnosis.error("speech tokenizer", error)
    try:
        encoder = SpeakerEncoder(model_dir / "campplus.onnx", config.spk_embed_dim)
        embedding = encoder(torch.randn(NUM_FRAMES, 80, generator=noise))
        diagnosis.ok("speaker encoder", f"campplus.onnx makes a vector of {len(embedding)} numbers of 1 s")
    except LightTTSError as error:
        diagnosis.error("speaker encoder", error)


def check_voices(diagnosis: Diagnosis, model_dir: Path, config: ModelConfig) -> None:
    """Can every voice that comes with the model be used?"""
    if not any((model_dir / name).exists() for name in VOICE_SOURCES):
        diagnosis.ok("voices", "none of its own: the model speaks with the voice of a recording")
        return
    try:
        encoder = PromptEncoder(model_dir, config)
    except LightTTSError:
        diagnosis.warn("voices", "not checked: recordings cannot be encoded")
        return
    usable = []
    try:
        catalog = VoiceCatalog(model_dir, encoder, config.spk_embed_dim, None, 1)
        for voice in catalog.list()[:MAX_VOICES]:
            try:
                catalog.get(voice.name)
                usable.append(voice.name)
            except LightTTSError as error:
                diagnosis.error("voices", f"{voice.name}: {error}")
    except LightTTSError as error:
        diagnosis.error("voices", error)
    if usable:
        diagnosis.ok("voices", f"{len(usable)} can be used: {', '.join(usable)}")
