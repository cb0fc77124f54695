from __future__ import annotations

import pytest
import torch

from light_tts.models.vocoder.convolution import PaddedConv1d
from light_tts.models.vocoder.reach import Reach
from light_tts.models.vocoder.resblock import ResBlock, Snake
from light_tts.threads import single_threaded


def test_snake_adds_a_squared_sine_per_channel() -> None:
    snake = Snake(3)
    snake.alpha.data = torch.tensor([0.5, 1.0, 2.0])
    x = torch.randn(2, 3, 1, 7, generator=torch.Generator().manual_seed(1))
    alpha = snake.alpha.view(1, 3, 1, 1)
    torch.testing.assert_close(snake(x), x + torch.sin(alpha * x) ** 2 / alpha)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_snake_without_gradients_is_the_same_up_to_rounding(layout: torch.memory_format) -> None:
    """Sines of numpy, within 2 units in the last place, instead of torch's."""
    generator = torch.Generator().manual_seed(1)
    with single_threaded():
        snake = Snake(24)
    x = 5 * torch.randn(2, 24, 1, 333, generator=generator).contiguous(memory_format=layout)
    snake.alpha.data = 0.3 + torch.rand(24, generator=generator)
    x[0, 3, 0, 5], x[1, 0, 0, 0] = torch.inf, torch.nan
    expected, before = snake(x).detach(), x.clone()
    with torch.no_grad():
        actual = snake(x)
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-6, equal_nan=True)
    torch.testing.assert_close(x, before, atol=0, rtol=0, equal_nan=True)


def test_snake_of_bfloat16_is_rounded_once() -> None:
    snake = Snake(3)
    x = torch.randn(2, 3, 1, 50, generator=torch.Generator().manual_seed(1)).bfloat16()
    assert torch.equal(snake(x), snake(x.float()).bfloat16())


def test_a_causal_block_does_not_look_ahead() -> None:
    block = ResBlock(4, 3, (1, 3), causal=True).requires_grad_(False)
    assert block.reach == Reach(2 + 6 + 2 + 2, 0)
    x = torch.randn(1, 4, 1, 30, generator=torch.Generator().manual_seed(1))
    changed = x.clone()
    changed[..., 20] += 1
    assert torch.equal(block(x)[..., :20], block(changed)[..., :20])


def test_uneven_padding_is_as_asked() -> None:
    conv = PaddedConv1d(1, 1, 3, left=0, right=2).requires_grad_(False)
    conv.weight.fill_(1)
    assert conv.bias is not None
    conv.bias.fill_(0)
    x = torch.tensor([1.0, 2.0, 4.0]).view(1, 1, 1, 3)
    assert conv(x).flatten().tolist() == [7.0, 6.0, 4.0]
    assert conv.reach == Reach(0, 2)
