from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from light_tts.models.flow.conformer import ConformerLayer, RelPositionAttention, relative_table, shift
from light_tts.models.layers.ragged import Frames

DIM, HEADS = 12, 3


def attention() -> RelPositionAttention:
    torch.manual_seed(2)
    module = RelPositionAttention(DIM, HEADS)
    torch.nn.init.normal_(module.pos_bias_u)
    torch.nn.init.normal_(module.pos_bias_v)
    return module


def table(past: int, new: int) -> Tensor:
    return relative_table(past, new, DIM, torch.device("cpu"), torch.float32)


def position(distance: int) -> Tensor:
    """(DIM,) the sinusoid of one distance, written out."""
    values = []
    for pair in range(DIM // 2):
        angle = distance * 10_000.0 ** (-2 * pair / DIM)
        values += [math.sin(angle), math.cos(angle)]
    return torch.tensor(values)


def by_definition(module: RelPositionAttention, x: Tensor, visible: Tensor) -> Tensor:
    """One row (T, D), score by score. visible: (T, T) bool."""
    size = DIM // HEADS
    query, key, value = (
        f(x).view(-1, HEADS, size) for f in (module.linear_q, module.linear_k, module.linear_v)
    )
    mixed = torch.zeros(len(x), HEADS, size)
    for i in range(len(x)):
        for head in range(HEADS):
            scores = torch.full((len(x),), float("-inf"))
            for j in range(len(x)):
                moved = module.linear_pos(position(i - j)).view(HEADS, size)[head]
                content = (query[i, head] + module.pos_bias_u[head]) @ key[j, head]
                place = (query[i, head] + module.pos_bias_v[head]) @ moved
                if visible[i, j]:
                    scores[j] = (content + place) / math.sqrt(size)
            mixed[i, head] = scores.softmax(0) @ value[:, head]
    return module.linear_out(mixed.flatten(1))


@torch.inference_mode()
@pytest.mark.parametrize("chunk", [0, 2])
def test_attention_follows_the_definition(chunk: int) -> None:
    module, x = attention(), torch.randn(1, 5, DIM)
    mask = Frames.whole(torch.tensor([5]), 5, chunk).attention_mask()
    visible = torch.ones(5, 5, dtype=torch.bool) if mask is None else mask[0, 0]
    out, _ = module(x, table(0, 5), None if mask is None else ~mask, None)
    torch.testing.assert_close(out[0], by_definition(module, x[0], visible), atol=1e-5, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize("cut", [1, 3, 5])
def test_cached_past_equals_the_whole(cut: int) -> None:
    module, x = attention(), torch.randn(2, 6, DIM)
    blocked = torch.ones(6, 6, dtype=torch.bool).triu(1)
    blocked[:cut, :cut] = False
    whole, _ = module(x, table(0, 6), blocked, None)
    _, past = module(x[:, :cut], table(0, cut), None, None)
    rest, joined = module(x[:, cut:], table(cut, 6 - cut), blocked[cut:], past)
    torch.testing.assert_close(rest, whole[:, cut:], atol=1e-5, rtol=0)
    assert joined.shape == (2, HEADS, 6, 2 * DIM // HEADS)


@pytest.mark.parametrize(("past", "new"), [(0, 1), (0, 4), (5, 1), (3, 4), (70, 2), (2, 70)])
def test_shift_reads_the_distance_of_query_and_key(past: int, new: int) -> None:
    keys = past + new
    distance = torch.arange(keys - 1, -new - 1, -1)
    shifted = shift(distance.expand(new, -1).contiguous(), keys)
    expected = past + torch.arange(new)[:, None] - torch.arange(keys)
    assert torch.equal(shifted, expected)


@pytest.mark.parametrize(("past", "new"), [(0, 1), (3, 4), (64, 1), (63, 1), (100, 30), (0, 129)])
def test_relative_table_runs_from_largest_distance_to_below_smallest(past: int, new: int) -> None:
    rows = table(past, new)
    assert rows.shape == (past + 2 * new, DIM)
    torch.testing.assert_close(rows[0], position(past + new - 1), atol=1e-4, rtol=0)
    torch.testing.assert_close(rows[past + new - 1], position(0), atol=1e-6, rtol=0)
    torch.testing.assert_close(rows[-1], position(-new), atol=1e-4, rtol=0)


def test_table_made_in_inference_serves_training() -> None:
    with torch.inference_mode():
        relative_table(0, 200, DIM, torch.device("cpu"), torch.float32)
    layer = ConformerLayer(DIM, HEADS, 24)
    x = torch.randn(1, 200, DIM, requires_grad=True)
    out, _ = layer(x, table(0, 200), None, None)
    out.sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


@torch.inference_mode()
def test_padded_queries_give_finite_numbers() -> None:
    layer, frames = ConformerLayer(DIM, HEADS, 24), Frames.whole(torch.tensor([4, 1]), 4, chunk=2)
    mask = frames.attention_mask()
    assert mask is not None
    out, _ = layer(torch.randn(2, 4, DIM), table(0, 4), ~mask, None)
    assert out.isfinite().all()
