"""A run that is stopped on the way, for tests of resuming."""

from __future__ import annotations

import math

from recipes.mini.train.loop import TimeBudget


class Interrupted(TimeBudget):
    """Over after a number of steps."""

    def __init__(self, steps: int) -> None:
        super().__init__(math.inf)
        self._steps_left = steps

    @property
    def left(self) -> float:
        self._steps_left -= 1
        return 1.0 if self._steps_left >= 0 else 0.0
