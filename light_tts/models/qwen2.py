"""Qwen2 decoder layers over packed sequences (no padding, no batch dimension)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from light_tts.models.config import Qwen2Config
from light_tts.models.kv_cache import ForwardBatch, KVCache
from light_tts.models.layers.packed_attention import packed_attention
from light_tts.models.layers.packed_linear import PackedLinear

MIN_ROTARY_POSITIONS = 1024


class Qwen2Model(nn.Module):
    """Embeddings, decoder layers and final norm: checkpoint keys `embed_tokens`, `layers.N`, `norm`."""

    def __init__(self, cfg: Qwen2Config) -> None:
        super().__init__()
        self.cfg = cfg
        self.embed_tokens = nn.Embedding(cfg.vocab_size, cfg.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(cfg, index) for index in range(cfg.num_hidden_layers))
        self.norm = RMSNorm(cfg.hidden_size, cfg.rms_norm_eps)

    def forward(self, inputs_embeds: Tensor, batch: ForwardBatch, cache: KVCache | None) -> Tensor:
        """inputs_embeds: (N, hidden). Returns (N, hidden) after the final norm; the cache gains N tokens."""
        # Doubling the table with the longest sequence keeps the number of distinct tables small.
        positions = max(MIN_ROTARY_POSITIONS, 1 << (batch.max_kv_len - 1).bit_length())
        table = rotary_table(
            positions, self.cfg.head_dim, self.cfg.rope_theta, inputs_embeds.device, inputs_embeds.dtype
        )
        rotary = (table[0][batch.positions], table[1][batch.positions])
        x = inputs_embeds
        for layer in self.layers:
            x = layer(x, rotary, batch, cache)
        return self.norm(x)

    def fuse(self) -> None:
        """Merge projections that read the same input and pack all; checkpoint keys stay. Call after `to()`."""
        for layer in self.layers:
            assert isinstance(layer, DecoderLayer)
            layer.self_attn.fuse()
            layer.mlp.fuse()


class DecoderLayer(nn.Module):
    def __init__(self, cfg: Qwen2Config, index: int) -> None:
        super().__init__()
        self.self_attn = Attention(cfg, index)
        self.mlp = MLP(cfg)
        self.input_layernorm = RMSNorm(cfg.hidden_size, cfg.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(cfg.hidden_size, cfg.rms_norm_eps)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], batch: ForwardBatch, cache: KVCache | None
    ) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotary, batch, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Attention(nn.Module):
    """Grouped-query attention with rotary positions."""

    def __init__(self, cfg: Qwen2Config, index: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.index = index
        kv_size = cfg.num_key_value_heads * cfg.head_dim
        self.q_proj = nn.Linear(cfg.hidden_size, cfg.num_attention_heads * cfg.head_dim)
        self.k_proj = nn.Linear(cfg.hidden_size, kv_size)
        self.v_proj = nn.Linear(cfg.hidden_size, kv_size)
        self.o_proj = nn.Linear(cfg.num_attention_heads * cfg.head_dim, cfg.hidden_size, bias=False)
        self._fused: FusedLinear | None = None
        self._output: FusedLinear | None = None

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], batch: ForwardBatch, cache: KVCache | None
    ) -> Tensor:
        heads, kv_heads = self.cfg.num_attention_heads, self.cfg.num_key_value_heads
        parts = (self.q_proj, self.k_proj, self.v_proj)
        qkv = project(x, self._fused, parts).view(len(x), heads + 2 * kv_heads, self.cfg.head_dim)
        qk = apply_rotary(qkv[:, : heads + kv_heads], rotary)
        query, new_keys, new_values = qk[:, :heads], qk[:, heads:], qkv[:, heads + kv_heads :]
        if cache is None:
            out = packed_attention(query, new_keys, new_values, batch.sequences)
        else:
            keys, values = cache.write(self.index, batch.slots, new_keys, new_values)
            out = packed_attention(query, keys, values, batch.sequences)
        return project(out.reshape(len(x), -1), self._output, (self.o_proj,))

    def fuse(self) -> None:
        self._fused = FusedLinear((self.q_proj, self.k_proj, self.v_proj))
        self._output = FusedLinear((self.o_proj,))


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, cfg: Qwen2Config) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(cfg.hidden_size, cfg.intermediate_size, bias=False)
        self.up_proj = nn.Linear(cfg.hidden_size, cfg.intermediate_size, bias=False)
        self.down_proj = nn.Linear(cfg.intermediate_size, cfg.hidden_size, bias=False)
        self._fused: FusedLinear | None = None
        self._output: FusedLinear | None = None

    def forward(self, x: Tensor) -> Tensor:
        gate, up = project(x, self._fused, (self.gate_proj, self.up_proj)).chunk(2, dim=-1)
        return project(F.silu(gate) * up, self._output, (self.down_proj,))

    def fuse(self) -> None:
        self._fused = FusedLinear((self.gate_proj, self.up_proj))
        self._output = FusedLinear((self.down_proj,))


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class FusedLinear:
    """Linear layers that read the same input (or one by itself), as one product. Their weights become views of the
    joint one.
    """

    def __init__(self, parts: Iterable[nn.Linear]) -> None:
        linears = list(parts)
        weight = torch.cat([linear.weight.detach() for linear in linears])
        biases = [linear.bias.detach() for linear in linears if linear.bias is not None]
        bias = torch.cat(biases) if biases else None
        row = 0
        for linear in linears:
            rows = slice(row, row + linear.out_features)
            linear.weight.data = weight[rows]
            if bias is not None:
                linear.bias.data = bias[rows]
            row += linear.out_features
        self.product = PackedLinear(weight, bias)  # (N, in) to (N, sum of the layers' outputs)
        self._parameters = linears[0]._parameters
        self._stamp = weight_stamp(linears[0].weight)

    @property
    def current(self) -> bool:
        """False once `to()`, a loader or an optimiser has given the layers other weights than the joint one."""
        weight = self._parameters["weight"]
        return weight is not None and weight_stamp(weight) == self._stamp


def weight_stamp(weight: Tensor) -> tuple[int, int]:
    """Changes when the numbers do, or move elsewhere."""
    return weight.data_ptr(), 0 if weight.is_inference() else weight._version


def project(x: Tensor, fused: FusedLinear | None, parts: tuple[nn.Linear, ...]) -> Tensor:
    """Outputs of `parts` side by side. Training reads the parts themselves, so that gradients reach them."""
    if fused is not None and not torch.is_grad_enabled() and fused.current:
        return fused.product(x)
    return torch.cat([part(x) for part in parts], dim=-1) if len(parts) > 1 else parts[0](x)


def apply_rotary(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate the pairs (i, i + head_dim / 2) of each head.

    x: (N, heads, head_dim); rotary: cos and sin, each (N, 1, head_dim), the sine's first half negated
    """
    cos, sin = rotary
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)


@lru_cache(maxsize=16)
def rotary_table(
    num_positions: int, head_dim: int, theta: float, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cosine and sine by position for `apply_rotary`: each (num_positions, 1, head_dim)."""
    with torch.inference_mode(False):  # cached for later calls, of which some may need gradients
        exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
        angles = torch.outer(torch.arange(num_positions).float(), 1.0 / theta**exponents)
        cos = torch.cat([angles.cos(), angles.cos()], dim=-1)
        sin = torch.cat([-angles.sin(), angles.sin()], dim=-1)
        return cos[:, None].to(device, dtype), sin[:, None].to(device, dtype)
