"""Memory in which the parts of a split computation meet."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Workspace:
    """Kernels of one stream share it: each leaves `arrivals` at zero, as it found them.

    numbers: float32, partial results; arrivals: int32, how many parts of each tile are there
    """

    numbers: Tensor
    arrivals: Tensor

    @classmethod
    def on(cls, device: torch.device, num_floats: int, num_tiles: int) -> Workspace:
        return cls(
            torch.empty(num_floats, dtype=torch.float32, device=device),
            torch.zeros(num_tiles, dtype=torch.int32, device=device),
        )

    def check(self, num_floats: int, num_tiles: int) -> None:
        """Raises ValueError if a kernel needs more."""
        if num_floats > self.numbers.numel() or num_tiles > self.arrivals.numel():
            raise ValueError(
                f"workspace of {self.numbers.numel()} floats and {self.arrivals.numel()} tiles, "
                f"needed {num_floats} and {num_tiles}"
            )
