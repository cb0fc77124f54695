"""CosyVoice2's token encoder: speech tokens at 25 Hz in, features at the mel rate of 50 Hz out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from light_tts.models.config import ConformerConfig
from light_tts.models.flow.conformer import ConformerLayer, relative_table
from light_tts.models.flow.lookahead import PreLookaheadLayer
from light_tts.models.layers.ragged import Frames, join_past, next_past, next_tail


@dataclass(frozen=True, slots=True)
class EncoderState:
    """What the encoder must remember of B streams so that a later call computes new tokens only.

    past_lens: (B,) int64 on the CPU, tokens processed
    lookahead_tail: (B, channels, 2) input of the look-ahead layer's second convolution
    up_tail: (B, D, 2 * upsample) input of the upsampling convolution; None where there is none (CosyVoice3)
    token_kv, mel_kv: per layer (B, heads, L, 2 * head_dim) keys and values, right-aligned; L = longest past
    """

    past_lens: Tensor
    lookahead_tail: Tensor
    up_tail: Tensor | None = None
    token_kv: tuple[Tensor, ...] = ()
    mel_kv: tuple[Tensor, ...] = ()

    @classmethod
    def stack(cls, states: Sequence[EncoderState | None]) -> EncoderState | None:
        """One batch from single streams; None stands for a stream without a past."""
        known = [state for state in states if state is not None]
        if not known:
            return None
        if len(states) == 1:
            return known[0]
        rows = [state or known[0]._without_past() for state in states]
        up_tails = [row.up_tail for row in rows if row.up_tail is not None]
        return cls(
            torch.cat([row.past_lens for row in rows]),
            torch.cat([row.lookahead_tail for row in rows]),
            torch.cat(up_tails) if up_tails else None,
            tuple(_stack_right(layer) for layer in zip(*(row.token_kv for row in rows), strict=True)),
            tuple(_stack_right(layer) for layer in zip(*(row.mel_kv for row in rows), strict=True)),
        )

    def split(self) -> list[EncoderState]:
        """The single streams, each with its own past only and in its own memory."""
        if len(self.past_lens) == 1:
            return [self]
        return [self._row(index) for index in range(len(self.past_lens))]

    def _row(self, index: int) -> EncoderState:
        length = int(self.past_lens[index])
        row = slice(index, index + 1)

        def last(kv: Tensor) -> Tensor:
            # Tokens and mel frames share the padded length's unit: L / longest past = 1 or `upsample`.
            keep = length * kv.shape[2] // max(1, int(self.past_lens.max()))
            return kv[row, :, kv.shape[2] - keep :].clone()

        return EncoderState(
            self.past_lens[row].clone(),
            self.lookahead_tail[row].clone(),
            None if self.up_tail is None else self.up_tail[row].clone(),
            tuple(last(kv) for kv in self.token_kv),
            tuple(last(kv) for kv in self.mel_kv),
        )

    def _without_past(self) -> EncoderState:
        """A fresh stream of this state's shapes."""
        return EncoderState(
            torch.zeros_like(self.past_lens),
            torch.zeros_like(self.lookahead_tail),
            None if self.up_tail is None else torch.zeros_like(self.up_tail),
            tuple(kv[:, :, :0] for kv in self.token_kv),
            tuple(kv[:, :, :0] for kv in self.mel_kv),
        )


def _stack_right(rows: Sequence[Tensor]) -> Tensor:
    """(1, H, L_b, D) each -> (B, H, max L_b, D), left-padded with zeros."""
    length = max(row.shape[2] for row in rows)
    return torch.cat([F.pad(row, (0, 0, length - row.shape[2], 0)) for row in rows])


class LinearEmbedding(nn.Module):
    """Linear, LayerNorm and the scale by sqrt(dim) that belongs to sinusoidal positions."""

    def __init__(self, input_size: int, output_size: int) -> None:
        super().__init__()
        self.scale = math.sqrt(output_size)
        self.out = nn.Sequential(nn.Linear(input_size, output_size), nn.LayerNorm(output_size, eps=1e-5))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x) * self.scale


