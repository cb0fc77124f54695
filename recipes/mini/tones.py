"""Are the tones right? The pitch of a syllable, found by aligning it with the teacher's, against all four tones.

Each test sentence exists in four versions that differ in the tone of one syllable. The teacher has read them all in
the voice that is tested, so the place of the syllable and what each tone sounds like there are known. The synthesised
sentence is aligned with the teacher's by dynamic time warping of mel spectra; the tone whose pitch contour is nearest
should be the written one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recipes.mini.errors import RecipeError

Floats = NDArray[np.float64]

FRAME = 480  # samples at 24 kHz: 50 Hz
NUM_POINTS = 12  # of a contour

_SAMPLE_RATE = 24_000
_F0_RANGE_HZ = (60.0, 500.0)
_WINDOW = 960  # 40 ms: more than two periods of the lowest pitch, short enough for a fall
_VOICED = 0.3  # least normalised autocorrelation of a voiced frame
_OCTAVE_COST = 0.02  # by which a longer period must be better, for each doubling
_QUIET = 0.03  # of the loudest frame's level: no pitch is looked for below it
_LARGEST_LEAP = 9.0  # semitones from a syllable's median: beyond it an octave was mistaken


@dataclass(frozen=True, slots=True)
class Reading:
    """A teacher's reading of a sentence.

    mel: (T, 80) log mel; f0: (T,) Hz, 0 unvoiced; region: frames [start, end) of the syllable
    """

    mel: Floats
    f0: Floats
    region: tuple[int, int]


Place = tuple[int, int]  # number of the set of sentences, tone 1 to 4
Contours = Mapping[Place, Floats | None]


def references(tensors: Mapping[str, Tensor]) -> dict[str, dict[Place, Reading]]:
    """The teacher's readings by voice, from what `record` wrote. Raises RecipeError."""
    readings: dict[str, dict[Place, Reading]] = {}
    try:
        for key in sorted(name.removesuffix(".mel") for name in tensors if name.endswith(".mel")):
            voice, number, tone = key.split(".")
            readings.setdefault(voice, {})[int(number), int(tone)] = _reading(tensors, key)
    except (KeyError, ValueError) as error:
        raise RecipeError(f"the teacher's tones are not complete: {error!r}") from error
    if not readings:
        raise RecipeError("there are no readings of tones (record makes them)")
    return readings


def _reading(tensors: Mapping[str, Tensor], key: str) -> Reading:
    start, end = tensors[f"{key}.region"].tolist()
    return Reading(
        tensors[f"{key}.mel"].double().numpy(), tensors[f"{key}.f0"].double().numpy(), (start, end)
    )


def spoken_contour(wav: NDArray[np.float32], mel: Floats, reading: Reading) -> Floats | None:
    """The pitch of the syllable in another reading of the same sentence. wav: (n,) 24 kHz; mel: (T, 80) of it"""
    return contour(f0_track(wav), place_in(reading.mel, mel, reading.region))


def heard_tones(spoken: Contours, readings: Mapping[Place, Reading]) -> dict[Place, int | None]:
    """For each sentence the tone, 1 to 4, of the teacher's that is nearest; None if the syllable has no pitch.

    spoken: of all sentences of one voice, since a speaker's level and range are those of all together
    """
    known = _levelled({place: contour(reading.f0, reading.region) for place, reading in readings.items()})
    heard: dict[Place, int | None] = {}
    for place, curve in _levelled(spoken).items():
        distances = {
            tone: float(np.sqrt(np.mean((curve - other) ** 2)))
            for tone in (1, 2, 3, 4)
            if curve is not None and (other := known.get((place[0], tone))) is not None
        }
        heard[place] = min(distances, key=lambda tone: distances[tone]) if distances else None
    return heard


def _levelled(contours: Contours) -> dict[Place, Floats | None]:
    """With mean 0 and deviation 1 over all sentences."""
    curves = [curve for curve in contours.values() if curve is not None]
    if not curves:
        return dict(contours)
    mean, deviation = float(np.mean(curves)), max(1e-3, float(np.std(curves)))
    return {place: None if curve is None else (curve - mean) / deviation for place, curve in contours.items()}


