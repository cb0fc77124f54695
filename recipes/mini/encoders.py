"""The two encoders once they are frozen: what the corpus is encoded with is what is shipped.

WORK/encoders/ holds their weights as stored in the exported files. As long as they lie there, the tokenizer and the
speaker encoder are not trained any further, since codes and embeddings that others learn from would lose their meaning.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from recipes.mini.errors import RecipeError
from recipes.mini.models.encoders_onnx import export_speaker, export_tokenizer
from recipes.mini.models.speaker import SpeakerNet, SpeakerShape, folded, plain_speaker_net
from recipes.mini.models.stored import Precision, StoredWeights, store
from recipes.mini.models.tokenizer import TokenEncoder, TokenizerShape
from recipes.mini.settings import Settings, SpeakerSettings, TokenizerSettings
from recipes.mini.train.checkpoint import load_latest
from recipes.mini.train.train_state import averaged_weights

logger = logging.getLogger(__name__)

TOKENIZER, SPEAKER = "tokenizer", "speaker"  # names of stages and of files
ENCODER = "encoder"  # of either stage: the averaged module that is shipped


@dataclass(frozen=True, slots=True, eq=False)
class FrozenEncoders:
    """Stored weights, and modules on the device that compute with exactly those."""

    tokenizer_shape: TokenizerShape
    speaker_shape: SpeakerShape
    tokenizer_weights: StoredWeights
    speaker_weights: StoredWeights
    tokenizer: TokenEncoder
    speaker: SpeakerNet

    def write_tokenizer(self, path: Path) -> None:
        """The released interface of `speech_tokenizer_v2.onnx`."""
        export_tokenizer(self.tokenizer_shape, self.tokenizer_weights, path)

    def write_speaker(self, path: Path) -> None:
        """The released interface of `campplus.onnx`."""
        export_speaker(self.speaker_shape, self.speaker_weights, path)


def tokenizer_shape(s: TokenizerSettings) -> TokenizerShape:
    return TokenizerShape(s.width, s.blocks, s.heads, s.inner)


def speaker_shape(s: SpeakerSettings) -> SpeakerShape:
    return SpeakerShape(s.width, s.blocks, s.pooled)


def frozen_path(work: Path, stage: str) -> Path:
    return work / "encoders" / f"{stage}.safetensors"


def is_frozen(work: Path, stage: str) -> bool:
    path = frozen_path(work, stage)
    if path.exists():
        logger.info("%s: frozen in %s, the corpus is encoded with it", stage, path)
    return path.exists()


def freeze(settings: Settings, work: Path, checkpoints: Path) -> None:
    """Store the newest averages of both encoders, unless they are frozen already.

    Raises RecipeError if there is no checkpoint.
    """
    for stage, precision in (
        (TOKENIZER, settings.tokenizer.precision),
        (SPEAKER, settings.speaker.precision),
    ):
        path = frozen_path(work, stage)
        if path.exists():
            continue
        checkpoint = load_latest(checkpoints / stage)
        if checkpoint is None:
            raise RecipeError(f"{checkpoints / stage} holds no checkpoint (train {stage})")
        weights = averaged_weights(checkpoint, ENCODER)
        store(folded(weights) if stage == SPEAKER else weights, _precision(precision)).save(path)
        logger.info("%s: frozen at step %d", stage, checkpoint.step)


def load_frozen(settings: Settings, work: Path, device: torch.device) -> FrozenEncoders:
    """Raises RecipeError if they are missing (`extract` freezes them) or of other settings."""
    token_shape, voice_shape = tokenizer_shape(settings.tokenizer), speaker_shape(settings.speaker)
    token_weights, voice_weights = (
        StoredWeights.load(frozen_path(work, name)) for name in (TOKENIZER, SPEAKER)
    )
    try:
        tokenizer = _token_encoder(token_shape, token_weights.floats())
        speaker = plain_speaker_net(voice_shape, voice_weights.floats())
    except RuntimeError as error:
        raise RecipeError(f"{work}: the frozen encoders are not of these settings: {error}") from error
    return FrozenEncoders(
        token_shape, voice_shape, token_weights, voice_weights, tokenizer.to(device), speaker.to(device)
    )


def _token_encoder(shape: TokenizerShape, weights: dict[str, Tensor]) -> TokenEncoder:
    encoder = TokenEncoder(shape)
    encoder.load_state_dict(weights)
    return encoder.requires_grad_(False).eval()


def _precision(name: str) -> Precision:
    for known in get_args(Precision):
        if name == known:
            return known  # type: ignore[no-any-return]
    raise RecipeError(f"precision is {name!r}, must be one of {', '.join(get_args(Precision))}")
