"""The language model from text tokens to speech tokens."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

from light_tts.models.config import SpeechLMConfig
from light_tts.models.kv_cache import ForwardBatch, KVCache
from light_tts.models.qwen2 import FusedLinear, Qwen2Model, project
from light_tts.models.qwen2_cpu import FlatQwen2


class SpeechLM(nn.Module):
    """Qwen2 with an embedding and a head for speech tokens.

    Checkpoint keys: `llm.model.model.*` (Qwen2), `speech_embedding`, `llm_decoder`, and in version 2
    `llm_embedding` (rows sos, task_id). The checkpoint's `llm.model.lm_head` is a copy of `embed_tokens` that
    nothing reads; it is not a parameter here.
    """

    def __init__(self, cfg: SpeechLMConfig) -> None:
        super().__init__()
        self.cfg = cfg
        hidden, num_ids = cfg.qwen.hidden_size, cfg.speech_token_size + cfg.num_extra_ids
        self.llm = nn.ModuleDict({"model": nn.ModuleDict({"model": Qwen2Model(cfg.qwen)})})
        self.speech_embedding = nn.Embedding(num_ids, hidden)
        self.llm_embedding = nn.Embedding(2, hidden) if cfg.version == 2 else None
        self.llm_decoder = nn.Linear(hidden, num_ids, bias=cfg.version == 2)
        self._head: FusedLinear | None = None
        self._flat: FlatQwen2 | None = None

    @property
    def qwen(self) -> Qwen2Model:
        return cast(Qwen2Model, cast(nn.ModuleDict, self.llm["model"])["model"])

    @property
    def device(self) -> torch.device:
        return self.speech_embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.speech_embedding.weight.dtype

    def embed_text(self, ids: Tensor) -> Tensor:
        """(N,) text token ids to (N, hidden)."""
        return self.qwen.embed_tokens(ids)

    def embed_speech(self, ids: Tensor) -> Tensor:
        """(N,) speech token ids to (N, hidden)."""
        return self.speech_embedding(ids)

    def embed_special(self, name: Literal["sos", "task_id"]) -> Tensor:
        """(1, hidden). Version 3 keeps these two among the speech tokens' extra rows."""
        if self.llm_embedding is not None:
            return self.llm_embedding.weight[0 if name == "sos" else 1][None]
        row = self.cfg.speech_token_size + (0 if name == "sos" else 2)
        return self.speech_embedding.weight[row][None]

    def forward(
        self,
        inputs_embeds: Tensor,
        batch: ForwardBatch,
        cache: KVCache | None = None,
        rows: list[int] | None = None,
    ) -> Tensor:
        """One pass over the new tokens of several sequences.

        inputs_embeds: (N, hidden), packed as `batch` says
        cache: holds earlier tokens and gains the new ones; None where `batch` holds whole sequences
        rows: of the result, give only these, each the last row of its sequence; the others may then cost less
        Returns (N, hidden) after the final norm, or (len(rows), hidden).
        """
        if (
            self._flat is not None
            and cache is not None
            and not torch.is_grad_enabled()
            and self._flat.current
        ):
            return self._flat(inputs_embeds, batch, cache, rows)
        hidden = self.qwen(inputs_embeds, batch, cache)
        return hidden if rows is None else hidden[rows]

    def logits(self, hidden: Tensor) -> Tensor:
        """(M, hidden) to (M, speech_token_size + num_extra_ids), float32."""
        return project(hidden, self._head, (self.llm_decoder,)).float()

    def new_cache(self, num_slots: int, *, int8: bool = False) -> KVCache:
        """An empty KV cache on the model's device, in its dtype or in 8 bits."""
        return KVCache(self.cfg.qwen, num_slots, self.device, self.dtype, int8=int8)

    def prepare(self) -> SpeechLM:
        """Make inference faster, and on a CPU independent of what else is in a batch. Call when weights, device and
        dtype stand.
        """
        if FlatQwen2.fits(self.qwen):
            self._flat = FlatQwen2(self.qwen)
        else:
            self.qwen.fuse()
        self._head = FusedLinear((self.llm_decoder,))
        return self
