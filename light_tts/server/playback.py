"""What a listener would have heard: a player that starts with the first audio and plays as fast as it comes."""

from __future__ import annotations

from dataclasses import dataclass

SAMPLE_RATE_HZ = 24_000
BYTES_PER_SAMPLE = 2
CONTINUITY_THRESHOLD_S = 0.1
"""A gap that players bridge with what they buffer before they start."""


@dataclass(slots=True)
class Playback:
    """Fed with each piece of audio once the client could have it. Times are of one monotonic clock, in seconds."""

    started_s: float | None = None
    last_s: float = 0.0
    audio_s: float = 0.0
    underrun_s: float = 0.0

    def add(self, time_s: float, num_samples: int) -> None:
        """Pieces without samples are no audio."""
        if num_samples <= 0:
            return
        if self.started_s is None:
            self.started_s = time_s
        played_until_s = self.started_s + self.audio_s + self.underrun_s
        self.underrun_s += max(0.0, time_s - played_until_s)
        self.audio_s += num_samples / SAMPLE_RATE_HZ
        self.last_s = time_s

    @property
    def continuous(self) -> bool:
        return self.underrun_s <= CONTINUITY_THRESHOLD_S
