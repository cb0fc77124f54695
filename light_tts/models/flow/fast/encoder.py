"""From speech tokens to what the estimator follows, on streams in preallocated memory."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from light_tts.kernels.flow_windows import Tails, extended
from light_tts.models.flow.conformer import ConformerLayer, relative_table
from light_tts.models.flow.encoder import UpsampleConformerEncoder
from light_tts.models.flow.fast.estimator import TailShape
from light_tts.models.flow.token_to_mel import Flow


@dataclass(frozen=True, slots=True)
class EncoderPast:
    """Memory of streams, and which parts of it belong to the rows.

    token_kv, mel_kv: (layers, rows, 2 * dim); token_base, mel_base: (B,) int64, each row's first
    tails: of the look-ahead layer and of the upsampling, (1, entries, length, C); read, write: (B,) int32
    max_tokens: bound of the tokens that came before
    """

    token_kv: Tensor
    mel_kv: Tensor
    token_base: Tensor
    mel_base: Tensor
    tails: tuple[Tensor, ...]
    read: Tensor
    write: Tensor
    max_tokens: int


@dataclass(frozen=True, slots=True)
class TokenRows:
    """tokens, present: (B, N + look-ahead), each row's look-ahead right after its last new token, then nothing

    past_lens, new_lens: (B,) int64, of tokens; chunk: streaming attention chunk in tokens, 0: all see all
    """

    tokens: Tensor
    present: Tensor
    past_lens: Tensor
    new_lens: Tensor
    chunk: int


class FastEncoder:
    """`Flow.condition` is its oracle."""

    def __init__(self, flow: Flow, dtype: torch.dtype) -> None:
        cfg = flow.cfg
        self._ratio, self._lookahead = cfg.token_mel_ratio, cfg.pre_lookahead_len
        self._embedding = flow.input_embedding.weight.detach().to(dtype)
        self._encoder: UpsampleConformerEncoder | None = None
        if flow.encoder is not None:
            self._encoder = deepcopy(flow.encoder).to(dtype)
            self._project = deepcopy(flow.encoder_proj).to(dtype)
            self._layer = self._encoder.pre_lookahead_layer
        else:
            self._layer = deepcopy(flow.pre_lookahead_layer).to(dtype)
        channels = self._layer.conv2.in_channels
        self.tails = [TailShape(self._layer.conv2.kernel_size[0] - 1, channels, False)]
        self.token_layers = self.mel_layers = self.width = 0
        if self._encoder is not None:
            dim = self._encoder.up_layer.conv.out_channels
            self.tails.append(TailShape(2 * self._ratio, dim, False))
            self.token_layers, self.mel_layers = len(self._encoder.encoders), len(self._encoder.up_encoders)
            self.width = 2 * dim

    def __call__(self, rows: TokenRows, past: EncoderPast | None) -> Tensor:
        """mu: (B, ratio * N, mel), undefined on right padding."""
        num_new = rows.tokens.shape[1] - self._lookahead
        if past is not None and self._encoder is not None:
            past.token_kv[:, 0], past.mel_kv[:, 0] = 0.0, 0.0  # what nobody sees must still be a number
        x = F.embedding(rows.tokens, self._embedding)
        if self._encoder is not None:
            x = self._encoder.embed(x)
        x = x * rows.present[:, :, None]
        hidden = F.leaky_relu(self._layer.conv1(x.transpose(1, 2)), 0.01).transpose(1, 2)
        joined = extended(hidden.contiguous(), self.tails[0].length, self._tails(rows, past, 0))
        x = x[:, :num_new] + self._layer.conv2(joined.transpose(1, 2)).transpose(1, 2)
        if self._encoder is None:
            return x.repeat_interleave(self._ratio, dim=1)
        place = None if past is None else _Place(past.token_kv, past.token_base, past.max_tokens)
        x = _run(self._encoder.encoders, x, rows.past_lens, rows.new_lens, rows.chunk, place)
        repeated = x.repeat_interleave(self._ratio, dim=1)
        joined = extended(repeated, self.tails[1].length, self._tails(rows, past, 1))
        x = self._encoder.up_embed(self._encoder.up_layer.conv(joined.transpose(1, 2)).transpose(1, 2))
        if past is not None:
            place = _Place(past.mel_kv, past.mel_base, past.max_tokens * self._ratio)
        lens = rows.past_lens * self._ratio, rows.new_lens * self._ratio
        x = _run(self._encoder.up_encoders, x, *lens, rows.chunk * self._ratio, place)
        return self._project(self._encoder.after_norm(x))

    def _tails(self, rows: TokenRows, past: EncoderPast | None, index: int) -> Tails | None:
        if past is None:
            return None
        new_lens = rows.new_lens * (1 if index == 0 else self._ratio)
        return Tails(past.tails[index][0], past.read, past.write, new_lens)


@dataclass(frozen=True, slots=True)
class _Place:
    """keys_values: (layers, rows, width); base: (B,) int64"""

    keys_values: Tensor
    base: Tensor
    max_past: int


def _run(
    layers: torch.nn.ModuleList,
    x: Tensor,
    past_lens: Tensor,
    new_lens: Tensor,
    chunk: int,
    place: _Place | None,
) -> Tensor:
    batch, num_new, dim = x.shape
    max_past = place.max_past if place else 0
    table = relative_table(max_past, num_new, dim, x.device, x.dtype)
    blocked = ~attention_mask(past_lens, new_lens, max_past, num_new, chunk)
    past_rows = new_rows = past_lens
    if place is not None:
        steps = torch.arange(max_past + num_new, device=x.device)
        positions = past_lens[:, None] - max_past + steps
        known = (positions >= 0) & (positions < (past_lens + new_lens)[:, None])
        rows = torch.where(known, place.base[:, None] + positions, 0)  # row 0 is nobody's
        past_rows, new_rows = rows[:, :max_past].flatten(), rows[:, max_past:].flatten()
    for index, layer in enumerate(layers):
        assert isinstance(layer, ConformerLayer)
        past = None
        if place is not None:
            gathered = place.keys_values[index].index_select(0, past_rows)
            past = gathered.view(batch, max_past, layer.self_attn.heads, -1).transpose(1, 2)
        x, key_value = layer(x, table, blocked, past)
        if place is not None:
            new = key_value[:, :, max_past:].transpose(1, 2).reshape(batch * num_new, -1)
            place.keys_values[index].index_copy_(0, new_rows, new)
    return x


def attention_mask(past_lens: Tensor, new_lens: Tensor, max_past: int, num_new: int, chunk: int) -> Tensor:
    """(B, 1, num_new, max_past + num_new) bool, True = may attend, as `Frames.attention_mask`; stays on the device."""
    past, new = past_lens[:, None], new_lens[:, None]
    query = past + torch.arange(num_new, device=past.device)
    key = past + torch.arange(-max_past, num_new, device=past.device)
    mask = ((key >= 0) & (key < past + new))[:, None, :].expand(-1, num_new, -1)
    if chunk:
        mask = mask & (key[:, None, :] < ((query // chunk + 1) * chunk)[:, :, None])
    padded = (query >= past + new)[:, :, None]
    return torch.where(padded, key[:, None, :] == 0, mask)[:, None]
