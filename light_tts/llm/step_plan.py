"""How the matrix products of a step are computed, by the number of rows."""

from __future__ import annotations

from dataclasses import dataclass

from light_tts.kernels.skinny_linear import Tiles

MAX_FUSED_ROWS = 128  # beyond, a product is no longer bound by its weights


@dataclass(frozen=True, slots=True)
class StepPlan:
    """Tiles of the fused products (`kernels.skinny_linear`) of a layer, and of the head."""

    qkv: Tiles
    out: Tiles
    gate_up: Tiles
    down: Tiles
    head: Tiles


def default_plan(num_rows: int) -> StepPlan | None:
    """Enough programs for a large GPU's processors, in few passes. None: the library's products, and norms between."""
    if num_rows > MAX_FUSED_ROWS:
        return None
    if num_rows <= 16:
        return StepPlan(
            qkv=Tiles(16, 16, 128, 1, 4, 4),
            out=Tiles(16, 16, 128, 2, 4, 4),
            gate_up=Tiles(16, 32, 128, 1, 4, 4),
            down=Tiles(16, 32, 128, 8, 4, 4),
            head=Tiles(16, 32, 128, 1, 4, 4),
        )
    if num_rows <= 32:
        return StepPlan(
            qkv=Tiles(32, 16, 128, 1, 4, 4),
            out=Tiles(32, 16, 128, 2, 4, 4),
            gate_up=Tiles(32, 32, 128, 1, 4, 4),
            down=Tiles(32, 32, 128, 8, 4, 4),
            head=Tiles(32, 32, 128, 1, 4, 4),
        )
    block_m = 64 if num_rows <= 64 else 128
    return StepPlan(
        qkv=Tiles(block_m, 16, 128, 1, 4, 3),
        out=Tiles(block_m, 32, 128, 4, 4, 3),
        gate_up=Tiles(block_m, 32, 128, 1, 4, 3),
        down=Tiles(block_m, 64, 128, 8, 4, 3),
        head=Tiles(block_m, 64, 128, 1, 4, 3),
    )
