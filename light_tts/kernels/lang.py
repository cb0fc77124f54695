"""Triton, where it is installed: kernels are defined either way, and can be run only if it is."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch


def _module(name: str) -> Any:
    return import_module(name) if find_spec("triton") is not None else None


triton: Any = _module("triton")
tl: Any = _module("triton.language")
gdc: Any = _module("triton.language.extra.cuda")


def jit(*scalars: str) -> Callable[[Callable[..., Any]], Any]:
    """Decorates a kernel, or a function that kernels call.

    scalars: integer arguments that Triton shall not make special versions for
    """

    def decorate(function: Callable[..., Any]) -> Any:
        return function if triton is None else triton.jit(function, do_not_specialize=list(scalars))

    return decorate


def const(value: int) -> Any:
    """A number that kernels may read as a global."""
    return value if tl is None else tl.constexpr(int(value))


def power_of_two(number: int) -> int:
    """The smallest that is not below `number`."""
    return 1 << max(number - 1, 0).bit_length()


def overlap(pdl: int) -> dict[str, bool]:
    """Launch options. pdl: see `KernelSuite`; the kernel waits for the one before it by itself."""
    return {"launch_pdl": True} if pdl else {}


@jit()
def wait_for_earlier(PDL: tl.constexpr):
    """Comes before whatever reads or writes memory that other kernels of the step write."""
    if PDL == 1:
        gdc.gdc_wait()
        gdc.gdc_launch_dependents()
    if PDL == 2:
        gdc.gdc_launch_dependents()
        gdc.gdc_wait()


@jit()
def prefetch(pointers):
    """Bring cache lines into the L2 cache, one for each pointer; nobody waits for them."""
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;",
        "=r,l",
        [pointers.to(tl.int64)],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )


def can_run(device: torch.device) -> bool:
    """Whether Triton kernels run on tensors of this device: on a CPU only in Triton's interpreter."""
    if triton is None:
        return False
    return device.type == "cuda" or bool(triton.knobs.runtime.interpret)


def is_out_of_resources(error: Exception) -> bool:
    """Whether a kernel wants more registers or shared memory than a multiprocessor has."""
    return triton is not None and isinstance(error, triton.runtime.errors.OutOfResources)
