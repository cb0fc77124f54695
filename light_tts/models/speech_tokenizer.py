"""The released speech tokenizer: log-mel in, speech tokens at 25 Hz out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from light_tts.errors import CorruptFile, PromptTooLong
from light_tts.models.onnx_session import OnnxModel, load_onnx

MAX_FRAMES = 3000  # 30 s at 100 Hz


class SpeechTokenizer:
    """`speech_tokenizer_v2.onnx` or `speech_tokenizer_v3.onnx`. May be called from several threads at once.

    vocab_size: number of speech tokens that the other models know
    Raises ModelNotFound, CorruptFile or UnsafeFile.
    """

    def __init__(self, path: Path, vocab_size: int, device: str = "cpu", intra_op_threads: int = 1) -> None:
        self._model: OnnxModel = load_onnx(path, 2, device, intra_op_threads)
        self._vocab_size = vocab_size

    def __call__(self, log_mel: Tensor) -> Tensor:
        """log_mel: (128, T) float32 at 100 Hz. Returns (n,) int64, n = ceil(ceil(T / 2) / 2).

        Raises PromptTooLong; CorruptFile if the model's answer is not of its kind.
        """
        num_frames = log_mel.shape[1]
        if num_frames > MAX_FRAMES:
            raise PromptTooLong(f"the audio has {num_frames / 100:.1f} s, limit {MAX_FRAMES // 100} s")
        indices = self._model.run(log_mel[None].numpy(), np.array([num_frames], dtype=np.int32))
        expected = (num_frames + 3) // 4
        if indices.size != expected or not np.issubdtype(indices.dtype, np.integer):
            shape = f"{indices.dtype}{list(indices.shape)}"
            raise CorruptFile(
                f"{self._model.path} gave {shape} for {num_frames} frames, not {expected} integers"
            )
        if indices.size and not 0 <= indices.min() <= indices.max() < self._vocab_size:
            worst = indices.min() if indices.min() < 0 else indices.max()
            limit = self._vocab_size - 1
            raise CorruptFile(
                f"{self._model.path} gave speech token {worst}; the model directory knows 0 to {limit}"
            )
        return torch.from_numpy(indices.reshape(-1).astype(np.int64))
