from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from light_tts.models.flow.lookahead import PreLookaheadLayer, with_context
from light_tts.models.layers.ragged import Frames


@pytest.fixture
def layer() -> PreLookaheadLayer:
    torch.manual_seed(1)
    return PreLookaheadLayer(in_channels=6, channels=10, pre_lookahead_len=3)


def by_definition(layer: PreLookaheadLayer, x: Tensor, context: Tensor) -> Tensor:
    """One row (T, C) with its (3, C) context, as the model description has it."""
    hidden = F.conv1d(torch.cat([x, context]).T[None], layer.conv1.weight, layer.conv1.bias)
    hidden = F.leaky_relu(hidden, 0.01)
    return x + F.conv1d(F.pad(hidden, (2, 0)), layer.conv2.weight, layer.conv2.bias)[0].T


@torch.inference_mode()
def test_ragged_rows_see_their_own_context_and_no_padding(layer: PreLookaheadLayer) -> None:
    lens = torch.tensor([7, 4, 1])
    x = torch.full((3, 7, 6), 1e6)  # padding that would be noticed
    rows = [torch.randn(int(n), 6) for n in lens]
    for b, row in enumerate(rows):
        x[b, : len(row)] = row
    context = torch.randn(3, 3, 6)
    context[1] = 0
    out, _ = layer(x, Frames.whole(lens, 7), context)
    for b, row in enumerate(rows):
        torch.testing.assert_close(
            out[b, : len(row)], by_definition(layer, row, context[b]), atol=1e-5, rtol=0
        )


@torch.inference_mode()
def test_without_context_every_row_ends_in_zeros(layer: PreLookaheadLayer) -> None:
    x, lens = torch.randn(2, 5, 6), torch.tensor([5, 2])
    out, _ = layer(x, Frames.whole(lens, 5))
    for b, n in enumerate(lens.tolist()):
        expected = by_definition(layer, x[b, :n], torch.zeros(3, 6))
        torch.testing.assert_close(out[b, :n], expected, atol=1e-6, rtol=0)


@torch.inference_mode()
def test_a_stream_continues_from_its_tail(layer: PreLookaheadLayer) -> None:
    x = torch.randn(1, 14, 6)
    whole, _ = layer(x, Frames.whole(torch.tensor([14]), 14))
    tail: Tensor | None = None
    pieces = []
    for start, end in ((0, 5), (5, 6), (6, 11), (11, 14)):
        frames = Frames(torch.tensor([start]), torch.tensor([end - start]), end - start, 0, start)
        context = x[:, end : end + 3] if end < 14 else None
        piece, tail = layer(x[:, start:end], frames, context, tail)
        pieces.append(piece)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, atol=1e-6, rtol=0)


@torch.inference_mode()
def test_ragged_streams_keep_their_own_tails(layer: PreLookaheadLayer) -> None:
    lens = torch.tensor([5, 1])
    x, context = torch.randn(2, 5, 6), torch.randn(2, 3, 6)
    before = torch.randn(2, 10, 2)
    _, tail = layer(x, Frames.whole(lens, 5), context, before)
    for b, n in enumerate(lens.tolist()):
        _, alone = layer(
            x[b : b + 1, :n], Frames.whole(lens[b : b + 1], n), context[b : b + 1], before[b : b + 1]
        )
        torch.testing.assert_close(tail[b : b + 1], alone, atol=1e-6, rtol=0)


def test_context_is_placed_after_the_last_valid_token() -> None:
    x = torch.arange(1, 9.0).reshape(2, 4, 1)
    context = torch.tensor([[[-1.0], [-2.0]], [[-3.0], [-4.0]]])
    placed = with_context(x, Frames.whole(torch.tensor([4, 2]), 4), context, 2)
    assert placed[:, :, 0].tolist() == [[1, 2, 3, 4, -1, -2], [5, 6, -3, -4, 0, 0]]


def test_gradients_flow_through_a_ragged_batch(layer: PreLookaheadLayer) -> None:
    x = torch.randn(2, 5, 6, requires_grad=True)
    out, _ = layer(x, Frames.whole(torch.tensor([5, 3]), 5), torch.zeros(2, 3, 6))
    out[:, :3].sum().backward()
    assert x.grad is not None
    assert x.grad[1, 3:].abs().sum() == 0
    assert x.grad[1, :3].abs().sum() > 0
