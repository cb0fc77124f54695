"""How far the training data of the two encoders is changed; see `recipes.mini.train.augment`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AugmentSettings:
    """Shares of the rows that a change touches, and its limits."""

    warped: float = 0.6  # another voice: played faster or slower, and with a shorter or longer vocal tract
    speed: tuple[float, float] = (0.84, 1.2)
    formants: tuple[float, float] = (0.87, 1.15)
    room: float = 0.35
    reverberation_s: tuple[float, float] = (0.1, 0.7)  # until 60 dB less
    reverberation_db: tuple[float, float] = (-20.0, 0.0)  # against the direct sound
    equaliser: float = 0.5
    equaliser_db: float = 4.0  # standard deviation
    band: float = 0.25
    low_cut_hz: tuple[float, float] = (40.0, 300.0)
    high_cut_hz: tuple[float, float] = (3_400.0, 9_000.0)
    noise: float = 0.5
    noise_snr_db: tuple[float, float] = (5.0, 40.0)
    chatter: float = 0.2  # of the noisy ones
    clipping: float = 0.05
    level: float = 0.7
    level_db: tuple[float, float] = (-20.0, 4.0)
    mu_law: float = 0.1
