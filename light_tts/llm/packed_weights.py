"""The language model's weights as the device step reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from light_tts.kernels.rotary import rotary_tables
from light_tts.llm.sequence import Symbol, SymbolKind
from light_tts.models.qwen2 import DecoderLayer, RMSNorm
from light_tts.models.speech_lm import SpeechLM


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """All (outputs, inputs). Norm weights are multiplied into the layers behind the norms: a norm is a division then.

    qkv: queries, keys, values; gate_up: gates first
    """

    qkv: Tensor
    qkv_bias: Tensor
    out: Tensor
    gate_up: Tensor
    down: Tensor


@dataclass(frozen=True, slots=True)
class PackedWeights:
    """speech_table: embeddings of speech tokens, then sos and task_id where they are not among those
    cos, sin: (positions, head_dim / 2) float32
    """

    layers: tuple[LayerWeights, ...]
    head: Tensor
    head_bias: Tensor | None
    speech_table: Tensor
    text_table: Tensor
    sos_id: int
    task_id: int
    cos: Tensor
    sin: Tensor
    heads: int
    kv_heads: int
    eps: float

    @classmethod
    @torch.inference_mode()
    def of(cls, model: SpeechLM, max_positions: int) -> PackedWeights:
        """A copy of the decoder's weights; the text embeddings are shared."""
        cfg, qwen = model.cfg, model.qwen
        speech = model.speech_embedding.weight
        if model.llm_embedding is None:
            sos_id, task_id = cfg.speech_token_size, cfg.speech_token_size + 2
        else:
            sos_id, task_id = len(speech), len(speech) + 1
            speech = torch.cat([speech, model.llm_embedding.weight])
        cos, sin = rotary_tables(max_positions, cfg.qwen.head_dim, cfg.qwen.rope_theta, model.device)
        bias = model.llm_decoder.bias
        return cls(
            layers=tuple(_pack(layer) for layer in qwen.layers),
            head=_fold(model.llm_decoder, qwen.norm),
            head_bias=None if bias is None else bias.detach(),
            speech_table=speech.detach(),
            text_table=qwen.embed_tokens.weight.detach(),
            sos_id=sos_id,
            task_id=task_id,
            cos=cos,
            sin=sin,
            heads=cfg.qwen.num_attention_heads,
            kv_heads=cfg.qwen.num_key_value_heads,
            eps=cfg.qwen.rms_norm_eps,
        )

    @staticmethod
    def bytes_beside(model: SpeechLM, max_positions: int) -> int:
        """What `of` will take beside the model itself."""
        cfg, size = model.cfg.qwen, model.dtype.itemsize
        outputs = (cfg.num_attention_heads + 2 * cfg.num_key_value_heads) * cfg.head_dim
        layer = (outputs + 2 * cfg.intermediate_size) * cfg.hidden_size + outputs
        tables = model.llm_decoder.weight.numel()
        if model.llm_embedding is not None:
            tables += model.speech_embedding.weight.numel() + model.llm_embedding.weight.numel()
        return (cfg.num_hidden_layers * layer + tables) * size + max_positions * cfg.head_dim * 4

    def table_id(self, symbol: Symbol) -> int:
        """What `kernels.embed` knows the symbol by."""
        match symbol.kind:
            case SymbolKind.TEXT:
                return -1 - symbol.id
            case SymbolKind.SPEECH:
                return symbol.id
            case SymbolKind.SOS:
                return self.sos_id
            case SymbolKind.TASK_ID:
                return self.task_id


def _pack(module: nn.Module) -> LayerWeights:
    layer = cast(DecoderLayer, module)
    attention, mlp = layer.self_attn, layer.mlp
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    return LayerWeights(
        qkv=torch.cat([_fold(part, layer.input_layernorm) for part in projections]),
        qkv_bias=torch.cat([cast(Tensor, part.bias).detach() for part in projections]),
        out=attention.o_proj.weight.detach(),
        gate_up=torch.cat(
            [_fold(part, layer.post_attention_layernorm) for part in (mlp.gate_proj, mlp.up_proj)]
        ),
        down=mlp.down_proj.weight.detach(),
    )


def _fold(linear: nn.Linear, norm: RMSNorm) -> Tensor:
    return (linear.weight.float() * norm.weight.float()).to(linear.weight.dtype)