def contour(f0: Floats, region: tuple[int, int]) -> Floats | None:
    """(NUM_POINTS,) semitones above the median of the rest of the sentence; None if there is no pitch."""
    start, end = region
    inside = f0[start:end]
    rest = np.concatenate([f0[:start], f0[end:]])
    voiced = np.flatnonzero(inside > 0)
    if len(voiced) < 4 or not (rest > 0).any():
        return None
    semitones = 12 * np.log2(inside[voiced] / np.median(rest[rest > 0]))
    kept = np.abs(semitones - np.median(semitones)) < _LARGEST_LEAP
    kept[[0, -1]] = False  # where the syllable meets its neighbours
    if kept.sum() < 2:
        return None
    voiced, semitones = voiced[kept], semitones[kept]
    return np.interp(np.linspace(voiced[0], voiced[-1], NUM_POINTS), voiced, _median3(semitones))


def _median3(values: Floats) -> Floats:
    """Without single jumps."""
    padded = np.pad(values, 1, mode="edge")
    middle: Floats = np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0)
    return middle


def place_in(reference: Floats, mel: Floats, region: tuple[int, int]) -> tuple[int, int]:
    """Where frames [start, end) of a reference lie in another reading of the same sentence."""
    path = warping_path(_normalised(reference), _normalised(mel))
    inside = path[(path[:, 0] >= region[0]) & (path[:, 0] < region[1]), 1]
    return int(inside.min()), int(inside.max()) + 1


def warping_path(left: Floats, right: Floats) -> NDArray[np.int64]:
    """(K, 2) pairs of frames, from first to last, of the alignment with the least Euclidean distance."""
    cost = np.sqrt(np.maximum(0, (left**2).sum(1)[:, None] + (right**2).sum(1) - 2 * left @ right.T))
    rows, columns = cost.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0.0
    for i in range(rows):
        above = np.minimum(total[i, :-1], total[i, 1:])
        for j in range(columns):
            total[i + 1, j + 1] = cost[i, j] + min(above[j], total[i + 1, j])
    i, j = rows, columns
    path = []
    while i and j:
        path.append((i - 1, j - 1))
        steps = (
            (total[i - 1, j - 1], i - 1, j - 1),
            (total[i - 1, j], i - 1, j),
            (total[i, j - 1], i, j - 1),
        )
        _, i, j = min(steps)
    return np.array(path[::-1])


def _normalised(mel: Floats) -> Floats:
    """Each band with mean 0: two speakers differ less."""
    centred = mel - mel.mean(axis=0)
    scaled: Floats = centred / max(1e-6, float(centred.std()))
    return scaled


def f0_track(wav: NDArray[np.float32]) -> Floats:
    """(n / FRAME,) Hz, 0 where unvoiced: the strongest peak of the normalised autocorrelation."""
    num_frames = len(wav) // FRAME
    low, high = round(_SAMPLE_RATE / _F0_RANGE_HZ[1]), round(_SAMPLE_RATE / _F0_RANGE_HZ[0])
    padded = torch.from_numpy(np.pad(wav, (_WINDOW // 2, _WINDOW + high)).astype(np.float64))
    frames = padded.unfold(0, _WINDOW + high, FRAME)[:num_frames]
    head = frames[:, :_WINDOW] - frames[:, :_WINDOW].mean(dim=1, keepdim=True)
    body = frames - frames.mean(dim=1, keepdim=True)
    size = 1 << (2 * _WINDOW + high).bit_length()
    product = torch.fft.rfft(body, size) * torch.fft.rfft(head, size).conj()
    correlation = torch.fft.irfft(product, size)[:, low : high + 1]
    energy = body.square().cumsum(dim=1)
    shifted = energy[:, _WINDOW + low - 1 : _WINDOW + high] - energy[:, low - 1 : high]
    level = head.square().sum(dim=1, keepdim=True)
    normalised = correlation / (level * shifted).clamp(min=1e-12).sqrt()
    lags = torch.arange(low, high + 1, dtype=torch.float64)
    best = (normalised - _OCTAVE_COST * torch.log2(lags / low)).argmax(dim=1)
    strength = normalised.gather(1, best[:, None])[:, 0]
    loud = level[:, 0].sqrt() > _QUIET * level.max().sqrt()
    f0 = torch.where((strength > _VOICED) & loud, _SAMPLE_RATE / lags[best], torch.zeros(()).double())
    track: Floats = f0.numpy()
    return track
