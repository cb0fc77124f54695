from __future__ import annotations

import torch
from torch import nn

from recipes.mini.train.recorded import Gradients


def test_gradients_lie_in_memory_as_their_parameters_do() -> None:
    weight = nn.Parameter(torch.randn(3, 5))
    factors = torch.randn(5, 3)
    gradients = Gradients(
        lambda _kind, inputs: {"loss": (weight.T * inputs[0]).sum()}, [weight], record=False
    )
    (plain,) = torch.autograd.grad((weight.T * factors).sum(), [weight])
    assert plain.stride() != weight.stride()
    gradients(None, [factors])
    assert weight.grad is not None
    assert weight.grad.stride() == weight.stride()
    torch.testing.assert_close(weight.grad, factors.T)
