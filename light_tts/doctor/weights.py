"""The three checkpoints of a model directory: do they fit the yaml, and are their numbers numbers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import psutil
import torch
from torch import Tensor

from light_tts.doctor.findings import Diagnosis
from light_tts.errors import LightTTSError
from light_tts.models.checkpoint import (
    EMBED_TOKENS,
    LM_HEAD,
    PARTS,
    Part,
    find_checkpoint,
    open_checkpoint,
    plain_weights,
)
from light_tts.models.config import ModelConfig
from light_tts.models.loader import build, compare

CHUNK = 1 << 22  # numbers looked at together, 16 MB in float32
MAX_KEYS = 20


def check_weights(
    diagnosis: Diagnosis, model_dir: Path, config: ModelConfig | None, *, verbose: bool
) -> None:
    """Findings on llm, flow and hift; without a configuration, only on the files themselves."""
    total = 0
    for part in PARTS:
        try:
            path = find_checkpoint(model_dir, part)
            raw = open_checkpoint(path)
        except LightTTSError as error:
            diagnosis.error(part, error)
            continue
        diagnosis.ok(part, _summary(path, raw))
        total += _num_parameters(raw)
        _check_numbers(diagnosis, part, raw)
        _check_fit(diagnosis, part, raw, path, config, verbose=verbose)
        if part == "llm":
            _check_lm_head(diagnosis, raw)
    if total:
        _report_size(diagnosis, total)


def _report_size(diagnosis: Diagnosis, num_parameters: int) -> None:
    needed, available = 4 * num_parameters, psutil.virtual_memory().available
    text = f"{num_parameters / 1e6:.1f} million parameters, {needed / 1e9:.2f} GB in float32"
    if needed > available:
        diagnosis.warn("weights", f"{text}, but only {available / 1e9:.2f} GB of memory are available")
    else:
        diagnosis.ok("weights", text)


def _summary(path: Path, raw: dict[str, Tensor]) -> str:
    dtypes = Counter(str(value.dtype).removeprefix("torch.") for value in raw.values())
    kinds = ", ".join(f"{count} {dtype}" for dtype, count in dtypes.most_common())
    return f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, {len(raw)} tensors ({kinds})"


def _num_parameters(raw: dict[str, Tensor]) -> int:
    """Without the language model's unused second copy of its embedding."""
    return sum(value.numel() for name, value in raw.items() if name != LM_HEAD)


def _check_fit(
    diagnosis: Diagnosis,
    part: Part,
    raw: dict[str, Tensor],
    path: Path,
    config: ModelConfig | None,
    *,
    verbose: bool,
) -> None:
    """Key by key, after weight norm and prefixes are undone."""
    try:
        weights = plain_weights(part, raw, path)
        if config is None:
            diagnosis.warn(part, "not compared with the model: its configuration cannot be read")
            return
        difference = compare(build(part, config), weights)
    except LightTTSError as error:
        diagnosis.error(part, error)
        return
    if difference:
        lines = tuple(difference.lines(None if verbose else MAX_KEYS))
        diagnosis.error(
            part, f"{path.name} does not fit the yaml: weights are missing, unexpected or misshapen", lines
        )
        return
    diagnosis.ok(part, f"all {len(weights)} weights fit the yaml")
    if part == "hift":  # a zero direction only becomes NaN when weight norm is folded
        _check_numbers(diagnosis, part, {name: weights[name] for name in weights if name not in raw})


def _check_numbers(diagnosis: Diagnosis, part: Part, weights: dict[str, Tensor]) -> None:
    bad = tuple(name for name, value in weights.items() if not is_finite(value))
    if bad:
        details = bad[:MAX_KEYS] + ((f"... and {len(bad) - MAX_KEYS} more",) if len(bad) > MAX_KEYS else ())
        diagnosis.error(part, f"{len(bad)} tensors hold NaN or infinite numbers", details)


def is_finite(value: Tensor) -> bool:
    """Whether all numbers are, in pieces, so that a mapped file need not fit into memory."""
    flat = value.flatten() if value.is_contiguous() else value.contiguous().flatten()
    for start in range(0, flat.numel(), CHUNK):
        piece = flat[start : start + CHUNK]
        # A sum is quicker than a look at each number; only if it is not finite may one of them be the reason.
        if not bool(piece.sum(dtype=torch.float32).isfinite()) and not bool(piece.isfinite().all()):
            return False
    return True


def _check_lm_head(diagnosis: Diagnosis, raw: dict[str, Tensor]) -> None:
    if LM_HEAD not in raw or EMBED_TOKENS not in raw:
        return
    head, embedding = raw[LM_HEAD], raw[EMBED_TOKENS]
    if head.shape != embedding.shape or head.data_ptr() == embedding.data_ptr():
        return  # a wrong shape is reported with the weights; one memory is what tying means
    if not torch.equal(head, embedding):
        diagnosis.warn("llm", f"{LM_HEAD} differs from {EMBED_TOKENS}; it is not used")
