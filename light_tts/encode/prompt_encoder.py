"""A reference recording becomes what the models take from it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from light_tts.audio import Audio, content_hash
from light_tts.encode.audio import AudioLimits, check_audio
from light_tts.encode.encoder_id import encoder_id
from light_tts.encode.features import (
    SPEECH_RATE_HZ,
    PromptFeatures,
    prompt_mel,
    speaker_fbank,
    whisper_log_mel,
)
from light_tts.encode.resample import resample
from light_tts.models.config import ModelConfig
from light_tts.models.speaker_encoder import SpeakerEncoder
from light_tts.models.speech_tokenizer import SpeechTokenizer


class PromptEncoder:
    """Speech tokens, mel and speaker embedding of recordings. May be called from several threads at once.

    device: of the two ONNX models: "cpu", "cuda" or "cuda:1"
    intra_op_threads: CPU threads of each of them
    identity: see `encoder_id`
    Raises ModelNotFound, CorruptFile or UnsafeFile.
    """

    def __init__(
        self,
        model_dir: Path,
        config: ModelConfig,
        *,
        limits: AudioLimits | None = None,
        device: str = "cpu",
        intra_op_threads: int = 1,
    ) -> None:
        self._config = config
        self.identity = encoder_id(model_dir, config)
        self._limits = limits or AudioLimits()
        tokenizer = model_dir / f"speech_tokenizer_v{config.version}.onnx"
        vocab_size = config.flow.vocab_size
        self._tokenizer = SpeechTokenizer(tokenizer, vocab_size, device, intra_op_threads)
        self._speaker_encoder = SpeakerEncoder(
            model_dir / "campplus.onnx", config.spk_embed_dim, device, intra_op_threads
        )

    def encode(self, audio: Audio, trim: bool = True) -> PromptFeatures:
        """trim: cut tokens and mel to the same length, as all modes but voice conversion need it.

        Raises InvalidAudio, PromptTooShort, PromptTooLong; CorruptFile if a model's answer cannot be used.
        """
        check_audio(audio, self._limits)
        mel_config = self._config.mel
        at_16k = self._resampled(audio, SPEECH_RATE_HZ)
        tokens = self._tokenizer(whisper_log_mel(at_16k))
        embedding = self._speaker_encoder(speaker_fbank(at_16k))
        mel = prompt_mel(self._resampled(audio, mel_config.sampling_rate), mel_config)
        if trim:
            tokens, mel = align(tokens, mel, self._config.flow.token_mel_ratio)
        return PromptFeatures(tokens, mel, embedding, content_hash(audio), audio.duration_s)

    def tokenize_source(self, audio: Audio) -> Tensor:
        """(n,) int64 speech tokens of a recording whose voice is to be converted; same limits as a prompt."""
        check_audio(audio, self._limits)
        return self._tokenizer(whisper_log_mel(self._resampled(audio, SPEECH_RATE_HZ)))

    @staticmethod
    def _resampled(audio: Audio, rate_hz: int) -> Tensor:
        return resample(torch.from_numpy(audio.samples), audio.sample_rate_hz, rate_hz)


def align(tokens: Tensor, mel: Tensor, mel_per_token: int) -> tuple[Tensor, Tensor]:
    """Cut (n,) tokens and (m, 80) mel at their ends, so that m = n * mel_per_token."""
    num_tokens = min(len(mel) // mel_per_token, len(tokens))
    return tokens[:num_tokens].clone(), mel[: num_tokens * mel_per_token].clone()
