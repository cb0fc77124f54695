from __future__ import annotations

import pytest
import torch
from torch import Tensor

from light_tts.models.kv_cache import SequenceSlice
from light_tts.models.layers.packed_attention import packed_attention


def _plain(query: Tensor, keys: Tensor, values: Tensor, sequence: SequenceSlice) -> Tensor:
    """One query and one head at a time."""
    heads, kv_heads = query.shape[1], keys.shape[1]
    out = torch.empty(sequence.query_len, heads, query.shape[2])
    for row in range(sequence.query_len):
        visible = sequence.kv_len - sequence.query_len + row + 1
        seen = slice(sequence.kv_start, sequence.kv_start + visible)
        for head in range(heads):
            shared = head // (heads // kv_heads)
            weights = (keys[seen, shared] @ query[sequence.query_start + row, head]) / query.shape[2] ** 0.5
            out[row, head] = weights.softmax(0) @ values[seen, shared]
    return out


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2), (5, 1)])
@pytest.mark.parametrize(
    "sequences",
    [
        (SequenceSlice(0, 1, 3, 9),),
        (SequenceSlice(0, 7, 0, 7),),
        (SequenceSlice(0, 4, 2, 11),),
        (SequenceSlice(0, 1, 0, 5), SequenceSlice(1, 6, 5, 6), SequenceSlice(7, 2, 20, 4)),
    ],
    ids=["decode", "prefill", "more-text", "mixed"],
)
def test_every_token_attends_to_its_sequence_up_to_itself(
    heads: int, kv_heads: int, sequences: tuple[SequenceSlice, ...]
) -> None:
    torch.manual_seed(0)
    query = torch.randn(sum(s.query_len for s in sequences), heads, 8)
    keys, values = torch.randn(2, 30, kv_heads, 8)
    expected = torch.cat([_plain(query, keys, values, sequence) for sequence in sequences])
    torch.testing.assert_close(packed_attention(query, keys, values, sequences), expected, atol=1e-5, rtol=0)


def test_slots_of_others_have_no_effect() -> None:
    torch.manual_seed(0)
    query, keys, values = torch.randn(1, 2, 8), torch.randn(9, 1, 8), torch.randn(9, 1, 8)
    sequence = (SequenceSlice(0, 1, 2, 3),)
    before = packed_attention(query, keys, values, sequence)
    keys[[0, 1, 5, 8]], values[[0, 1, 5, 8]] = torch.nan, torch.nan
    assert torch.equal(packed_attention(query, keys, values, sequence), before)
