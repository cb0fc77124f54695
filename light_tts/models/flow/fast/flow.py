"""`Flow` for GPUs: the same calls, on packed half-precision weights, preallocated streams and recorded graphs."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from light_tts.models.config import FlowConfig
from light_tts.models.flow.cfm import time_steps
from light_tts.models.flow.dit import DiT
from light_tts.models.flow.fast.dit import FastDiT
from light_tts.models.flow.fast.encoder import FastEncoder
from light_tts.models.flow.fast.estimator import FastEstimator
from light_tts.models.flow.fast.ops import Ops
from light_tts.models.flow.fast.plan import Inputs, Plan, num_numbers, pack
from light_tts.models.flow.fast.pool import Lease, PoolShape, StreamPool
from light_tts.models.flow.fast.solution import Solution
from light_tts.models.flow.fast.unet import FastUNet
from light_tts.models.flow.flow_state import FlowChunk, FlowInput, FlowPrompt, FlowRow, FlowState, Held
from light_tts.models.flow.token_to_mel import Flow
from light_tts.models.graphs import Graphs

EXPECTED_FRAMES = 500  # of speech: memory for so many is taken at once
MAX_BATCH_FRAMES = 16_000


class FastFlow:
    """Answers as its oracle `Flow` does, within the rounding of `dtype`.

    pool_bytes: memory for streams; those for which there is none compute all that came before with each chunk
    stream_dtype: of the residual sums; record: as graphs, where there is a GPU; recording: see `Graphs`
    """

    def __init__(
        self,
        flow: Flow,
        dtype: torch.dtype,
        *,
        pool_bytes: int,
        num_slots: int = 256,
        stream_dtype: torch.dtype | None = None,
        ops: Ops | None = None,
        record: bool = True,
        recording: threading.Lock | None = None,
    ) -> None:
        self._flow, self._dtype = flow, dtype
        ops = ops or Ops.best(flow.device, dtype)
        times, deltas = time_steps(flow.cfg.num_steps)
        times, residuals = times.to(flow.device), stream_dtype or dtype
        oracle = flow.decoder.estimator
        with torch.inference_mode():
            estimator: FastEstimator = (
                FastDiT(oracle, times, dtype, residuals, ops)
                if isinstance(oracle, DiT)
                else FastUNet(oracle, times, dtype, residuals, ops)
            )
            encoder = FastEncoder(flow, dtype)
            shape = self._pool_shape(estimator, encoder, dtype)
            self.pool = StreamPool(shape, pool_bytes // shape.bytes_per_frame, num_slots, flow.device)
            self._solution = Solution(flow.cfg, encoder, estimator, self.pool, tuple(deltas), flow.device)
        self._graphs: Graphs[Inputs] = Graphs(flow.device, record=record, recording=recording)

    def _pool_shape(self, estimator: FastEstimator, encoder: FastEncoder, dtype: torch.dtype) -> PoolShape:
        cfg = self._flow.cfg
        return PoolShape(
            steps=cfg.num_steps,
            layers=estimator.num_attentions,
            inner=estimator.inner,
            halves=2 if cfg.inference_cfg_rate else 1,
            ratio=cfg.token_mel_ratio,
            tails=estimator.tails,
            token_layers=encoder.token_layers,
            mel_layers=encoder.mel_layers,
            width=encoder.width,
            encoder_tails=tuple(encoder.tails),
            dtype=dtype,
        )

    @property
    def cfg(self) -> FlowConfig:
        return self._flow.cfg

    @property
    def chunk_size(self) -> int:
        return self._flow.chunk_size

    @property
    def max_batch_frames(self) -> int:
        return MAX_BATCH_FRAMES

    @property
    def state_bytes_per_frame(self) -> int:
        return self.pool.shape.bytes_per_frame

    def start(self, prompt: FlowPrompt) -> FlowState:
        """As `Flow.start`."""
        return self._flow.start(prompt)

    def __call__(self, inputs: Sequence[FlowInput], streaming: bool = False) -> list[Tensor]:
        """As `Flow.forward`."""
        rows = []
        for item in inputs:
            rows.append(self._flow.row(self.start(item.prompt), FlowChunk(item.tokens, item.finalize)))
        for row in rows:
            self._flow.check(row)
        mels = self._mels(rows, [None] * len(rows), [0] * len(rows), streaming=streaming)
        return [self._flow.new_mel(row, mel) for row, mel in zip(rows, mels, strict=True)]

    def prefill_prompt(self, prompt: FlowPrompt) -> FlowState:
        """As `Flow.prefill_prompt`; where there is no memory, nothing is computed ahead."""
        state, num_new = self.start(prompt), self._flow.prefill_length(prompt)
        lease = self.pool.lend(num_new * self.cfg.token_mel_ratio) if num_new > 0 else None
        if lease is None:
            return state
        row = FlowRow(state, prompt.tokens, num_new, finalize=False)
        self._flow.check(row)
        with self._graphs.turn():
            self.pool.clear_tails(lease)
            self._mels([row], [lease], [0], streaming=True)
        after = _following(row, lease, 0)
        assert after is not None
        assert after.held is not None
        return replace(after, held=replace(after.held, shared=True))

    def stream(
        self, chunks: Sequence[FlowChunk], states: Sequence[FlowState]
    ) -> tuple[list[Tensor], list[FlowState | None]]:
        """As `Flow.stream`."""
        rows = [self._flow.row(state, chunk) for chunk, state in zip(chunks, states, strict=True)]
        for row in rows:
            self._flow.check_border(row)
            self._flow.check(row)
        with self._graphs.turn():
            leases = [self._lease(row) for row in rows]
        parities = [row.state.held.parity if row.state.held else 0 for row in rows]
        kept = [index for index, lease in enumerate(leases) if lease is not None]
        again = [index for index, lease in enumerate(leases) if lease is None]
        mels: dict[int, Tensor] = {}
        if kept:
            picked = ([of[index] for index in kept] for of in (rows, leases, parities))
            mels.update(zip(kept, self._mels(*picked, streaming=True), strict=True))  # type: ignore[arg-type]
        for index in again:
            mels[index] = self._anew(rows[index])
        return (
            [self._flow.new_mel(row, mels[index]) for index, row in enumerate(rows)],
            [_following(*one) for one in zip(rows, leases, parities, strict=True)],
        )

    def warm(self, shapes: Iterable[tuple[int, int, bool]]) -> None:
        """Record graphs ahead. shapes: (batch, new tokens, whether a stream's)"""
        for batch, tokens, streamed in shapes:
            chunk, past = (self.chunk_size, 0) if streamed else (0, None)
            nobody = Plan(
                batch, -(-tokens // self.chunk_size) * self.chunk_size, self.cfg.pre_lookahead_len, chunk
            )
            plan = nobody if past is None else replace(nobody, past_tokens=256)
            self._execute(plan, [], [], [])

    def _anew(self, row: FlowRow) -> Tensor:
        """The mel of a row's new tokens, by computing all from the first on under the same masks."""
        done = row.state.num_tokens
        spoken = row.state.held.spoken if row.state.held else row.tokens[:0]
        fresh = replace(row.state, num_tokens=0, held=None)
        all_tokens = FlowRow(fresh, torch.cat([spoken, row.tokens]), done + row.num_new, row.finalize)
        (mel,) = self._mels([all_tokens], [None], [0], streaming=True)
        return mel[:, done * self.cfg.token_mel_ratio :]

    def _lease(self, row: FlowRow) -> Lease | None:
        """Memory for a stream after this row; what it had before is copied where it was a voice's or too little."""
        held, ratio = row.state.held, self.cfg.token_mel_ratio
        done = row.state.num_tokens * ratio
        needed = done + row.num_new * ratio
        if held is not None and held.lease is None:
            return None
        before = None if held is None else held.lease
        if before is not None and not (held and held.shared) and before.capacity >= needed:
            return before
        expected = max(
            needed, len(row.state.prompt_mel) + EXPECTED_FRAMES, before.capacity * 3 // 2 if before else 0
        )
        lease = self.pool.lend(expected) or self.pool.lend(needed)
        if lease is None:
            return None
        if before is not None:
            self.pool.copy(before, lease, done)
        else:
            self.pool.clear_tails(lease)
        return lease

    def _mels(
        self,
        rows: Sequence[FlowRow],
        leases: Sequence[Lease | None],
        parities: Sequence[int],
        *,
        streaming: bool,
    ) -> list[Tensor]:
        """(mel, frames) float32 of each row's new tokens, the prompt's included."""
        keeps, ratio = any(lease is not None for lease in leases), self.cfg.token_mel_ratio
        chunk = self.chunk_size if streaming else 0
        if not any(row.num_new for row in rows):
            return [row.state.prompt_mel.T.float()[:, :0] for row in rows]
        plan = Plan.fit(rows, self.chunk_size, self.cfg.pre_lookahead_len, chunk, keeps)
        mels = self._execute(plan, rows, leases, parities)
        return [mels[index, : row.num_new * ratio].T for index, row in enumerate(rows)]

    def _execute(
        self, plan: Plan, rows: Sequence[FlowRow], leases: Sequence[Lease | None], parities: Sequence[int]
    ) -> Tensor:
        """(B, frames, mel) float32"""
        numbers = pack(plan, rows, leases, parities)

        def fill(inputs: Inputs) -> None:
            _upload(numbers, inputs.numbers)
            inputs.cond.zero_()
            for index, row in enumerate(rows):
                start = row.state.num_tokens * self.cfg.token_mel_ratio
                prompt = row.state.prompt_mel[start:][: inputs.cond.shape[1]]
                if len(prompt):
                    inputs.cond[index, : min(len(prompt), row.num_new * self.cfg.token_mel_ratio)] = prompt[
                        : row.num_new * self.cfg.token_mel_ratio
                    ]
            if rows:
                inputs.speakers[: len(rows)] = torch.cat([row.state.speaker for row in rows])

        with torch.inference_mode(), self._graphs.turn():
            (mels,) = self._graphs.run(
                plan, lambda: self._inputs(plan), fill, lambda inputs: (self._solution(plan, inputs),)
            )
        return mels

    def _inputs(self, plan: Plan) -> Inputs:
        device, bins = self._flow.device, self.cfg.output_size
        frames = plan.tokens * self.cfg.token_mel_ratio
        return Inputs(
            torch.zeros(num_numbers(plan), dtype=torch.int32, device=device),
            torch.zeros(plan.batch, bins, dtype=self._dtype, device=device),
            torch.zeros(plan.batch, frames, bins, dtype=self._dtype, device=device),
        )


def _upload(numbers: Tensor, target: Tensor) -> None:
    if target.is_cuda:
        numbers = numbers.pin_memory()
    target.copy_(numbers, non_blocking=True)


def _following(row: FlowRow, lease: Lease | None, parity: int) -> FlowState | None:
    if row.finalize:
        return None
    before = row.state.held.spoken if row.state.held else row.tokens[:0]
    spoken = torch.cat([before, row.tokens[: row.num_new]])
    return replace(
        row.state,
        num_tokens=row.state.num_tokens + row.num_new,
        pending=row.tokens[row.num_new :],
        held=Held(spoken, lease, 1 - parity),
    )
