"""What goes into the flow stage, and what it remembers of a stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from light_tts.models.flow.cfm import SolverState
from light_tts.models.flow.encoder import EncoderState

if TYPE_CHECKING:
    from light_tts.models.flow.fast.pool import Lease


@dataclass(frozen=True, slots=True)
class FlowPrompt:
    """A reference voice.

    tokens: (P,) int64 on the CPU, speech tokens of the reference recording
    mel: (M, 80) float32, its mel; M is 2 P for trimmed prompts
    embedding: (spk_embed_dim,) speaker embedding, not normalised
    """

    tokens: Tensor
    mel: Tensor
    embedding: Tensor

    @classmethod
    def without_recording(cls, embedding: Tensor, mel_bins: int = 80) -> FlowPrompt:
        """A voice of which only the embedding is known."""
        return cls(torch.zeros(0, dtype=torch.int64), torch.zeros(0, mel_bins), embedding)


@dataclass(frozen=True, slots=True)
class FlowInput:
    """One utterance for `Flow.forward`.

    tokens: (N,) int64 on the CPU, all speech tokens from the first; the prompt's are not among them
    finalize: nothing follows. Otherwise the last `pre_lookahead_len` tokens are context and yield no mel.
    """

    tokens: Tensor
    prompt: FlowPrompt
    finalize: bool = True


@dataclass(frozen=True, slots=True)
class FlowChunk:
    """What has arrived for one stream since its last chunk: each token is fed exactly once.

    tokens: (N,) int64 on the CPU
    finalize: nothing follows
    """

    tokens: Tensor
    finalize: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """What the fast flow keeps of a stream.

    spoken: (num_tokens,) int64 on the CPU, all tokens that are processed, for doing them again
    lease: None where there was no memory: each chunk then computes all that came before once more
    parity: which of the lease's two sets of convolution tails is this state's
    shared: a voice's, which streams copy and never write to
    """

    spoken: Tensor
    lease: Lease | None
    parity: int = 0
    shared: bool = False


@dataclass(frozen=True, slots=True)
class FlowState:
    """One stream between two calls: a value, so that several streams may continue from the same one.

    num_tokens: tokens processed, the prompt's included
    pending: (n,) int64 on the CPU, tokens that have arrived but are not processed: the look-ahead of the last
        chunk, or the part of the prompt beyond the last chunk border
    prompt_mel: (M, 80) in the model's dtype
    speaker: (1, 80) projected speaker embedding
    encoder, solver: None before the first token is processed, and where `held` keeps the same in preallocated memory
    """

    num_tokens: int
    pending: Tensor
    prompt_mel: Tensor
    speaker: Tensor
    encoder: EncoderState | None = None
    solver: SolverState | None = None
    held: Held | None = None


@dataclass(frozen=True, slots=True)
class FlowRow:
    """One row of a batch call: process `num_new` of `tokens`, the rest is look-ahead or waits.

    tokens: (n,) int64 on the CPU, the state's pending ones and those that arrived
    """

    state: FlowState
    tokens: Tensor
    num_new: int
    finalize: bool
