from __future__ import annotations

import torch

from light_tts.models.vocoder.convolution import PaddedConv1d
from light_tts.models.vocoder.reach import Reach
from light_tts.models.vocoder.resblock import ResBlock, Snake


def test_snake_adds_a_squared_sine_per_channel() -> None:
    snake = Snake(3)
    snake.alpha.data = torch.tensor([0.5, 1.0, 2.0])
    x = torch.randn(2, 3, 1, 7, generator=torch.Generator().manual_seed(1))
    alpha = snake.alpha.view(1, 3, 1, 1)
    torch.testing.assert_close(snake(x), x + torch.sin(alpha * x) ** 2 / alpha)


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
