"""The flow's and the vocoder's Triton kernels equal their references, in Triton's interpreter or on a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from light_tts.kernels import lang
from test.gpu.decode_cases import LIMITS, Case, cases

# Triton 3.6's interpreter turns one-element arrays into numbers, which numpy gave up in 2.4.
INTERPRETER = lang.can_run(torch.device("cpu")) and np.lib.NumpyVersion(np.__version__) < "2.4.0"


@pytest.mark.skipif(not INTERPRETER, reason="needs Triton with TRITON_INTERPRET=1, and numpy below 2.4")
@pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_kernels_equal_their_references_in_the_interpreter(dtype: torch.dtype) -> None:
    for case in cases(torch.device("cpu"), dtype, tiny=True):
        check(case, dtype)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_kernels_equal_their_references_on_the_gpu(dtype: torch.dtype) -> None:
    for case in cases(torch.device("cuda"), dtype, tiny=False):
        check(case, dtype)


def check(case: Case, dtype: torch.dtype) -> None:
    assert case.run() <= LIMITS[dtype], f"{case.kernel}: {case.name}"
