"""The table of a parity run: case, tensor, largest difference, tolerance, verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

LOGITS = 1e-4
MEL = 1e-4
FEATURES = 1e-4
DECODE = 1e-5  # waveform from a given source
SHORT_WAVE = 5e-4
LONG_WAVE = 3e-3  # together with LONG_WAVE_RMS
LONG_WAVE_RMS = 0.02
F0_HZ = 2e-3  # ten times the reference's own float32 noise (tolerance.json `hift.f0`)
SOURCE = 2e-3  # likewise (`hift.source_zeronoise`)


@dataclass(frozen=True, slots=True)
class Row:
    case: str
    tensor: str
    difference: str
    tolerance: str
    passed: bool


@dataclass(slots=True)
class Report:
    rows: list[Row] = field(default_factory=list)

    def close(
        self,
        case: str,
        tensor: str,
        actual: Tensor,
        expected: Tensor,
        tolerance: float,
        rms: float | None = None,
    ) -> None:
        """Compare by largest absolute difference, and by RMS error over the expected RMS if `rms` is given."""
        if tuple(actual.shape) != tuple(expected.shape):
            got, want = list(actual.shape), list(expected.shape)
            self.rows.append(Row(case, tensor, f"shape {got}, recorded {want}", f"{tolerance:g}", False))
            return
        error = actual.detach().double() - expected.double()
        largest = float(error.abs().max()) if error.numel() else 0.0
        passed, shown, limit = largest <= tolerance, f"{largest:.2e}", f"{tolerance:g}"
        if rms is not None:
            share = float(
                error.square().mean().sqrt() / expected.double().square().mean().sqrt().clamp(min=1e-12)
            )
            passed, shown, limit = (
                passed and share <= rms,
                f"{shown} rms {share:.2%}",
                f"{limit} rms {rms:.0%}",
            )
        self.rows.append(Row(case, tensor, shown, limit, passed))  # NaN compares false: it fails

    def equal(self, case: str, tensor: str, actual: object, expected: object) -> None:
        """Compare exactly; tensors and sequences of numbers by value."""
        actual, expected = _plain(actual), _plain(expected)
        if actual == expected:
            self.rows.append(Row(case, tensor, "equal", "exact", True))
            return
        self.rows.append(Row(case, tensor, _first_difference(actual, expected), "exact", False))

    def fail(self, case: str, tensor: str, reason: str) -> None:
        self.rows.append(Row(case, tensor, reason, "-", False))

    @property
    def failures(self) -> list[Row]:
        return [row for row in self.rows if not row.passed]


def _plain(value: object) -> object:
    if isinstance(value, Tensor):
        return (
            value.detach().cpu().to(torch.int64).tolist() if not value.is_floating_point() else value.tolist()
        )
    if isinstance(value, (tuple, range)):
        return list(value)
    return value


def _first_difference(actual: object, expected: object) -> str:
    if isinstance(actual, Sequence) and isinstance(expected, Sequence) and not isinstance(actual, str):
        for index, (a, e) in enumerate(zip(actual, expected, strict=False)):
            if a != e:
                return f"[{index}] {str(a)[:40]}, recorded {str(e)[:40]}"
        return f"{len(actual)} items, recorded {len(expected)}"
    return f"{str(actual)[:60]}, recorded {str(expected)[:60]}"
