"""Exact streaming: the concatenated pieces equal the waveform of the whole utterance.

Every call decodes a window: some frames of context that were already decoded, then the new frames whose
context is complete. Behind the last mel frame that has arrived, `held_back_frames` stay unsaid until their
right context comes: 21 frames (0.42 s) with CosyVoice2's released shapes, most of it the reach of the widest
residual blocks, and 5 frames (0.1 s) with CosyVoice3's causal ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from light_tts.models.config import HiFTConfig
from light_tts.models.vocoder.harmonic_source import HarmonicSource, SourceState
from light_tts.models.vocoder.hift import HiFT
from light_tts.models.vocoder.reach import Reach
from light_tts.models.vocoder.source_noise import SourceNoise


class VocoderRunner(Protocol):
    """`HiFT`, or what does the same faster. Each call is as `HiFT`'s."""

    m_source: HarmonicSource

    @property
    def cfg(self) -> HiFTConfig: ...
    @property
    def oracle(self) -> HiFT: ...
    @property
    def reach(self) -> Reach: ...
    @property
    def front_reach(self) -> Reach: ...
    @property
    def features_dtype(self) -> torch.dtype: ...
    def f0(self, mel: Tensor, mel_lens: Tensor | None = None) -> Tensor: ...
    def features(self, mel: Tensor) -> Tensor: ...
    def decode_window(self, features: Tensor, source: Tensor, first: int, last: int) -> Tensor: ...
    def synthesize(self, mel: Tensor, mel_lens: Tensor, noise: Sequence[SourceNoise]) -> Tensor: ...
    def warm(self, shapes: Sequence[tuple[int, int]]) -> None: ...


@dataclass(frozen=True, slots=True)
class VocoderState:
    """What one stream (or a batch of streams that have advanced alike) needs to continue.

    received: (B,) as a tuple, mel frames heard so far
    mel: (B, in_channels, n) the last mel frames, as context for the next
    f0: (B, m) f0 of frames whose source waits for the frame after them
    features: (B, base_channels, k), source: (B, about k * samples_per_frame): decoded frames needed as
        context, then frames not yet decoded
    oscillators: the phase after the last source sample
    """

    received: tuple[int, ...]
    mel: Tensor
    f0: Tensor
    features: Tensor
    source: Tensor
    oscillators: SourceState


@dataclass(frozen=True, slots=True)
class StreamInput:
    """One stream's next piece: mel (1, in_channels, T >= 0), state None at the start, finalize at the end."""

    mel: Tensor
    state: VocoderState | None
    noise: SourceNoise
    finalize: bool


@dataclass(frozen=True, slots=True)
class _Progress:
    """Frames of a stream that have passed each step, all counted from its beginning."""

    front: int  # f0 and features are known
    source: int
    emitted: int


def held_back_frames(model: VocoderRunner) -> int:
    """Frames between the newest mel frame and the newest waveform, while a stream is not finalised."""
    return model.front_reach.right + model.m_source.lookahead_frames + model.reach.right


def stream(
    model: VocoderRunner, mel: Tensor, state: VocoderState | None, noise: SourceNoise, *, finalize: bool
) -> tuple[Tensor, VocoderState | None]:
    """Waveform (1, N) of the frames that became certain with `mel` (1, in_channels, T >= 0), and the state.

    All pieces of a stream together hold samples_per_frame samples for each mel frame. There is no state after
    the last piece.
    """
    return _advance(model, mel, state or _initial_state(model, mel), [noise], finalize)


def stream_batch(
    model: VocoderRunner, inputs: Sequence[StreamInput]
) -> list[tuple[Tensor, VocoderState | None]]:
    """`stream` for several streams; those whose windows have equal lengths run as one batch."""
    groups: dict[tuple[int, int, bool], list[int]] = defaultdict(list)
    settled = _settled_frames(model)
    states = [item.state or _initial_state(model, item.mel) for item in inputs]
    for index, (item, state) in enumerate(zip(inputs, states, strict=True)):
        # Beyond `settled` frames all streams hold the same amounts of context.
        groups[min(state.received[0], settled), item.mel.shape[2], item.finalize].append(index)
    results: dict[int, tuple[Tensor, VocoderState | None]] = {}
    for (_, _, finalize), members in groups.items():
        mel = torch.cat([inputs[index].mel for index in members])
        state = _join([states[index] for index in members])
        wav, after = _advance(model, mel, state, [inputs[index].noise for index in members], finalize)
        for row, index in enumerate(members):
            results[index] = wav[row : row + 1], None if after is None else _row(after, row)
    return [results[index] for index in range(len(inputs))]


