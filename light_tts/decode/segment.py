"""One text segment on its way from speech tokens to audio."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from light_tts.decode.stream import Chunk, HopSchedule
from light_tts.models.flow.flow_state import FlowChunk, FlowPrompt, FlowState
from light_tts.models.vocoder.mel_stretch import MelStretcher
from light_tts.models.vocoder.overlap_add import OverlapState, RevocodeState
from light_tts.models.vocoder.source_noise import SourceNoise
from light_tts.models.vocoder.streaming import VocoderState


@dataclass(frozen=True, slots=True)
class SpokenTokens:
    """A whole segment.

    tokens: (N,) int64 on the CPU
    noise: the vocoder's randomness
    speed: above 1 is faster; the pitch stays
    """

    tokens: Tensor
    prompt: FlowPrompt
    noise: SourceNoise
    speed: float = 1.0


@dataclass(slots=True)
class SegmentStream:
    """A segment that is decoded while its tokens still arrive. `SpeechDecoder.open` makes it.

    noise_of_call: the noise of the k-th vocoder call (k = 1, 2, ...), where quirk `overlap_add_vocoder` starts anew
        each time
    """

    prompt: FlowPrompt
    noise: SourceNoise
    schedule: HopSchedule
    flow_state: FlowState
    stretcher: MelStretcher | None
    tokens: list[int] = field(default_factory=list)
    ended: bool = False
    num_fed: int = 0
    vocoder_state: VocoderState | None = None
    overlap_state: OverlapState | RevocodeState | None = None
    noise_of_call: Callable[[int], SourceNoise] | None = None
    num_calls: int = 0

    def add(self, token: int) -> None:
        self.tokens.append(token)

    def end(self) -> None:
        """No more tokens will come."""
        self.ended = True

    @property
    def finished(self) -> bool:
        """All audio has been handed out."""
        return self.schedule.finished

    def next_chunk(self) -> Chunk | None:
        """The chunk that is ready now; taking it moves the schedule on."""
        return self.schedule.next_chunk(len(self.tokens), self.ended)

    def feed(self, chunk: Chunk, lookahead: int) -> FlowChunk:
        """The tokens that the flow has not seen yet, up to the chunk's end and its look-ahead."""
        end = len(self.tokens) if chunk.finalize else chunk.end + lookahead
        new = torch.tensor(self.tokens[self.num_fed : end], dtype=torch.int64)
        self.num_fed = end
        return FlowChunk(new, chunk.finalize)

    def next_call_noise(self) -> SourceNoise:
        """The noise of the next vocoder call that starts anew."""
        self.num_calls += 1
        return self.noise_of_call(self.num_calls) if self.noise_of_call else self.noise

    def snapshot(self) -> SegmentStream:
        """What `restore` takes. Tensors are shared: no call writes into them."""
        return replace(self, schedule=copy(self.schedule))

    def restore(self, before: SegmentStream) -> None:
        """Undo a call that failed half-way."""
        for item in fields(self):
            setattr(self, item.name, getattr(before, item.name))
        self.schedule = copy(before.schedule)
