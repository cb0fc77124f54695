"""What can be seen of a synthesised clip without listening: runaways, early stops and silence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from light_tts.audio import Audio

SECONDS_A_SYMBOL = {"en": 0.14, "zh": 0.17}  # of the teacher's speech, by symbols of the front end
EDGE_S = 0.3  # silence around it

RUNAWAY = 2.0  # times the expected length
EARLY_STOP = 0.45
LONGEST_PAUSE_S = 1.5
SILENT_DB = -50.0  # below full scale

_FRAME_S = 0.02


@dataclass(frozen=True, slots=True)
class ClipCheck:
    """seconds: of the clip; expected_s: of its text"""

    seconds: float
    expected_s: float
    longest_pause_s: float
    silent: bool

    @property
    def is_runaway(self) -> bool:
        return self.seconds > RUNAWAY * self.expected_s

    @property
    def is_early_stop(self) -> bool:
        return self.seconds < EARLY_STOP * self.expected_s

    @property
    def is_silence(self) -> bool:
        return self.silent or self.longest_pause_s > LONGEST_PAUSE_S


def read_clip(path: Path) -> Audio:
    """A synthesised file, however short or silent it is."""
    samples, sample_rate_hz = soundfile.read(path, dtype="float32")
    return Audio(samples, sample_rate_hz)


def check_clip(
    samples: NDArray[np.float32], sample_rate_hz: int, num_symbols: int, language: str
) -> ClipCheck:
    """num_symbols: what the front end makes of the text"""
    expected = EDGE_S + SECONDS_A_SYMBOL[language] * num_symbols
    frame = max(1, round(_FRAME_S * sample_rate_hz))
    whole = samples[: len(samples) // frame * frame].astype(np.float64).reshape(-1, frame)
    level = 10 * np.log10(np.square(whole).mean(axis=1) + 1e-12)
    quiet = level < SILENT_DB
    return ClipCheck(
        len(samples) / sample_rate_hz, expected, _longest_run(quiet) * _FRAME_S, bool(quiet.all())
    )


def _longest_run(marks: NDArray[np.bool_]) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], marks.astype(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))
