"""Numbers on their way to the device and back, without either side waiting for the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_ALIGN = 32  # integers: kernels are compiled anew for pointers that are aligned otherwise
_BUFFERS = 8
_BUFFER_INTS = 1 << 18


class Uploader:
    """Arrays of int32 to the device, through pinned memory, in the order of the stream."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffers: deque[tuple[Tensor, torch.cuda.Event]] = deque()

    def upload(self, arrays: Sequence[np.ndarray]) -> list[Tensor]:
        """All in one copy; the arrays are free to change at once."""
        starts = np.cumsum([0, *(-(-array.size // _ALIGN) * _ALIGN for array in arrays)])
        flat = np.zeros(starts[-1], np.int32)
        for start, array in zip(starts, arrays, strict=False):
            flat[start : start + array.size] = array.ravel()
        joint = torch.from_numpy(flat) if self._device.type == "cpu" else self._through_pinned(flat)
        return [
            joint[start : start + array.size].view(array.shape)
            for start, array in zip(starts, arrays, strict=False)
        ]

    def _through_pinned(self, flat: np.ndarray) -> Tensor:
        if len(flat) > _BUFFER_INTS:
            return torch.from_numpy(flat).to(self._device)
        if len(self._buffers) < _BUFFERS:
            pinned = torch.empty(_BUFFER_INTS, dtype=torch.int32, pin_memory=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        else:
            pinned, event = self._buffers.popleft()
            event.synchronize()  # eight uploads ago: over long since
        pinned[: len(flat)].copy_(torch.from_numpy(flat))
        joint = pinned[: len(flat)].to(self._device, non_blocking=True)
        event.record()
        self._buffers.append((pinned, event))
        return joint


@dataclass(frozen=True, slots=True)
class Reading:
    """Tokens on their way to the host. event: None where they are there"""

    tokens: Tensor
    event: torch.cuda.Event | None

    @property
    def is_there(self) -> bool:
        return self.event is None or bool(self.event.query())  # type: ignore[no-untyped-call]

    def wait(self) -> list[int]:
        if self.event is not None:
            self.event.synchronize()
        numbers: list[int] = self.tokens.tolist()
        return numbers


class TokenReader:
    """Copies of tokens as they are at this point of the stream."""

    def __init__(self, device: torch.device) -> None:
        self._on_cpu = device.type == "cpu"

    def read(self, tokens: Tensor) -> Reading:
        if self._on_cpu:
            return Reading(tokens.clone(), None)
        host = torch.empty(len(tokens), dtype=torch.int32, pin_memory=True)
        host.copy_(tokens, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return Reading(host, event)
