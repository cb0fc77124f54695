"""The language model as it is trained: packed rows, dropout, and text symbols embedded by their parts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from light_tts.models.config import SpeechLMConfig
from light_tts.models.qwen2 import DecoderLayer, apply_rotary, rotary_table
from light_tts.models.speech_lm import SpeechLM
from recipes.mini.train.packing import IGNORED, Packs
from recipes.mini.train.symbol_features import feature_table

_EMBED_TOKENS = "llm.model.model.embed_tokens.weight"
_EMBEDDING_STD = 0.05
_RESIDUAL_STD = 0.01  # of a symbol's own part: it begins as the sum of its features


class TrainableLM(nn.Module):
    """`SpeechLM` with the same weights, computed on rows of several sequences at once.

    `lm.qwen.embed_tokens` holds only what a text symbol has of its own; `features` what it shares with others.
    The sum is what the exported model reads, see `released`.
    """

    def __init__(self, cfg: SpeechLMConfig, vocabulary: Sequence[str], dropout: float) -> None:
        """vocabulary: text symbols by id, at most cfg.qwen.vocab_size. Raises ValueError for more."""
        super().__init__()
        if len(vocabulary) > cfg.qwen.vocab_size:
            raise ValueError(f"{len(vocabulary)} text symbols, the model has {cfg.qwen.vocab_size} rows")
        self.cfg = cfg
        self.dropout = dropout
        self.lm = SpeechLM(cfg)
        table, num_features = feature_table(vocabulary)
        self.features = nn.Embedding(num_features, cfg.qwen.hidden_size, padding_idx=0)
        unused = cfg.qwen.vocab_size - len(vocabulary)
        self.register_buffer("feature_ids", F.pad(table, (0, 0, 0, unused)), persistent=False)
        self._initialise()

    def forward(self, packs: Packs) -> Tensor:
        """(R, T) ids to (R, T, hidden), after the final norm."""
        x = self._drop(F.embedding(packs.ids, self.embedding_table()))
        rotary, bias = self._rotary(packs.positions, x), self._attention_bias(packs.segments, x)
        for layer in self.lm.qwen.layers:
            assert isinstance(layer, DecoderLayer)
            x = x + self._drop(self._attend(layer, layer.input_layernorm(x), rotary, bias))
            x = x + self._drop(layer.mlp(layer.post_attention_layernorm(x)))
        hidden: Tensor = self.lm.qwen.norm(x)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        return self.lm.logits(hidden)

    def text_table(self) -> Tensor:
        """(text rows, hidden): each symbol's embedding as the exported model has it."""
        ids = self.get_buffer("feature_ids")
        shared = F.embedding(ids, self.features.weight, padding_idx=0).sum(dim=1)
        return self.lm.qwen.embed_tokens.weight + shared

    def embedding_table(self) -> Tensor:
        """What `Packs.ids` count: rows of text, speech, sos and task_id."""
        specials = [self.lm.embed_special("sos"), self.lm.embed_special("task_id")]
        return torch.cat([self.text_table(), self.lm.speech_embedding.weight, *specials])

    def released(self) -> dict[str, Tensor]:
        """The weights by the names of the released checkpoint."""
        weights = dict(self.lm.state_dict())
        weights[_EMBED_TOKENS] = self.text_table().detach()
        return weights

    def _attend(self, layer: DecoderLayer, x: Tensor, rotary: tuple[Tensor, Tensor], bias: Tensor) -> Tensor:
        attention, qwen = layer.self_attn, self.cfg.qwen
        heads, kv_heads = qwen.num_attention_heads, qwen.num_key_value_heads
        parts = [projection(x) for projection in (attention.q_proj, attention.k_proj, attention.v_proj)]
        query, key, value = (part.unflatten(-1, (-1, qwen.head_dim)) for part in parts)
        query, key = apply_rotary(query, rotary), apply_rotary(key, rotary)
        key, value = (
            part.transpose(1, 2).repeat_interleave(heads // kv_heads, dim=1) for part in (key, value)
        )
        mixed = F.scaled_dot_product_attention(query.transpose(1, 2), key, value, attn_mask=bias)
        out: Tensor = attention.o_proj(mixed.transpose(1, 2).flatten(2))
        return out

    def _rotary(self, positions: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines (R, T, 1, head_dim) in the dtype of queries and keys."""
        qwen, longest = self.cfg.qwen, positions.shape[1]
        cos, sin = rotary_table(longest, qwen.head_dim, qwen.rope_theta, x.device, _compute_dtype(x))
        return cos[positions], sin[positions]

    @staticmethod
    def _attention_bias(segments: Tensor, x: Tensor) -> Tensor:
        """(R, 1, T, T): 0 where a position sees an earlier one of its sequence or itself, else -inf.

        Added to scores in the compute dtype: made once for all layers, which SDPA would otherwise do in each.
        A row's unused end is a sequence too, so no softmax is empty.
        """
        row_tokens = segments.shape[1]
        earlier = torch.ones(row_tokens, row_tokens, dtype=torch.bool, device=x.device).tril()
        visible = (segments[:, :, None] == segments[:, None, :]) & earlier
        bias = torch.zeros(visible.shape, dtype=_compute_dtype(x), device=x.device)
        return bias.masked_fill_(~visible, -torch.inf)[:, None]

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)

    def _initialise(self) -> None:
        """torch's own start for the projections, narrower where a layer adds to the stream."""
        qwen, lm = self.lm.qwen, self.lm
        tables = [self.features.weight, lm.speech_embedding.weight]
        if lm.llm_embedding is not None:
            tables.append(lm.llm_embedding.weight)
        for table in tables:
            nn.init.normal_(table, std=_EMBEDDING_STD)
        nn.init.normal_(qwen.embed_tokens.weight, std=_RESIDUAL_STD)
        added_std = 1 / math.sqrt(2 * len(qwen.layers))
        with torch.no_grad():
            self.features.weight[0] = 0.0
            for layer in qwen.layers:
                assert isinstance(layer, DecoderLayer)
                layer.self_attn.o_proj.weight.mul_(added_std)
                layer.mlp.down_proj.weight.mul_(added_std)


def _compute_dtype(x: Tensor) -> torch.dtype:
    """What the projections give: autocast's dtype where that is on."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def next_token_loss(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy and accuracy over the positions that have a target.

    logits: (..., ids) float32; targets: (...) int64, IGNORED where there is none
    """
    flat, wanted = logits.flatten(0, -2), targets.flatten()
    loss = F.cross_entropy(flat, wanted, ignore_index=IGNORED, label_smoothing=smoothing)
    counted = wanted >= 0
    right = ((flat.argmax(dim=-1) == wanted) & counted).sum()
    return loss, right / counted.sum()
