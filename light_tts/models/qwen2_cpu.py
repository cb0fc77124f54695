"""Qwen2 on a CPU in as few operators as it takes: in a step of one token, calling them takes longer than their work."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from light_tts.models.config import Qwen2Config
from light_tts.models.kv_cache import ForwardBatch, KVCache, SequenceSlice
from light_tts.models.layers.packed_attention import packed_attention
from light_tts.models.layers.packed_linear import PackedLinear
from light_tts.models.qwen2 import MIN_ROTARY_POSITIONS, DecoderLayer, Qwen2Model, rotary_table, weight_stamp

_NORM_COLUMNS = 16  # beside the hidden ones; a whole cache line, so that rows stay aligned


@dataclass(frozen=True, slots=True)
class _Layer:
    """The weights of a layer in the order of their use. Those of norms are multiplied by sqrt(hidden)."""

    input_norm: Tensor
    qkv: PackedLinear
    output: PackedLinear
    mlp_norm: Tensor
    gate_up: PackedLinear
    down: PackedLinear


class FlatQwen2:
    """The same numbers as `Qwen2Model` up to rounding, from a copy of its weights.

    A row's result does not depend on the rows beside it, to the last bit.
    Queries and keys have their numbers in another order here: the pairs (i, i + head_dim / 2) that rotate together lie
    side by side, so that turning them is one complex product. So a KV cache that this has filled is of no use to
    Qwen2Model, and the other way round.
    """

    def __init__(self, model: Qwen2Model) -> None:
        """Raises ValueError unless `fits`."""
        if not self.fits(model):
            raise ValueError("the weights are not all float32 and on the CPU")
        cfg = self._cfg = model.cfg
        self._layers = [_layer(cfg, layer) for layer in model.layers if isinstance(layer, DecoderLayer)]
        self._norm = _norm_weight(cfg, model.norm)
        # With this column, a row's length is sqrt(sum of squares + hidden * eps): one operator instead of four.
        self._norm_columns = torch.zeros(1, _NORM_COLUMNS)
        self._norm_columns[0, 0] = (cfg.hidden_size * cfg.rms_norm_eps) ** 0.5
        self._rotations = _rotations(cfg, MIN_ROTARY_POSITIONS)
        self._sources = [module._parameters for layer in model.layers for module in layer.modules()]
        self._sources = [source for source in (*self._sources, model.norm._parameters) if "weight" in source]
        self._stamps = self._stamps_now()

    @staticmethod
    def fits(model: Qwen2Model) -> bool:
        return all(w.device.type == "cpu" and w.dtype == torch.float32 for w in model.parameters())

    @property
    def current(self) -> bool:
        """False once the model has other weights than those that were copied."""
        return self._stamps_now() == self._stamps

    def _stamps_now(self) -> list[tuple[int, int]]:
        return [weight_stamp(weight) for source in self._sources if (weight := source["weight"]) is not None]

    def __call__(
        self, inputs_embeds: Tensor, batch: ForwardBatch, cache: KVCache, rows: list[int] | None = None
    ) -> Tensor:
        """As `Qwen2Model.forward`.

        rows: give only these of the result, each the last row of its sequence
        """
        cfg, sequences = self._cfg, batch.sequences
        heads, kv_heads, head_dim = cfg.num_attention_heads, cfg.num_key_value_heads, cfg.head_dim
        wide = torch.cat([inputs_embeds, self._norm_columns.expand(len(inputs_embeds), -1)], dim=1)
        x, rotation = wide[:, : cfg.hidden_size], self._rotation(batch)
        for index, layer in enumerate(self._layers):
            qkv = layer.qkv(_normed(wide, x, layer.input_norm)).view(len(x), -1, head_dim // 2, 2)
            torch.view_as_complex(qkv[:, : heads + kv_heads]).mul_(rotation)
            query, new_keys, new_values = torch.split_with_sizes(
                qkv.view(len(x), -1, head_dim), (heads, kv_heads, kv_heads), 1
            )
            keys, values = cache.write(index, batch.slots, new_keys, new_values)
            if index == len(self._layers) - 1 and rows is not None and len(rows) < len(x):
                # Of all other rows only keys and values will ever be read.
                if not rows:
                    return inputs_embeds[:0]
                sequences, wide, query = _ends(batch, rows), wide[rows], query[rows]
                x = wide[:, : cfg.hidden_size]
            mixed = packed_attention(query, keys, values, sequences)
            x.add_(layer.output(mixed.reshape(len(x), -1)))
            gate, up = layer.gate_up(_normed(wide, x, layer.mlp_norm)).chunk(2, dim=1)
            x.add_(layer.down(F.silu(gate).mul_(up)))
        return _normed(wide, x, self._norm)

    def _rotation(self, batch: ForwardBatch) -> Tensor:
        """(N, 1, head_dim / 2) complex64"""
        positions = batch.max_kv_len
        if positions > len(self._rotations):
            self._rotations = _rotations(self._cfg, 1 << (positions - 1).bit_length())
        return self._rotations.index_select(0, batch.positions)


def _normed(wide: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    return torch.div(x, torch.linalg.vector_norm(wide, 2, -1, True)).mul_(weight)


def _ends(batch: ForwardBatch, rows: list[int]) -> tuple[SequenceSlice, ...]:
    """The sequences whose last rows these are, with that row as their only query."""
    by_row = dict(zip(batch.last_rows, batch.sequences, strict=True))
    return tuple(
        SequenceSlice(number, 1, by_row[row].kv_start, by_row[row].kv_len) for number, row in enumerate(rows)
    )


def _layer(cfg: Qwen2Config, layer: DecoderLayer) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    qkv = (
        _pairs_together(cfg, attention.q_proj),
        _pairs_together(cfg, attention.k_proj),
        (attention.v_proj.weight, attention.v_proj.bias),
    )
    return _Layer(
        _norm_weight(cfg, layer.input_layernorm),
        _packed([weight for weight, _ in qkv], [bias for _, bias in qkv]),
        _packed([attention.o_proj.weight]),
        _norm_weight(cfg, layer.post_attention_layernorm),
        _packed([mlp.gate_proj.weight, mlp.up_proj.weight]),
        _packed([mlp.down_proj.weight]),
    )


def _packed(weights: list[Tensor], biases: list[Tensor] | None = None) -> PackedLinear:
    """Layers that read the same input, as one."""
    bias = None if biases is None else torch.cat(biases).detach()
    return PackedLinear(torch.cat(weights).detach(), bias)


def _pairs_together(cfg: Qwen2Config, linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight and bias whose outputs 2i and 2i + 1 of each head were i and i + head_dim / 2."""
    order = torch.arange(cfg.head_dim).view(2, -1).t().flatten()
    weight = linear.weight.detach().unflatten(0, (-1, cfg.head_dim))[:, order].flatten(0, 1)
    bias = linear.bias.detach().unflatten(0, (-1, cfg.head_dim))[:, order].flatten()
    return weight, bias


def _norm_weight(cfg: Qwen2Config, norm: nn.Module) -> Tensor:
    weight = norm.weight
    assert isinstance(weight, Tensor)
    return weight.detach() * cfg.hidden_size**0.5


def _rotations(cfg: Qwen2Config, num_positions: int) -> Tensor:
    """(num_positions, 1, head_dim / 2) complex64 of modulus 1"""
    cos, sin = rotary_table(num_positions, cfg.head_dim, cfg.rope_theta, torch.device("cpu"), torch.float32)
    half = cfg.head_dim // 2
    return torch.complex(cos[..., half:], sin[..., half:])
