"""The released speaker encoder: filter-bank energies in, one vector that tells speakers apart out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from light_tts.errors import CorruptFile
from light_tts.models.onnx_session import OnnxModel, load_onnx


class SpeakerEncoder:
    """`campplus.onnx`. May be called from several threads at once.

    Raises ModelNotFound, CorruptFile or UnsafeFile.
    """

    def __init__(self, path: Path, embed_dim: int, device: str = "cpu", intra_op_threads: int = 1) -> None:
        self._model: OnnxModel = load_onnx(path, 1, device, intra_op_threads)
        self._embed_dim = embed_dim

    def __call__(self, fbank: Tensor) -> Tensor:
        """fbank: (T, 80) float32 at 100 Hz, mean over time removed. Returns (embed_dim,) float32.

        Raises CorruptFile if the model's answer is not of its kind.
        """
        output = self._model.run(fbank[None].numpy())
        if output.size != self._embed_dim or not np.issubdtype(output.dtype, np.floating):
            shape = f"{output.dtype}{list(output.shape)}"
            raise CorruptFile(f"{self._model.path} gave {shape}, not {self._embed_dim} numbers")
        embedding = torch.from_numpy(output.reshape(-1).astype(np.float32))
        if not bool(torch.isfinite(embedding).all()):
            raise CorruptFile(f"{self._model.path} gave numbers that are not finite")
        return embedding
