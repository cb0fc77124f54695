from __future__ import annotations

import torch

from light_tts.models.config import Qwen2Config
from light_tts.models.kv_cache import ForwardBatch, KVCache, SequenceSlice


def test_packing_places_each_new_token_behind_its_sequences_earlier_ones() -> None:
    batch = ForwardBatch.pack([(100, 0, 3), (40, 7, 1)])
    assert batch.positions.tolist() == [0, 1, 2, 7]
    assert batch.slots.tolist() == [100, 101, 102, 47]
    assert batch.sequences == (SequenceSlice(0, 3, 100, 3), SequenceSlice(3, 1, 40, 8))
    assert batch.max_kv_len == 8
    assert batch.last_rows == [2, 3]


def test_whole_sequences_use_their_rows_as_slots() -> None:
    batch = ForwardBatch.whole([2, 3])
    assert batch.positions.tolist() == [0, 1, 0, 1, 2]
    assert batch.slots.tolist() == [0, 1, 2, 3, 4]


def test_written_slots_hold_the_new_keys_and_others_stay() -> None:
    cache = KVCache(Qwen2Config(10, 8, 16, 2, 2, 1), 6, None, torch.float32)
    for values in (*cache.keys, *cache.values):
        values.zero_()
    new = torch.arange(8.0).view(2, 1, 4) + 1
    keys, values = cache.write(1, torch.tensor([4, 2]), new, -new)
    assert torch.equal(keys[4], new[0])
    assert torch.equal(values[2], -new[1])
    assert not keys[[0, 1, 3, 5]].any()
    assert not cache.keys[0].any()
