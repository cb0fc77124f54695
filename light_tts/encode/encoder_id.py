"""Which encoders a voice's numbers come from: those of one model mean nothing to another."""

from __future__ import annotations

import hashlib
from pathlib import Path

from light_tts.models.config import ModelConfig

_NUM_BLOCKS = 64
_BLOCK_BYTES = 16_384


def encoder_id(model_dir: Path, config: ModelConfig) -> str:
    """16 hex digits that differ where the speech tokenizer or the speaker encoder does; "" if one is missing.

    Of each file its size and 64 blocks spread over it are looked at: the tokenizer has half a gigabyte, and other
    weights of the same size differ in every block.
    """
    digest = hashlib.sha256()
    try:
        for name in (f"speech_tokenizer_v{config.version}.onnx", "campplus.onnx"):
            _add(digest, model_dir / name)
    except OSError:
        return ""
    mel = config.mel
    digest.update(f"{mel.sampling_rate} {config.flow.vocab_size} {config.flow.token_mel_ratio}".encode())
    return digest.hexdigest()[:16]


def _add(digest: hashlib._Hash, path: Path) -> None:
    size = path.stat().st_size
    digest.update(str(size).encode())
    with path.open("rb") as file:
        for number in range(_NUM_BLOCKS):
            file.seek(max(0, size - _BLOCK_BYTES) * number // (_NUM_BLOCKS - 1))
            digest.update(file.read(_BLOCK_BYTES))
