"""From the symbols that sequences feed to the tensors of one forward."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from light_tts.llm.sequence import Symbol, SymbolKind
from light_tts.models.kv_cache import ForwardBatch
from light_tts.models.speech_lm import SpeechLM


@dataclass(frozen=True, slots=True)
class Feed:
    """What one sequence reads in the next forward.

    kv_start: first slot of the sequence
    kv_len: tokens it has in the cache already
    """

    symbols: list[Symbol]
    kv_start: int
    kv_len: int


def pack(model: SpeechLM, feeds: Iterable[Feed]) -> tuple[Tensor, ForwardBatch]:
    """The inputs of `SpeechLM.forward`: (N, hidden) embeddings and where they belong."""
    symbols: list[Symbol] = []
    spans: list[tuple[int, int, int]] = []
    for feed in feeds:
        symbols.extend(feed.symbols)
        spans.append((feed.kv_start, feed.kv_len, len(feed.symbols)))
    return embed(model, symbols), ForwardBatch.pack(spans, model.device)


def embed(model: SpeechLM, symbols: list[Symbol]) -> Tensor:
    """(N, hidden), one row per symbol."""
    rows: dict[SymbolKind, list[int]] = {}
    for row, symbol in enumerate(symbols):
        rows.setdefault(symbol.kind, []).append(row)
    if len(rows) == 1:
        return _embed_kind(model, symbols[0].kind, [symbol.id for symbol in symbols])
    out = torch.empty(len(symbols), model.cfg.qwen.hidden_size, device=model.device, dtype=model.dtype)
    for kind, indices in rows.items():
        out[indices] = _embed_kind(model, kind, [symbols[index].id for index in indices])
    return out


def _embed_kind(model: SpeechLM, kind: SymbolKind, ids: list[int]) -> Tensor:
    match kind:
        case SymbolKind.TEXT:
            return model.embed_text(torch.tensor(ids, device=model.device))
        case SymbolKind.SPEECH:
            return model.embed_speech(torch.tensor(ids, device=model.device))
        case SymbolKind.SOS:
            return model.embed_special("sos").expand(len(ids), -1)
        case SymbolKind.TASK_ID:
            return model.embed_special("task_id").expand(len(ids), -1)
