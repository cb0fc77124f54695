"""The reference's own streaming, for comparison with its recordings (quirk `overlap_add_vocoder`).

CosyVoice2: every chunk restarts the vocoder on the 8 mel frames before it, reuses their source, and is
cross-faded into what came before. CosyVoice3: every chunk vocodes the whole utterance so far; same samples as
exact streaming, but three frames later.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from light_tts.errors import InvalidInput
from light_tts.models.vocoder.hift import HiFT
from light_tts.models.vocoder.source_noise import SourceNoise
from light_tts.models.vocoder.streaming import stream

CACHED_FRAMES = 8
REVOCODE_HELD_BACK_FRAMES = 8


@dataclass(frozen=True, slots=True)
class OverlapState:
    """The last CACHED_FRAMES frames of a CosyVoice2 stream.

    mel: (1, in_channels, 8); source: (1, 8 * samples_per_frame)
    speech: (1, 8 * samples_per_frame), synthesised but not yet emitted
    """

    mel: Tensor
    source: Tensor
    speech: Tensor


@dataclass(frozen=True, slots=True)
class RevocodeState:
    """The whole mel (1, in_channels, T) of a CosyVoice3 stream so far, and how many samples were emitted."""

    mel: Tensor
    emitted: int


def overlap_add_stream(
    model: HiFT, mel: Tensor, state: OverlapState | None, noise: SourceNoise, *, finalize: bool
) -> tuple[Tensor, OverlapState | None]:
    """One chunk (1, in_channels, T) of a CosyVoice2 stream: waveform (1, N), and the state unless final.

    noise: of this call alone, from its own sample 0
    Raises InvalidInput if the first chunk is not final and has fewer than CACHED_FRAMES frames.
    """
    if state is None and not finalize and mel.shape[2] < CACHED_FRAMES:
        raise InvalidInput(f"first chunk has {mel.shape[2]} mel frames, the overlap needs {CACHED_FRAMES}")
    if state is not None:
        mel = torch.cat([state.mel, mel], dim=2)
    source = with_cached_source(model.source(model.f0(mel), [noise]), None if state is None else state.source)
    wav = model.decode(mel, source)
    overlap = CACHED_FRAMES * model.cfg.samples_per_frame
    if state is not None:
        wav = crossfade(state.speech, wav, speech_window(overlap))
    if finalize:
        return wav, None
    after = OverlapState(mel[:, :, -CACHED_FRAMES:], source[:, -overlap:], wav[:, -overlap:])
    return wav[:, :-overlap], after


def revocode_stream(
    model: HiFT, mel: Tensor, state: RevocodeState | None, noise: SourceNoise, *, finalize: bool
) -> tuple[Tensor, RevocodeState | None]:
    """One chunk (1, in_channels, T) of a CosyVoice3 stream: waveform (1, N), and the state unless final."""
    emitted = 0 if state is None else state.emitted
    mel = mel if state is None else torch.cat([state.mel, mel], dim=2)
    wav, _ = stream(model, mel, None, noise, finalize=finalize)
    if finalize:
        return wav[:, emitted:], None
    end = max(emitted, (mel.shape[2] - REVOCODE_HELD_BACK_FRAMES) * model.cfg.samples_per_frame)
    return wav[:, emitted:end], RevocodeState(mel, end)


def with_cached_source(source: Tensor, cached: Tensor | None) -> Tensor:
    """`source` (B, N) with its first samples replaced by `cached` (B, n <= N)."""
    return source if cached is None else torch.cat([cached, source[:, cached.shape[1] :]], dim=1)


def crossfade(previous_tail: Tensor, current: Tensor, window: Tensor) -> Tensor:
    """Blend the end of the last chunk into the start of this one, in float64.

    previous_tail: (B, N) float32, synthesised but not emitted; current: (B, T >= N) float32
    window: (2N,) float64, rising half, then falling half
    Returns (B, T) float32.
    """
    size = previous_tail.shape[1]
    window = window.to(current.device)
    head = current[:, :size].double() * window[:size] + previous_tail.double() * window[size:]
    return torch.cat([head.to(current.dtype), current[:, size:]], dim=1)


@lru_cache(maxsize=2)
def speech_window(overlap: int) -> Tensor:
    """Symmetric Hamming window (2 * overlap,) float64. Its halves sum to 1.08, so the overlap is louder."""
    with torch.inference_mode(False):
        return torch.hamming_window(2 * overlap, periodic=False, dtype=torch.float64)
