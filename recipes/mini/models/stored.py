"""Weights as they are shipped: matrices in 8 bits with one scale per output, or in half precision.

What is trained on codes and embeddings must see those that the shipped files give, so the rounding happens once,
before the corpus is encoded; the same stored weights then become the ONNX file.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from recipes.mini.errors import RecipeError

Precision = Literal["int8", "float16"]

_SCALE = ".scale"


@dataclass(frozen=True, slots=True)
class StoredWeights:
    """values: by name; int8 ones have a scale, (outputs, 1, ...) float32."""

    values: dict[str, Tensor]
    scales: dict[str, Tensor]

    def floats(self) -> dict[str, Tensor]:
        """float32, as the ONNX file computes them."""
        return {
            name: value.float() * self.scales[name] if name in self.scales else value.float()
            for name, value in self.values.items()
        }

    def digest(self) -> str:
        """Tells one set of weights from another."""
        together = sha256()
        for group in (self.values, self.scales):
            for name in sorted(group):
                together.update(name.encode() + group[name].numpy().tobytes())
        return together.hexdigest()[:16]

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.tmp")
        save_file(self.values | {f"{name}{_SCALE}": scale for name, scale in self.scales.items()}, partial)
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> StoredWeights:
        """Raises RecipeError if the file is missing or damaged."""
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise RecipeError(f"{path} holds no weights: {error}") from error
        scales = {name.removesuffix(_SCALE): v for name, v in tensors.items() if name.endswith(_SCALE)}
        return cls({name: v for name, v in tensors.items() if not name.endswith(_SCALE)}, scales)


def store(weights: dict[str, Tensor], precision: Precision) -> StoredWeights:
    """Round matrices (what has two dimensions or more); biases and norms stay float32.

    Raises RecipeError if a weight is not finite.
    """
    values: dict[str, Tensor] = {}
    scales: dict[str, Tensor] = {}
    for name, value in weights.items():
        value = value.detach().float().cpu()
        if not bool(value.isfinite().all()):
            raise RecipeError(f"weight {name} is not finite")
        if value.ndim < 2:
            values[name] = value.clone()
        elif precision == "float16":
            values[name] = value.half()
        else:
            largest = value.flatten(1).abs().amax(dim=1).clamp(min=1e-8)
            scale = (largest / 127.0).view(-1, *[1] * (value.ndim - 1))
            values[name] = (value / scale).round().to(torch.int8).contiguous()
            scales[name] = scale
    return StoredWeights(values, scales)
