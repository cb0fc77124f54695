"""Linear layers at inference, in the CPU library's own weight layout."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_ROWS_HINT = 4  # how many rows the layout is made for; others work too

_PROBE_ROWS = 16


class PackedLinear:
    """`F.linear` with a fixed weight. On a CPU a row's result does not depend on the rows beside it, to the last bit:
    what a sequence says must not depend on which others are generated at the time.

    oneDNN has that property where the weight is in its own layout, and is faster then too; MKL, which `F.linear` uses,
    multiplies up to three rows in another order than more. Where oneDNN is missing this is `F.linear`.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """weight: (out, in), shared if this is no CPU, copied into the other layout if it is"""
        self._weight = weight
        self._bias = bias
        self._packed = _packed(weight)
        self._lone_row_differs = False
        if self._packed is not None:
            self._product = torch.ops.mkldnn._linear_pointwise.default
            # Where a row is very long, oneDNN may add up a lone one in another order.
            generator = torch.Generator().manual_seed(0)
            probe = torch.randn(_PROBE_ROWS, weight.shape[1], generator=generator).to(weight.dtype)
            alone = [self(row) for row in probe.split(1)]
            self._lone_row_differs = not torch.equal(self(probe), torch.cat(alone))

    def __call__(self, x: Tensor) -> Tensor:
        """(N, in) to (N, out)"""
        if self._packed is None:
            return F.linear(x, self._weight, self._bias)
        if self._lone_row_differs and x.shape[0] == 1:
            return self._product(x.expand(2, -1).contiguous(), self._packed, self._bias, "none", [], "")[:1]
        return self._product(x, self._packed, self._bias, "none", [], "")


def _packed(weight: Tensor) -> Tensor | None:
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.bfloat16):
        return None
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return None
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _ROWS_HINT)
