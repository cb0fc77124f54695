from __future__ import annotations

import pytest
import torch
from torch import Tensor

from light_tts.models.vocoder.convolution import PaddedConv1d
from light_tts.models.vocoder.f0_predictor import F0Predictor
from light_tts.models.vocoder.reach import Reach


def predictor(causal: bool) -> F0Predictor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return F0Predictor(6, 5, causal).double().requires_grad_(False)


def mels(rows: int, frames: int) -> Tensor:
    return torch.randn(rows, 6, frames, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("causal", [False, True])
def test_convolutions_as_products_equal_convolutions(causal: bool) -> None:
    model, mel = predictor(causal), mels(2, 30)
    x = mel.double()
    convolutions = [module for module in model.condnet if isinstance(module, PaddedConv1d)]
    for index, conv in enumerate(convolutions):
        left, right = (1, 1) if not causal else (0, 3) if index == 0 else (2, 0)
        padded = torch.nn.functional.pad(x, (left, right))
        x = torch.nn.functional.elu(torch.nn.functional.conv1d(padded, conv.weight, conv.bias))
    expected = model.classifier(x.transpose(1, 2))[..., 0].abs()
    torch.testing.assert_close(model(mel), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("causal", "reach"), [(False, Reach(5, 5)), (True, Reach(8, 3))])
def test_a_frame_depends_on_its_reach_and_nothing_else(causal: bool, reach: Reach) -> None:
    model, mel = predictor(causal), mels(1, 40)
    changed = mel.clone()
    changed[:, :, 20] += 1
    touched = (model(mel) != model(changed))[0].nonzero().flatten()
    assert model.reach == reach
    assert (20 - int(touched[0]), int(touched[-1]) - 20) == (reach.right, reach.left)


@pytest.mark.parametrize("causal", [False, True])
def test_padding_is_not_heard(causal: bool) -> None:
    model, mel = predictor(causal), mels(2, 30)
    valid = torch.arange(30) < torch.tensor([[30], [17]])
    batch = model(mel, valid)
    torch.testing.assert_close(batch[0], model(mel[:1])[0], atol=1e-12, rtol=0)
    torch.testing.assert_close(batch[1, :17], model(mel[1:, :, :17])[0], atol=1e-12, rtol=0)
