"""Which implementation of each kernel runs: Triton's or the reference. The only place that chooses."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from light_tts.kernels import (
    embed,
    flash_decode,
    flash_prefill,
    rms_norm,
    rotary,
    sample,
    silu_mul,
    skinny_linear,
)
from light_tts.kernels.flash_prefill import PackedPrompts
from light_tts.kernels.kv_rows import KVRows
from light_tts.kernels.lang import can_run
from light_tts.kernels.skinny_linear import Tiles
from light_tts.kernels.workspace import Workspace

KERNELS = frozenset(
    "add_rms_norm silu_mul embed begin_step rotary_store flash_decode flash_prefill skinny_linear sample".split()
)


@dataclass(frozen=True, slots=True)
class KernelSuite:
    """fast: names of the kernels that run in Triton; the others run as their references, with the same results
    pdl: programmatic dependent launch: 0: none; 1: a step's kernel is set up while the one before it ends; 2: as soon
        as there is room, and brings its weights into the L2 cache meanwhile
    """

    fast: frozenset[str] = frozenset()
    pdl: int = 0

    def __post_init__(self) -> None:
        if unknown := self.fast - KERNELS:
            raise ValueError(f"there are no kernels named {sorted(unknown)}")

    @classmethod
    def best(cls, device: torch.device, dtype: torch.dtype) -> KernelSuite:
        """All in Triton on a GPU in half precision, else all references."""
        half = dtype in (torch.float16, torch.bfloat16)
        return cls(KERNELS if half and device.type == "cuda" and can_run(device) else frozenset())

    def without(self, *names: str) -> KernelSuite:
        return replace(self, fast=self.fast - set(names))

    def add_rms_norm(self, x: Tensor, delta: Tensor | None, weight: Tensor | None, eps: float) -> Tensor:
        if "add_rms_norm" in self.fast:
            return rms_norm.add_rms_norm_triton(x, delta, weight, eps)
        return rms_norm.add_rms_norm_reference(x, delta, weight, eps)

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        if "silu_mul" in self.fast:
            return silu_mul.silu_mul_triton(gate_up)
        return silu_mul.silu_mul_reference(gate_up)

    def embed(self, ids: Tensor, speech_table: Tensor, text_table: Tensor) -> Tensor:
        if "embed" in self.fast:
            return embed.embed_triton(ids, speech_table, text_table)
        return embed.embed_reference(ids, speech_table, text_table)

    def begin_step(
        self,
        seats: Tensor,
        row_seat: Tensor,
        speech_table: Tensor,
        scratch_slot: int,
        x: Tensor,
        squares: Tensor,
        row_start: Tensor,
        row_pos: Tensor,
    ) -> None:
        arguments = (seats, row_seat, speech_table, scratch_slot, x, squares, row_start, row_pos)
        if "begin_step" in self.fast:
            embed.begin_step_triton(*arguments, pdl=self.pdl)
        else:
            embed.begin_step_reference(*arguments)

    def rotary_store(
        self,
        qkv: Tensor,
        heads: int,
        keys: KVRows,
        values: KVRows,
        prompts: PackedPrompts,
        cos: Tensor,
        sin: Tensor,
    ) -> Tensor:
        arguments = (qkv, heads, keys, values, prompts.positions, prompts.slots, cos, sin)
        if "rotary_store" in self.fast:
            return rotary.rotary_store_triton(*arguments)
        return rotary.rotary_store_reference(*arguments)

    def flash_prefill(self, query: Tensor, keys: KVRows, values: KVRows, prompts: PackedPrompts) -> Tensor:
        if "flash_prefill" in self.fast:
            return flash_prefill.flash_prefill_triton(query, keys, values, prompts)
        return flash_prefill.flash_prefill_reference(query, keys, values, prompts)

    def flash_decode(
        self,
        qkv: Tensor,
        heads: int,
        keys: KVRows,
        values: KVRows,
        row_start: Tensor,
        row_pos: Tensor,
        cos: Tensor,
        sin: Tensor,
        max_len: int,
        workspace: Workspace,
    ) -> Tensor:
        arguments = (qkv, heads, keys, values, row_start, row_pos, cos, sin, max_len)
        if "flash_decode" in self.fast:
            return flash_decode.flash_decode_triton(*arguments, workspace, pdl=self.pdl)
        return flash_decode.flash_decode_reference(*arguments)

    def skinny_linear(
        self,
        x: Tensor,
        weight: Tensor,
        out: Tensor,
        *,
        tiles: Tiles,
        workspace: Workspace,
        bias: Tensor | None = None,
        squares: Tensor | None = None,
        eps: float = 0.0,
        gated: bool = False,
        out_squares: Tensor | None = None,
    ) -> None:
        options = {"bias": bias, "squares": squares, "out_squares": out_squares}
        if "skinny_linear" in self.fast:
            skinny_linear.skinny_linear_triton(
                x,
                weight,
                out,
                tiles=tiles,
                workspace=workspace,
                eps=eps,
                gated=gated,
                pdl=self.pdl,
                **options,
            )
        else:
            skinny_linear.skinny_linear_reference(x, weight, out, eps=eps, gated=gated, **options)

    def sample(self, logits: Tensor, seats: Tensor, row_seat: Tensor, out: Tensor) -> None:
        if "sample" in self.fast:
            sample.sample_triton(logits, seats, row_seat, out, pdl=self.pdl)
        else:
            sample.sample_reference(logits, seats, row_seat, out)
