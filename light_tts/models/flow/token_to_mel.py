"""The flow stage: speech tokens and a reference voice in, mel spectrogram out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from light_tts.errors import GenerationFailed
from light_tts.models.config import DiTConfig, FlowConfig, UNetConfig
from light_tts.models.flow.cfm import Estimator, SolverState, solve
from light_tts.models.flow.dit import DiT
from light_tts.models.flow.encoder import EncoderState, UpsampleConformerEncoder
from light_tts.models.flow.flow_state import FlowChunk, FlowInput, FlowPrompt, FlowRow, FlowState
from light_tts.models.flow.lookahead import PreLookaheadLayer
from light_tts.models.flow.noise import NOISE_FRAMES, fixed_noise
from light_tts.models.flow.unet import ConditionalUNet
from light_tts.models.layers.ragged import Frames

MAX_BATCH_FRAMES = 3000


class Decoder(nn.Module):
    """Holds the estimator under the checkpoint's name; the solver itself is a function."""

    def __init__(self, cfg: UNetConfig | DiTConfig) -> None:
        super().__init__()
        self.estimator = ConditionalUNet(cfg) if isinstance(cfg, UNetConfig) else DiT(cfg)


class Flow(nn.Module):
    """Two ways to the same mel: `forward` from all tokens at once, `stream` from what is new.

    With `streaming=True` the first equals the second: attention then looks to the end of its chunk only.
    Chunks of `chunk_size` tokens are counted from the start of the prompt.
    """

    def __init__(self, cfg: FlowConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.input_embedding = nn.Embedding(cfg.vocab_size, cfg.input_size)
        self.spk_embed_affine_layer = nn.Linear(cfg.spk_embed_dim, cfg.output_size)
        self.encoder: UpsampleConformerEncoder | None = None
        if cfg.encoder is not None:
            self.encoder = UpsampleConformerEncoder(cfg.encoder)
            self.encoder_proj = nn.Linear(cfg.encoder.output_size, cfg.output_size)
        else:
            channels = cfg.pre_lookahead_channels or cfg.input_size
            self.pre_lookahead_layer = PreLookaheadLayer(cfg.input_size, channels, cfg.pre_lookahead_len)
        self.decoder = Decoder(cfg.estimator)

    @property
    def chunk_size(self) -> int:
        """Streaming attention chunk, in tokens."""
        return self.cfg.estimator.chunk_size // self.cfg.token_mel_ratio

    @property
    def max_batch_frames(self) -> int:
        """Mel frames of one call that pay, padding and prompts included."""
        return MAX_BATCH_FRAMES

    @property
    def state_bytes_per_frame(self) -> int | None:
        """Memory of a stream where that is known beforehand."""
        return None

    @property
    def device(self) -> torch.device:
        return self.input_embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.input_embedding.weight.dtype

    def forward(
        self, inputs: Sequence[FlowInput], streaming: bool = False, estimator: Estimator | None = None
    ) -> list[Tensor]:
        """Whole utterances; rows may differ in length, voice and `finalize`.

        streaming: chunked attention masks instead of full ones, for all rows; estimator: in place of the own one
        Returns the speech's mel of each row without the prompt's, (80, frames) float32.
        Raises GenerationFailed for tokens outside the vocabulary and for more than 300 s, ValueError for rows
        that are not final and hold no more than the look-ahead.
        """
        rows = []
        for item in inputs:
            state = self.start(item.prompt)
            rows.append(self.row(state, FlowChunk(item.tokens, item.finalize)))
        chunk = self.chunk_size if streaming else 0
        mels, _ = self._advance(rows, chunk, keep_state=False, estimator=estimator)
        return mels

    def stream(
        self, chunks: Sequence[FlowChunk], states: Sequence[FlowState]
    ) -> tuple[list[Tensor], list[FlowState | None]]:
        """The next piece of several streams; computes new tokens only.

        states: from `prefill_prompt`, `start` or the last call; none is changed
        Returns for each stream the mel that follows the last call's, (80, frames) float32, and the next
        state, None after a final chunk.
        Raises ValueError for a chunk that is not final and does not end, without its look-ahead, on a chunk
        border counted from the start of the prompt; otherwise as `forward`.
        """
        rows = [self.row(state, chunk) for chunk, state in zip(chunks, states, strict=True)]
        for row in rows:
            self.check_border(row)
        return self._advance(rows, self.chunk_size, keep_state=True)

    def warm(self, shapes: Iterable[tuple[int, int, bool]]) -> None:
        """Prepare for batches of these shapes: rows, new tokens of each, whether of streams. Nothing to do here."""

    def start(self, prompt: FlowPrompt) -> FlowState:
        """A stream of which nothing is computed yet."""
        bins, size = self.cfg.output_size, self.cfg.spk_embed_dim
        if prompt.embedding.shape != (size,) or prompt.mel.ndim != 2 or prompt.mel.shape[1] != bins:
            raise ValueError(
                f"speaker embedding {list(prompt.embedding.shape)} and prompt mel {list(prompt.mel.shape)}, "
                f"must be [{size}] and [frames, {bins}]"
            )
        embedding = F.normalize(prompt.embedding.to(self.device, torch.float32)[None], dim=1)
        return FlowState(
            num_tokens=0,
            pending=prompt.tokens,
            prompt_mel=prompt.mel.to(self.device, self.dtype),
            speaker=self.spk_embed_affine_layer(embedding.to(self.dtype)),
        )

    def prefill_prompt(self, prompt: FlowPrompt) -> FlowState:
        """The stream after the prompt's own whole chunks: the same for every request of a voice.

        The rest of the prompt waits in the state and is computed with the first chunk.
        """
        state = self.start(prompt)
        num_new = self.prefill_length(prompt)
        if num_new <= 0:
            return state
        row = FlowRow(state, prompt.tokens, num_new, finalize=False)
        _, (filled,) = self._advance([row], self.chunk_size, keep_state=True)
        assert filled is not None
        return filled

    def prefill_length(self, prompt: FlowPrompt) -> int:
        """Tokens of a prompt that `prefill_prompt` computes; none where it is not above 0."""
        known = min(
            len(prompt.tokens) - self.cfg.pre_lookahead_len, len(prompt.mel) // self.cfg.token_mel_ratio
        )
        return known // self.chunk_size * self.chunk_size

    def condition(
        self,
        tokens: Tensor,
        frames: Frames,
        context: Tensor | None = None,
        finalize: Tensor | None = None,
        state: EncoderState | None = None,
        keep_state: bool = False,
    ) -> tuple[Tensor, EncoderState | None]:
        """What the estimator follows: tokens (B, T) to mu (B, 80, 2 T), undefined on right padding.

        frames: at the token rate
        context: (B, pre_lookahead_len) tokens after each row's last one; None: all rows end here
        finalize: (B,) bool, rows that end here; their context is ignored
        Negative tokens count as 0.
        """
        x = self.input_embedding(tokens.clamp(min=0))
        ahead = None if context is None else self.input_embedding(context.clamp(min=0))
        if self.encoder is not None:
            hidden, state = self.encoder(x, frames, ahead, finalize, state, keep_state)
            return self.encoder_proj(hidden).transpose(1, 2), state
        if ahead is not None and finalize is not None:
            ahead = ahead.masked_fill(finalize.to(ahead.device)[:, None, None], 0.0)
        hidden, tail = self.pre_lookahead_layer(
            x, frames, ahead, None if state is None else state.lookahead_tail
        )
        mu = hidden.transpose(1, 2).repeat_interleave(self.cfg.token_mel_ratio, dim=2)
        return mu, EncoderState(frames.past_lens + frames.new_lens, tail) if keep_state else None

    def row(self, state: FlowState, chunk: FlowChunk) -> FlowRow:
        """What a chunk adds to a stream. Raises ValueError if that is no more than look-ahead."""
        tokens = torch.cat([state.pending, chunk.tokens])
        num_new = len(tokens) - (0 if chunk.finalize else self.cfg.pre_lookahead_len)
        if num_new <= 0 and not chunk.finalize:
            raise ValueError(
                f"{len(tokens)} tokens are not more than the {self.cfg.pre_lookahead_len} of look-ahead"
            )
        return FlowRow(state, tokens, num_new, chunk.finalize)

    def _advance(
        self,
        rows: Sequence[FlowRow],
        chunk: int,
        keep_state: bool,
        estimator: Estimator | None = None,
    ) -> tuple[list[Tensor], list[FlowState | None]]:
        """Process `num_new` tokens of each row. Returns mels without the prompt's frames, and next states."""
        for row in rows:
            self.check(row)
        states = [row.state for row in rows]
        frames = _frames(rows, chunk)
        if frames.num_new == 0:
            return [self.new_mel(row, row.state.prompt_mel.T.float()[:, :0]) for row in rows], [None] * len(
                rows
            )
        tokens, context, finalize = self._tokens(rows, frames)
        keep_state = keep_state and not bool(finalize.all())
        encoder = EncoderState.stack([state.encoder for state in states])
        mu, encoder = self.condition(tokens, frames, context, finalize, encoder, keep_state)
        noise, cond = self._noise_and_prompt(rows, frames)
        mel, solver = solve(
            estimator or self.decoder.estimator,
            noise,
            mu,
            torch.cat([state.speaker for state in states]),
            cond,
            frames.scaled(self.cfg.token_mel_ratio),
            self.cfg.inference_cfg_rate,
            self.cfg.num_steps,
            SolverState.stack([state.solver for state in states]),
            keep_state,
        )
        mels = [self.new_mel(row, mel[index].float()) for index, row in enumerate(rows)]
        if encoder is None or solver is None:
            return mels, [None] * len(rows)
        following = zip(rows, encoder.split(), solver.split(), strict=True)
        return mels, [_next_state(row, enc, sol) for row, enc, sol in following]

    def check_border(self, row: FlowRow) -> None:
        """Raise ValueError for a row that goes on, but not from a chunk border."""
        end = row.state.num_tokens + row.num_new
        if not row.finalize and end % self.chunk_size:
            raise ValueError(
                f"chunk ends {end} tokens after the prompt's start (look-ahead not counted), must be a "
                f"multiple of {self.chunk_size}"
            )

    def check(self, row: FlowRow) -> None:
        """Raise GenerationFailed before a bad row can reach the device, where an index error is fatal."""
        largest = int(row.tokens.max()) if len(row.tokens) else 0
        if largest >= self.cfg.vocab_size:
            raise GenerationFailed(f"speech token {largest}, must be below {self.cfg.vocab_size}")
        num_frames = (row.state.num_tokens + row.num_new) * self.cfg.token_mel_ratio
        if num_frames > NOISE_FRAMES:
            raise GenerationFailed(
                f"prompt and speech are {num_frames} mel frames together, limit {NOISE_FRAMES} (300 s)"
            )

    def _tokens(self, rows: Sequence[FlowRow], frames: Frames) -> tuple[Tensor, Tensor, Tensor]:
        """Padded new tokens (B, T) and look-ahead (B, 3), on the device; which rows end, (B,) on the CPU."""
        lookahead = self.cfg.pre_lookahead_len
        tokens = torch.zeros(len(rows), frames.num_new, dtype=torch.int64)
        context = torch.zeros(len(rows), lookahead, dtype=torch.int64)
        for index, row in enumerate(rows):
            tokens[index, : row.num_new] = row.tokens[: row.num_new]
            if not row.finalize:
                context[index] = row.tokens[row.num_new : row.num_new + lookahead]
        finalize = torch.tensor([row.finalize for row in rows])
        return tokens.to(self.device), context.to(self.device), finalize

    def _noise_and_prompt(self, rows: Sequence[FlowRow], frames: Frames) -> tuple[Tensor, Tensor]:
        """Start of the solver, float32, and the prompt's mel followed by zeros: both (B, 80, 2 T)."""
        ratio, bins = self.cfg.token_mel_ratio, self.cfg.output_size
        source = fixed_noise(bins, self.device)
        noise = torch.zeros(len(rows), bins, frames.num_new * ratio, device=self.device)
        cond = torch.zeros_like(noise, dtype=self.dtype)
        for index, row in enumerate(rows):
            start, length = row.state.num_tokens * ratio, row.num_new * ratio
            noise[index, :, :length] = source[:, start : start + length]
            prompt = row.state.prompt_mel[start : start + length]
            cond[index, :, : len(prompt)] = prompt.T
        return noise, cond

    def new_mel(self, row: FlowRow, mel: Tensor) -> Tensor:
        """The valid frames of (80, 2 T) that lie beyond the prompt."""
        ratio = self.cfg.token_mel_ratio
        prompt_left = len(row.state.prompt_mel) - row.state.num_tokens * ratio
        return mel[:, max(0, prompt_left) : row.num_new * ratio]


def _frames(rows: Sequence[FlowRow], chunk: int) -> Frames:
    past = [row.state.num_tokens for row in rows]
    new = [row.num_new for row in rows]
    return Frames(torch.tensor(past), torch.tensor(new), max(new), chunk, max(past))


def _next_state(row: FlowRow, encoder: EncoderState, solver: SolverState) -> FlowState | None:
    if row.finalize:
        return None
    return replace(
        row.state,
        num_tokens=row.state.num_tokens + row.num_new,
        pending=row.tokens[row.num_new :],
        encoder=encoder,
        solver=solver,
    )
