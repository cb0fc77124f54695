"""From what the teacher said to an entry of the corpus: warped, trimmed, levelled, with pitch and phone by frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from light_tts.encode.resample import resample
from recipes.mini.corpus import FRAME, TOKEN, Utterance
from recipes.mini.prepare.kokoro import SAMPLES_PER_F0, SAMPLES_PER_FRAME, Spoken
from recipes.mini.settings import SAMPLE_RATE, GenerateSettings

_SILENT = 0.004  # of full scale
_MARGIN = 1920  # samples kept around what is not silent: 80 ms
_FADE = 120
_UNVOICED_HZ = 50.0  # the curve passes through low values between pitch and none: no voice has those
_PEAK = (0.45, 0.9)
# The teacher learnt its durations from an aligner that lags: fricatives are heard 45 to 50 ms before their frames
# begin, in both languages. The pitch has no such lag.
_LAG_FRAMES = 2
_PHONE_S = (0.02, 0.4)  # seconds per phoneme: beyond them the teacher stumbled


def teacher_speed(speed: float, warp: float) -> float:
    """At which the teacher must speak so that it has `speed` after warping."""
    return speed / warp


def to_utterance(
    job: int,
    teacher_ids: NDArray[np.int64],
    spoken: Spoken,
    warp: float,
    settings: GenerateSettings,
    rng: np.random.Generator,
) -> Utterance | None:
    """None for speech that is silent, broken, or of an unlikely length. All on the CPU.

    teacher_ids: without the padding at either end; spoken: on the CPU
    warp: pitch and formants times this, by playing the speech faster
    """
    # 24000 * warp is a multiple of 240, since warps have two decimals: a short filter resamples exactly
    wav = resample(spoken.wav, round(SAMPLE_RATE * warp), SAMPLE_RATE).numpy()
    if not np.isfinite(wav).all():
        return None
    loud = np.flatnonzero(np.abs(wav) > _SILENT)
    if not len(loud):
        return None
    start, stop = max(0, loud[0] - _MARGIN), min(len(wav), loud[-1] + _MARGIN)
    seconds = (stop - start) / SAMPLE_RATE
    pace = seconds / len(teacher_ids)
    if not settings.min_s <= seconds <= settings.max_s or not _PHONE_S[0] <= pace <= _PHONE_S[1]:
        return None
    kept = wav[start:stop].copy()
    kept[:_FADE] *= np.linspace(0, 1, _FADE, dtype=np.float32)
    kept[-_FADE:] *= np.linspace(1, 0, _FADE, dtype=np.float32)
    kept = np.pad(kept, (0, -len(kept) % TOKEN))
    kept *= rng.uniform(*_PEAK) / np.abs(kept).max()
    f0, phone = _tracks(teacher_ids, spoken, warp, start, len(kept) // FRAME)
    return Utterance(job, (kept * 32767).astype(np.int16), f0, phone)


def _tracks(
    teacher_ids: NDArray[np.int64], spoken: Spoken, warp: float, start: int, num_frames: int
) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """Pitch and phone at the middle of each frame; `start` samples of the warped speech were cut off."""
    # in samples of the unwarped speech
    middle = (np.arange(num_frames) * FRAME + FRAME // 2 + start) * warp
    values = spoken.f0.numpy()
    f0 = values[(middle / SAMPLES_PER_F0).astype(np.int64).clip(max=len(values) - 1)] * warp
    padded = np.concatenate([[0], teacher_ids, [0]])
    at = np.searchsorted(spoken.ends.numpy(), middle // SAMPLES_PER_FRAME + _LAG_FRAMES, side="right")
    phone = padded[at.clip(max=len(padded) - 1)]
    return np.where(f0 < _UNVOICED_HZ, 0, f0).astype(np.float16), phone.astype(np.uint8)


def on_cpu(spoken: Spoken) -> Spoken:
    """The same, as to_utterance takes it."""
    return Spoken(spoken.wav.float().cpu(), spoken.f0.float().cpu(), spoken.ends.cpu())