class Upsample(nn.Module):
    """Repeat each frame `stride` times, then smooth with a causal convolution."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv1d(channels, channels, kernel_size=2 * stride + 1)

    def forward(self, x: Tensor, frames: Frames, tail: Tensor | None) -> tuple[Tensor, Tensor]:
        """x: (B, D, T); frames: after upsampling; tail: (B, D, 2 * stride) or None at the start of a stream

        Returns (B, D, stride * T) and the next tail.
        """
        repeated = x.repeat_interleave(self.stride, dim=2)
        left = 2 * self.stride
        joined = F.pad(repeated, (left, 0)) if tail is None else join_past(tail, repeated, dim=2)
        return self.conv(joined), next_tail(joined, frames, dim=2, length=left)


class UpsampleConformerEncoder(nn.Module):
    def __init__(self, cfg: ConformerConfig) -> None:
        super().__init__()
        dim, heads, hidden = cfg.output_size, cfg.attention_heads, cfg.linear_units
        self.embed = LinearEmbedding(cfg.input_size, dim)
        self.pre_lookahead_layer = PreLookaheadLayer(dim, dim, cfg.pre_lookahead_len)
        self.encoders = nn.ModuleList(ConformerLayer(dim, heads, hidden) for _ in range(cfg.num_blocks))
        self.up_layer = Upsample(dim, cfg.upsample)
        self.up_embed = LinearEmbedding(dim, dim)
        self.up_encoders = nn.ModuleList(ConformerLayer(dim, heads, hidden) for _ in range(cfg.num_up_blocks))
        self.after_norm = nn.LayerNorm(dim, eps=1e-5)

    def forward(
        self,
        x: Tensor,
        frames: Frames,
        context: Tensor | None = None,
        finalize: Tensor | None = None,
        state: EncoderState | None = None,
        keep_state: bool = False,
    ) -> tuple[Tensor, EncoderState | None]:
        """x: (B, T, input_size) embedded tokens

        frames: at the token rate; its chunk decides between streaming and full attention
        context: (B, pre_lookahead_len, input_size) embedded tokens after each row's last one; None: all end
        finalize: (B,) bool, rows that end here, whose context is ignored; None: none does so
        state: of the calls before; needs `frames.past_lens` tokens per row
        Returns (B, upsample * T, output_size), undefined on right padding, and the state if `keep_state`.
        """
        x = self.embed(x)
        if context is not None:
            context = self.embed(context)
            if finalize is not None:  # "nothing follows" is zeros after the embedding, not an embedded zero
                context = context.masked_fill(finalize.to(x.device)[:, None, None], 0.0)
        tail = None if state is None else state.lookahead_tail
        x, lookahead_tail = self.pre_lookahead_layer(x, frames, context, tail)
        x, token_kv = _run(self.encoders, x, frames, () if state is None else state.token_kv, keep_state)

        mel_frames = frames.scaled(self.up_layer.stride)
        tail = None if state is None else state.up_tail
        upsampled, up_tail = self.up_layer(x.transpose(1, 2), mel_frames, tail)
        x = self.up_embed(upsampled.transpose(1, 2))
        x, mel_kv = _run(self.up_encoders, x, mel_frames, () if state is None else state.mel_kv, keep_state)
        out = self.after_norm(x)
        if not keep_state:
            return out, None
        return out, EncoderState(
            frames.past_lens + frames.new_lens, lookahead_tail, up_tail, token_kv, mel_kv
        )


def _run(
    layers: nn.ModuleList, x: Tensor, frames: Frames, past: tuple[Tensor, ...], keep_state: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """All layers of one frame rate. Returns (B, T, D) and each layer's past for the next call."""
    table = relative_table(frames.max_past, frames.num_new, x.shape[2], x.device, x.dtype)
    mask = frames.attention_mask(x.device)
    blocked = None if mask is None else ~mask
    kept = []
    for index, layer in enumerate(layers):
        x, key_value = layer(x, table, blocked, past[index] if past else None)
        if keep_state:
            kept.append(next_past(key_value, frames, dim=2))
    return x, tuple(kept)
