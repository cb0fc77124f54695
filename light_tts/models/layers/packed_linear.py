"""Linear layers at inference, in the CPU library's own weight layout."""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

_ROWS_HINT = 4  # how many rows the layout is made for; others work too

_STEPS = ((2, 1), (4, 2), (8, 4), (32, 8), (128, 32), (512, 64))  # up to so many rows: a multiple of this
_LAST_STEP = 256
_PROBE_ROWS = 16


class PackedLinear:
    """`F.linear` with a fixed weight. On a CPU a row's result does not depend on the rows beside it, to the last bit:
    what a sequence says must not depend on which others are generated at the time.

    oneDNN has that property where the weight is in its own layout, and is faster then too; MKL, which `F.linear` uses,
    multiplies up to three rows in another order than more. FBGEMM has it as well, and is faster still for few rows,
    but holds weights in 16 bits: it is used where each of them is a 16-bit number in any case, as in the bundled voice.
    Where both are missing this is `F.linear`.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """weight: (out, in), shared if this is no CPU, copied into another layout and not kept if it is"""
        self._bias = bias
        self._half = _packed_half(weight)
        self._packed = _packed(weight) if self._half is None else None
        self._plain = weight if self._half is None and self._packed is None else None
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
        if self._half is not None:
            return torch.fbgemm_linear_fp16_weight_fp32_activation(x, self._half, self._bias)
        if self._plain is not None:
            return F.linear(x, self._plain, self._bias)
        num_rows = x.shape[0]
        padded = max(_few_numbers(num_rows), 2 if self._lone_row_differs else 1)
        if padded != num_rows:
            x = F.pad(x, (0, 0, 0, padded - num_rows))
        return self._product(x, self._packed, self._bias, "none", [], "")[:num_rows]


def _few_numbers(num_rows: int) -> int:
    """The next of a few numbers: oneDNN compiles code for each that it meets, which takes longer than the product, and
    keeps it: hundreds of megabytes once it has seen prompts of all lengths.
    """
    step = next((step for limit, step in _STEPS if num_rows <= limit), _LAST_STEP)
    return -(-num_rows // step) * step


def _packed(weight: Tensor) -> Tensor | None:
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.bfloat16):
        return None
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return None
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _ROWS_HINT)


def _packed_half(weight: Tensor) -> Tensor | None:
    """For FBGEMM, where that loses nothing: products and sums are float32. None otherwise."""
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return None
    if not hasattr(torch, "fbgemm_linear_fp16_weight_fp32_activation"):
        return None
    if not torch.equal(weight.half().float(), weight):
        return None
    with warnings.catch_warnings():
        # torch says once of each of the two that it will be removed some day; the look above is for that day.
        warnings.filterwarnings("ignore", "fbgemm.* is deprecated", UserWarning)
        try:
            packed = torch.fbgemm_pack_gemm_matrix_fp16(weight.contiguous())
            torch.fbgemm_linear_fp16_weight_fp32_activation(weight[:1], packed, None)
        except RuntimeError:  # a processor or a build that FBGEMM does not know
            return None
    return packed
