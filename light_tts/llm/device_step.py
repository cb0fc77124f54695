"""One step of the language model without the host: from the seats' last tokens to their next ones.

The same code runs Triton's kernels and their references, in a CUDA graph and without.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from light_tts.kernels.flash_prefill import PackedPrompts
from light_tts.kernels.kv_rows import KVRows
from light_tts.kernels.seat_table import new_seats
from light_tts.kernels.skinny_linear import Tiles
from light_tts.kernels.suite import KernelSuite
from light_tts.kernels.workspace import Workspace
from light_tts.llm.packed_weights import LayerWeights, PackedWeights
from light_tts.llm.step_plan import StepPlan, default_plan
from light_tts.models.kv_cache import Int8Rows, KVCache, Rows

_WORKSPACE_FLOATS = 1 << 22
_WORKSPACE_TILES = 1 << 14

Attend = Callable[[Tensor, KVRows, KVRows], Tensor]
Plan = Callable[[int], StepPlan | None]


@dataclass(frozen=True, slots=True)
class Prompts:
    """What a forward over prompts reads.

    ids: (N,) int32, see `kernels.embed`
    last_rows: (S,) int32 rows whose sequences are complete, and get a token; row_seat: (S,) int32, their seats
    """

    packed: PackedPrompts
    ids: Tensor
    last_rows: Tensor
    row_seat: Tensor


class DeviceStep:
    """Kernels, weights, cache and seats of one device, and the memory they share. One stream."""

    def __init__(
        self,
        weights: PackedWeights,
        cache: KVCache,
        suite: KernelSuite,
        *,
        num_seats: int,
        max_rows: int,
        max_len: int,
        scratch_slot: int,
        plan: Plan = default_plan,
    ) -> None:
        """max_rows: of a step, rows that fill it up included; max_len: tokens of the longest sequence
        scratch_slot: of the cache, where rows that are nobody's store
        """
        device = weights.head.device
        self.weights, self.suite, self.max_rows, self.device = weights, suite, max_rows, device
        self.num_seats = num_seats
        self._plan = plan
        self._cache = [
            (_kernel_rows(k), _kernel_rows(v)) for k, v in zip(cache.keys, cache.values, strict=True)
        ]
        self._max_len = max_len
        self.scratch_slot = scratch_slot
        self.seats = new_seats(num_seats, device)
        self.row_seat = torch.full((max_rows,), num_seats, dtype=torch.int32, device=device)
        self.tokens = torch.zeros(max_rows, dtype=torch.int32, device=device)
        self._row_start = torch.zeros(max_rows, dtype=torch.int32, device=device)
        self._row_pos = torch.zeros(max_rows, dtype=torch.int32, device=device)
        self._workspace = Workspace.on(device, _WORKSPACE_FLOATS, _WORKSPACE_TILES)

    def decode(self, num_rows: int) -> None:
        """The sequences in `row_seat[:num_rows]` read their last tokens; the next ones come into `tokens`."""
        row_seat, tokens = self.row_seat[:num_rows], self.tokens[:num_rows]
        table = self.weights.speech_table
        x = torch.empty((num_rows, table.shape[1]), dtype=table.dtype, device=self.device)
        squares = torch.empty((1, num_rows), device=self.device)
        start, position = self._row_start[:num_rows], self._row_pos[:num_rows]
        self.suite.begin_step(self.seats, row_seat, table, self.scratch_slot, x, squares, start, position)

        def attend(qkv: Tensor, keys: KVRows, values: KVRows) -> Tensor:
            w = self.weights
            return self.suite.flash_decode(
                qkv, w.heads, keys, values, start, position, w.cos, w.sin, self._max_len, self._workspace
            )

        plan = self._plan(num_rows)
        fused = None if plan is None else self._fused(x, squares, attend, plan)
        logits = self._head(self._layers(x, attend)) if fused is None else fused
        self.suite.sample(logits, self.seats, row_seat, tokens)

    def prefill(self, prompts: Prompts) -> Tensor:
        """Read prompts, or pieces of them. Returns (S,) int32: the first tokens of those that are complete."""
        w = self.weights

        def attend(qkv: Tensor, keys: KVRows, values: KVRows) -> Tensor:
            query = self.suite.rotary_store(qkv, w.heads, keys, values, prompts.packed, w.cos, w.sin)
            return self.suite.flash_prefill(query, keys, values, prompts.packed)

        normed = self._layers(self.suite.embed(prompts.ids, w.speech_table, w.text_table), attend)
        tokens = torch.empty_like(prompts.row_seat)
        if len(tokens):
            logits = self._head(normed[prompts.last_rows.long()])
            self.suite.sample(logits, self.seats, prompts.row_seat, tokens)
        return tokens

    def _layers(self, x: Tensor, attend: Attend) -> Tensor:
        """(N, hidden) to (N, hidden) after the final norm, with the library's matrix products."""
        eps, delta = self.weights.eps, None
        for layer, (keys, values) in zip(self.weights.layers, self._cache, strict=True):
            normed = self.suite.add_rms_norm(x, delta, None, eps)
            attended = attend(F.linear(normed, layer.qkv, layer.qkv_bias), keys, values)
            normed = self.suite.add_rms_norm(x, F.linear(attended, layer.out), None, eps)
            gated = self.suite.silu_mul(F.linear(normed, layer.gate_up))
            delta = F.linear(gated, layer.down)
        return self.suite.add_rms_norm(x, delta, None, eps)

    def _head(self, normed: Tensor) -> Tensor:
        return F.linear(normed, self.weights.head, self.weights.head_bias).float()

    def _fused(self, x: Tensor, squares: Tensor, attend: Attend, plan: StepPlan) -> Tensor:
        """(B, hidden) to (B, num_ids) float32, five kernels a layer."""
        for layer, (keys, values) in zip(self.weights.layers, self._cache, strict=True):
            qkv = self._normed(x, squares, layer.qkv, plan.qkv, layer.qkv_bias)
            squares = self._add(attend(qkv, keys, values), layer.out, plan.out, x)
            gated = self._gated(x, squares, layer, plan.gate_up)
            squares = self._add(gated, layer.down, plan.down, x)
        w = self.weights
        return self._normed(x, squares, w.head, plan.head, w.head_bias, torch.float32)

    def _normed(
        self,
        x: Tensor,
        squares: Tensor,
        weight: Tensor,
        tiles: Tiles,
        bias: Tensor | None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        out = torch.empty((len(x), len(weight)), dtype=dtype or x.dtype, device=x.device)
        self.suite.skinny_linear(
            x,
            weight,
            out,
            tiles=tiles,
            workspace=self._workspace,
            bias=bias,
            squares=squares,
            eps=self.weights.eps,
        )
        return out

    def _gated(self, x: Tensor, squares: Tensor, layer: LayerWeights, tiles: Tiles) -> Tensor:
        out = torch.empty((len(x), len(layer.gate_up) // 2), dtype=x.dtype, device=x.device)
        self.suite.skinny_linear(
            x,
            layer.gate_up,
            out,
            tiles=tiles,
            workspace=self._workspace,
            squares=squares,
            eps=self.weights.eps,
            gated=True,
        )
        return out

    def _add(self, inputs: Tensor, weight: Tensor, tiles: Tiles, x: Tensor) -> Tensor:
        """Adds the product to `x`; returns the parts of its rows' sums of squares."""
        squares = torch.empty((-(-len(weight) // tiles.block_n), len(x)), device=x.device)
        self.suite.skinny_linear(
            inputs, weight, x, tiles=tiles, workspace=self._workspace, out_squares=squares
        )
        return squares


def _kernel_rows(rows: Rows) -> KVRows:
    if isinstance(rows, Int8Rows):
        return KVRows(rows.data, rows.scales)
    assert isinstance(rows, Tensor)
    return KVRows(rows)
