"""Triton kernels equal their references: in Triton's interpreter where there is no GPU, if Triton is installed."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from light_tts.kernels import lang
from test.gpu.cases import FULL, TINY, Case, cases

# Triton 3.6's interpreter turns one-element arrays into numbers, which numpy gave up in 2.4.
INTERPRETER = lang.can_run(torch.device("cpu")) and np.lib.NumpyVersion(np.__version__) < "2.4.0"
GPU = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(not INTERPRETER, reason="needs Triton with TRITON_INTERPRET=1, and numpy below 2.4")
@pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")
@pytest.mark.parametrize(
    "case",
    list(cases(torch.device("cpu"), torch.float32, TINY, 1)),
    ids=lambda case: f"{case.kernel}: {case.name}",
)
def test_kernels_equal_their_references_in_the_interpreter(case: Case) -> None:
    error, limit = case.run()
    assert error <= limit


@pytest.mark.gpu
@pytest.mark.skipif(GPU.type == "cpu", reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_kernels_equal_their_references_on_the_gpu(dtype: torch.dtype) -> None:
    for case in cases(GPU, dtype, FULL, 2):
        error, limit = case.run()
        assert error <= limit, f"{case.kernel}: {case.name}"


def test_kernels_can_be_imported_without_triton() -> None:
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'triton' else find(name, *a)\n"
        "import torch, light_tts.kernels.suite as s\n"
        "assert s.KernelSuite.best(torch.device('cpu'), torch.float16).fast == frozenset()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "TRITON_INTERPRET": ""})
