"""From single outcomes to the figures of one concurrency."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from light_tts.loadtest.client import Level


@dataclass(frozen=True, slots=True)
class Percentiles:
    mean: float
    p50: float
    p90: float
    p99: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Percentiles | None:
        """None of no values. By nearest rank: each is a measured value."""
        if not values:
            return None
        ordered = sorted(values)

        def rank(share: float) -> float:
            return ordered[max(0, math.ceil(len(ordered) * share) - 1)]

        mean = sum(ordered) / len(ordered)
        return cls(mean, rank(0.5), rank(0.9), rank(0.99), ordered[0], ordered[-1])


@dataclass(frozen=True, slots=True)
class Figures:
    """Of the requests answered whole; `faults` counts the others by what was said.

    rtf: seconds from request to last sample for a second of audio, as one listener sees it
    underruns: answers whose player ran dry; underrun_s: how long, all together
    """

    stream: bool
    concurrency: int
    requests: int
    failures: int
    wall_s: float
    requests_per_s: float
    audio_s_per_s: float
    audio_s: float
    latency_s: Percentiles | None
    ttfa_s: Percentiles | None
    rtf: Percentiles | None
    underruns: int
    underrun_s: float
    faults: dict[str, int]


def figures_of(level: Level) -> Figures:
    good = [outcome for outcome in level.outcomes if outcome.fault is None]
    audio_s = sum(outcome.audio_s for outcome in good)
    faults = Counter(outcome.fault for outcome in level.outcomes if outcome.fault is not None)
    return Figures(
        stream=level.stream,
        concurrency=level.concurrency,
        requests=len(level.outcomes),
        failures=len(level.outcomes) - len(good),
        wall_s=level.wall_s,
        requests_per_s=len(good) / level.wall_s,
        audio_s_per_s=audio_s / level.wall_s,
        audio_s=audio_s,
        latency_s=Percentiles.of([outcome.latency_s for outcome in good]),
        ttfa_s=Percentiles.of([outcome.ttfa_s for outcome in good if outcome.ttfa_s is not None]),
        rtf=Percentiles.of([outcome.latency_s / outcome.audio_s for outcome in good if outcome.audio_s]),
        underruns=sum(not outcome.continuous for outcome in good),
        underrun_s=sum(outcome.underrun_s for outcome in good),
        faults=dict(faults.most_common()),
    )
