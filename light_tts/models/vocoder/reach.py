"""How much context a part of the vocoder needs around what is wanted of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reach:
    """Context to the left and to the right, in one unit: columns of a layer, samples or mel frames."""

    left: int = 0
    right: int = 0

    def __add__(self, other: Reach) -> Reach:
        """One after the other."""
        return Reach(self.left + other.left, self.right + other.right)

    def __or__(self, other: Reach) -> Reach:
        """What satisfies both."""
        return Reach(max(self.left, other.left), max(self.right, other.right))

    def __mul__(self, step: int) -> Reach:
        """In a finer unit: each of the old is `step` of the new."""
        return Reach(self.left * step, self.right * step)

    def rounded_up(self, step: int) -> Reach:
        """In a coarser unit: each of the new is `step` of the old."""
        return Reach(-(-self.left // step), -(-self.right // step))
