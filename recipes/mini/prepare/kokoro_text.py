"""How the teacher reads phonemes: a BERT for their context, convolutions for their sound."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from recipes.mini.prepare.kokoro_layers import ChannelNorm

NUM_PHONEMES = 178
MAX_PHONEMES = 510  # of an utterance, besides the padding at either end
WIDTH = 512


class _BertLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.ModuleDict(
            {name: nn.Linear(768, 768) for name in ("query", "key", "value", "dense")}
        )
        self.attention["LayerNorm"] = nn.LayerNorm(768, eps=1e-12)
        self.ffn = nn.Linear(768, 2048)
        self.ffn_output = nn.Linear(2048, 768)
        self.full_layer_layer_norm = nn.LayerNorm(768, eps=1e-12)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.attention
        query, key, value = (
            parts[name](x).unflatten(2, (12, 64)).transpose(1, 2) for name in ("query", "key", "value")
        )
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x = parts["LayerNorm"](x + parts["dense"](attended))
        return self.full_layer_layer_norm(x + self.ffn_output(F.gelu(self.ffn(x), approximate="tanh")))


class _Embeddings(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(NUM_PHONEMES, 128)
        self.position_embeddings = nn.Embedding(MAX_PHONEMES + 2, 128)
        self.token_type_embeddings = nn.Embedding(2, 128)
        self.LayerNorm = nn.LayerNorm(128, eps=1e-12)

    def forward(self, ids: Tensor) -> Tensor:
        positions = self.position_embeddings.weight[: ids.shape[1]]
        return self.LayerNorm(self.word_embeddings(ids) + positions + self.token_type_embeddings.weight[0])


class Bert(nn.Module):
    """One layer, run twelve times."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = _Embeddings()
        self.embedding_hidden_mapping_in = nn.Linear(128, 768)
        self.layer = _BertLayer()

    def forward(self, ids: Tensor) -> Tensor:
        """(1, n) to (1, n, 768)"""
        x = self.embedding_hidden_mapping_in(self.embeddings(ids))
        for _ in range(12):
            x = self.layer(x)
        return x


class TextEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(NUM_PHONEMES, WIDTH)
        self.cnn = nn.ModuleList(
            nn.Sequential(nn.Conv1d(WIDTH, WIDTH, 5, padding=2), ChannelNorm(WIDTH), nn.LeakyReLU(0.2))
            for _ in range(3)
        )
        self.lstm = nn.LSTM(WIDTH, WIDTH // 2, batch_first=True, bidirectional=True)

    def forward(self, ids: Tensor) -> Tensor:
        """(1, n) to (1, width, n)"""
        x = self.embedding(ids).transpose(1, 2)
        for block in self.cnn:
            x = block(x)
        return self.lstm(x.transpose(1, 2))[0].transpose(1, 2)
