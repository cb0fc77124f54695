"""Weights of a model directory as plain tensors: safe to open, mapped from disk, weight norm folded in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from light_tts.errors import CorruptFile, ModelNotFound, WeightMismatch
from light_tts.models.torch_archive import load_torch_archive

Part = Literal["llm", "flow", "hift"]
PARTS: tuple[Part, ...] = get_args(Part)
LM_HEAD = "llm.model.lm_head.weight"
EMBED_TOKENS = "llm.model.model.embed_tokens.weight"
TRAINING_KEYS = {"epoch", "step", "optimizer", "scheduler", "lr"}

# Weight norm's magnitude g and direction v: today's spelling and the one before torch 2.
MAGNITUDE = re.compile(r"(.+)\.(?:parametrizations\.weight\.original0|weight_g)")
DIRECTION = re.compile(r"(.+)\.(?:parametrizations\.weight\.original1|weight_v)")


def find_checkpoint(model_dir: Path, part: Part) -> Path:
    """`PART.safetensors` if it is there, else `PART.pt`. Raises ModelNotFound."""
    for name in (f"{part}.safetensors", f"{part}.pt"):
        if (model_dir / name).is_file():
            return model_dir / name
    raise ModelNotFound(f"{model_dir} holds neither {part}.safetensors nor {part}.pt")


def open_checkpoint(path: Path) -> dict[str, Tensor]:
    """The file's tensors under their own names, mapped from disk: memory is used as they are touched.

    A file that changes while it is mapped changes the model or ends the process: replace it by renaming.
    Raises UnsafeFile, CorruptFile, or WeightMismatch if there is anything but tensors.
    """
    try:
        loaded = load_file(path) if path.suffix == ".safetensors" else load_torch_archive(path)
    except (SafetensorError, OSError) as error:
        raise CorruptFile(f"{path} is truncated or damaged: {error}") from error
    if not isinstance(loaded, dict):
        raise CorruptFile(f"{path} holds a {type(loaded).__name__}, not a dictionary of tensors")
    if training := sorted(TRAINING_KEYS & {str(key) for key in loaded}):
        raise WeightMismatch(
            f"{path} is a training checkpoint (it has {', '.join(training)}): export its weights"
        )
    return {str(name): _checked(path, str(name), value) for name, value in loaded.items()}


def _checked(path: Path, name: str, value: object) -> Tensor:
    if not isinstance(value, Tensor):
        raise WeightMismatch(f"{path}: {name[:100]!r} is a {type(value).__name__}, must be a tensor")
    if value.layout != torch.strided or not value.is_floating_point():
        raise WeightMismatch(f"{path}: {name[:100]!r} is {value.dtype} {value.layout}, must be dense numbers")
    value = value.detach()
    # Overlapping strides would let a small file describe a tensor of any size.
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise CorruptFile(f"{path}: {name[:100]!r} has shape {list(value.shape)} but not as many numbers")
    return value


def read_weights(model_dir: Path, part: Part) -> dict[str, Tensor]:
    """The weights of one part under the names that this project's modules have.

    Raises ModelNotFound, UnsafeFile, CorruptFile, or WeightMismatch.
    """
    path = find_checkpoint(model_dir, part)
    return plain_weights(part, open_checkpoint(path), path)


def plain_weights(part: Part, raw: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """`raw` with the training-time spelling undone; folded weights are float32. `path` is for messages.

    Tensors that need no change are passed on, still mapped.
    """
    if part == "llm":
        return _without_lm_head(raw, path)
    if part == "hift":
        return _fold_weight_norm(_without_wrapper(raw, path), path)
    return raw


def _without_lm_head(raw: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Qwen's own head is stored with the weights, tied to the embedding, and never used."""
    if LM_HEAD in raw and EMBED_TOKENS in raw and raw[LM_HEAD].shape != raw[EMBED_TOKENS].shape:
        shapes = f"{list(raw[LM_HEAD].shape)}, {EMBED_TOKENS} {list(raw[EMBED_TOKENS].shape)}"
        raise WeightMismatch(f"{path}: {LM_HEAD} has shape {shapes}; they must be the same")
    return {name: value for name, value in raw.items() if name != LM_HEAD}


def _without_wrapper(raw: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Drop the name of the GAN wrapper that a vocoder was trained in."""
    stripped = {name.replace("generator.", ""): value for name, value in raw.items()}
    if len(stripped) != len(raw):
        raise WeightMismatch(f"{path}: keys with and without 'generator.' name the same weights")
    return stripped


def _fold_weight_norm(raw: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Replace each pair of magnitude g and direction v by weight = g * v / |v|."""
    magnitudes = {match[1]: raw[name] for name in raw if (match := MAGNITUDE.fullmatch(name))}
    directions = {match[1]: raw[name] for name in raw if (match := DIRECTION.fullmatch(name))}
    if unpaired := sorted(magnitudes.keys() ^ directions.keys()):
        raise WeightMismatch(f"{path}: weight norm of {unpaired[0]} has only one of its two tensors")
    weights = {n: v for n, v in raw.items() if not (MAGNITUDE.fullmatch(n) or DIRECTION.fullmatch(n))}
    for name, magnitude in magnitudes.items():
        if f"{name}.weight" in weights:
            raise WeightMismatch(f"{path}: {name} has both a weight and weight norm")
        weights[f"{name}.weight"] = _folded(name, magnitude, directions[name], path)
    return weights


def _folded(name: str, magnitude: Tensor, direction: Tensor, path: Path) -> Tensor:
    """The norm runs over all dimensions but the first, which for a transposed convolution is its *input*."""
    if direction.ndim < 2 or magnitude.shape != (direction.shape[0],) + (1,) * (direction.ndim - 1):
        shapes = f"{list(magnitude.shape)} and {list(direction.shape)}"
        raise WeightMismatch(
            f"{path}: weight norm of {name} has shapes {shapes}, which do not belong together"
        )
    direction = direction.float()
    norm = torch.linalg.vector_norm(direction, dim=tuple(range(1, direction.ndim)), keepdim=True)
    return direction * (magnitude.float() / norm)