def _advance(
    model: VocoderRunner, chunk: Tensor, state: VocoderState, noises: Sequence[SourceNoise], finalize: bool
) -> tuple[Tensor, VocoderState | None]:
    """One step of a batch of streams that hold equal amounts of context."""
    # All rows hold equal amounts of context, so what follows from the first row's count holds for all.
    heard = state.received[0]
    before, after = _progress(model, heard, False), _progress(model, heard + chunk.shape[2], finalize)
    mel_start, window_start = _mel_start(model, before), _window_start(model, before)
    mel = torch.cat([state.mel, chunk], dim=2)
    f0, features = state.f0, state.features
    if after.front > before.front:
        new = slice(before.front - mel_start, after.front - mel_start)
        f0 = torch.cat([f0, model.f0(mel)[:, new]], dim=1)
        features = torch.cat([features, model.features(mel)[:, :, new]], dim=2)
    starts = [received - heard + before.source for received in state.received]
    made, oscillators = model.m_source(f0, noises, state.oscillators, starts, finalize=finalize)
    source = torch.cat([state.source, made], dim=1)
    wav = source.new_zeros(chunk.shape[0], 0)
    if after.emitted > before.emitted:
        ready = features[:, :, : after.source - window_start]
        wav = model.decode_window(ready, source, before.emitted - window_start, after.emitted - window_start)
    if finalize:
        return wav, None
    drop = _window_start(model, after) - window_start
    return wav, VocoderState(
        received=tuple(received + chunk.shape[2] for received in state.received),
        mel=mel[:, :, _mel_start(model, after) - mel_start :].clone(),
        f0=f0[:, after.source - before.source :].clone(),
        features=features[:, :, drop:].clone(),
        source=source[:, drop * model.cfg.samples_per_frame :].clone(),
        oscillators=oscillators,
    )


def _progress(model: VocoderRunner, received: int, finalize: bool) -> _Progress:
    if finalize:
        return _Progress(received, received, received)
    front = max(0, received - model.front_reach.right)
    source = max(0, front - model.m_source.lookahead_frames)
    return _Progress(front, source, max(0, source - model.reach.right))


def _mel_start(model: VocoderRunner, progress: _Progress) -> int:
    """The first mel frame that the next frames' f0 and features still depend on."""
    return max(0, progress.front - model.front_reach.left)


def _window_start(model: VocoderRunner, progress: _Progress) -> int:
    """The first frame of the next decoder window."""
    return max(0, progress.emitted - model.reach.left)


def _settled_frames(model: VocoderRunner) -> int:
    """Frames after which a stream's state no longer grows."""
    return held_back_frames(model) + max(model.reach.left, model.front_reach.left)


def _initial_state(model: VocoderRunner, mel: Tensor) -> VocoderState:
    features = mel.new_zeros(1, model.cfg.base_channels, 0, dtype=model.features_dtype)
    empty = mel.new_zeros(1, 0, dtype=torch.float32)
    return VocoderState((0,), mel[:, :, :0], empty, features, empty, SourceState())


def _join(states: Sequence[VocoderState]) -> VocoderState:
    if len(states) == 1:
        return states[0]
    phases = [state.oscillators.phase for state in states]
    return VocoderState(
        received=tuple(state.received[0] for state in states),
        mel=torch.cat([state.mel for state in states]),
        f0=torch.cat([state.f0 for state in states]),
        features=torch.cat([state.features for state in states]),
        source=torch.cat([state.source for state in states]),
        oscillators=SourceState(
            torch.cat([phase for phase in phases if phase is not None]) if phases[0] is not None else None
        ),
    )


def _row(state: VocoderState, row: int) -> VocoderState:
    """One stream of a batch, copied so that it does not keep the others' memory."""
    if len(state.received) == 1:
        return state
    phase = state.oscillators.phase
    return VocoderState(
        received=state.received[row : row + 1],
        mel=state.mel[row : row + 1].clone(),
        f0=state.f0[row : row + 1].clone(),
        features=state.features[row : row + 1].clone(),
        source=state.source[row : row + 1].clone(),
        oscillators=SourceState(None if phase is None else phase[row : row + 1].clone()),
    )
