"""All Euler steps of a batch as one piece of work that reads nothing from the CPU: what a graph records."""

from __future__ import annotations

import torch
from torch import Tensor

from light_tts.models.config import FlowConfig
from light_tts.models.flow.fast.binding import Binding, Past
from light_tts.models.flow.fast.encoder import EncoderPast, FastEncoder, TokenRows
from light_tts.models.flow.fast.estimator import FastEstimator
from light_tts.models.flow.fast.ops import Segments
from light_tts.models.flow.fast.plan import Columns, Inputs, Plan, unpack
from light_tts.models.flow.fast.pool import StreamPool
from light_tts.models.flow.noise import NOISE_FRAMES, fixed_noise


class Solution:
    """Rows are (conditioned streams, then the same unconditioned), each padded to the plan's length."""

    def __init__(
        self,
        cfg: FlowConfig,
        encoder: FastEncoder,
        estimator: FastEstimator,
        pool: StreamPool,
        deltas: tuple[float, ...],
        device: torch.device,
    ) -> None:
        self._cfg, self._encoder, self._estimator, self._pool, self._deltas = (
            cfg,
            encoder,
            estimator,
            pool,
            deltas,
        )
        self._halves, self._ratio = pool.shape.halves, cfg.token_mel_ratio
        self._noise = fixed_noise(cfg.output_size, device).T.contiguous()

    def __call__(self, plan: Plan, inputs: Inputs) -> Tensor:
        """(B, frames, mel) float32, undefined on right padding."""
        columns = unpack(plan, inputs.numbers)
        rows = TokenRows(columns.tokens, columns.present, columns.past_lens, columns.new_lens, plan.chunk)
        mu = self._encoder(rows, self._encoder_past(plan, columns))
        binding = self._binding(plan, columns)
        velocity = self._estimator.bind(
            self._with_null(mu), self._with_null(inputs.speakers), self._with_null(inputs.cond), binding
        )
        frames = plan.tokens * self._ratio
        start = binding.positions[: plan.batch * frames].clamp(max=NOISE_FRAMES - 1)
        x = self._noise.index_select(0, start)  # (B * frames, mel)
        for step, delta in enumerate(self._deltas):
            rows_of_x = x.to(mu.dtype).view(plan.batch, frames, -1).repeat(self._halves, 1, 1)
            out = velocity(rows_of_x, step).float()
            if self._halves == 2:
                conditioned, null = out.chunk(2)
                out = torch.lerp(null, conditioned, 1 + self._cfg.inference_cfg_rate)
            x = torch.add(x, out, alpha=delta)
        return x.view(plan.batch, frames, -1)

    def _with_null(self, condition: Tensor) -> Tensor:
        return condition if self._halves == 1 else torch.cat([condition, torch.zeros_like(condition)])

    def _encoder_past(self, plan: Plan, columns: Columns) -> EncoderPast | None:
        if plan.past_tokens is None:
            return None
        return EncoderPast(
            self._pool.token_kv,
            self._pool.mel_kv,
            columns.base // self._ratio,
            columns.base,
            self._pool.encoder_tails,
            columns.read.int(),
            columns.write.int(),
            plan.past_tokens,
        )

    def _binding(self, plan: Plan, columns: Columns) -> Binding:
        frames, rows = plan.tokens * self._ratio, self._halves * plan.batch
        past, new = (
            (lens * self._ratio).repeat(self._halves) for lens in (columns.past_lens, columns.new_lens)
        )
        steps = torch.arange(frames, device=new.device)
        positions = past[:, None] + steps
        if plan.past_tokens is None:
            first = torch.arange(rows, device=new.device) * frames
            return Binding(
                rows, frames, new.int(), positions.flatten(), self._segments(plan, first, past, new), None
            )
        first = columns.key_rows[: self._halves].flatten()
        places = torch.where(steps < new[:, None], first[:, None] + positions, 0)
        half = torch.arange(self._halves, device=new.device).repeat_interleave(plan.batch)
        read, write = ((entry.repeat(self._halves) + half).int() for entry in (columns.read, columns.write))
        memory = Past(self._pool.keys_values, places.flatten(), self._pool.tails, read, write)
        return Binding(
            rows, frames, new.int(), positions.flatten(), self._segments(plan, first, past, new), memory
        )

    def _segments(self, plan: Plan, first: Tensor, past: Tensor, new: Tensor) -> Segments:
        """One piece per row, or one per attention chunk: it sees all keys up to its own end."""
        frames = plan.tokens * self._ratio
        step = plan.chunk * self._ratio or frames
        ends = torch.arange(1, frames // step + 1, device=new.device) * step
        lens = past[:, None] + torch.minimum(ends, new[:, None])
        starts = first[:, None].expand_as(lens)
        most = frames + (plan.past_tokens or 0) * self._ratio
        return Segments.of(starts.flatten().int(), lens.flatten().int().clamp(min=1), step, most)
