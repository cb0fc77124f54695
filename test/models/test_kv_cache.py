from __future__ import annotations

import pytest
import torch

from light_tts.models.config import Qwen2Config
from light_tts.models.kv_cache import ForwardBatch, KVCache, SequenceSlice, kv_bytes_per_token


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
    for held in cache._tensors():
        held.zero_()
    new = torch.arange(8.0).view(2, 1, 4) + 1
    keys, values = cache.write(1, torch.tensor([4, 2]), new, -new)
    assert torch.equal(keys[4:5], new[:1])
    assert torch.equal(values[2:3], -new[1:])
    assert not keys[0:2].any()
    assert not keys[3:4].any()
    assert not cache.keys[0][0:6].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_eight_bits_hold_each_number_within_a_254th_of_its_heads_largest(dtype: torch.dtype) -> None:
    """127 steps on either side of zero: rounding is off by half of one. bfloat16 adds its own 1/256 of the number."""
    torch.manual_seed(0)
    cache = KVCache(Qwen2Config(10, 48, 16, 1, 3, 3), 20, None, dtype, int8=True)
    new = (torch.randn(12, 3, 16) * torch.logspace(-6, 3, 12)[:, None, None]).to(dtype)
    new[3, 1] = 0
    slots = torch.randperm(20)[:12]
    keys, values = cache.write(0, slots, new, new.flip(0))
    for row, slot in enumerate(slots.tolist()):
        for held, expected in ((keys, new[row]), (values, new[11 - row])):
            read = held[slot : slot + 1][0]
            assert read.dtype == dtype
            largest = expected.float().abs().amax(-1, keepdim=True)
            relative = 1 / 254 + (1 / 256 if dtype == torch.bfloat16 else 1e-6)
            assert ((read.float() - expected.float()).abs() <= largest * relative).all()


def test_eight_bits_do_not_make_what_is_not_finite_look_sound() -> None:
    cache = KVCache(Qwen2Config(10, 8, 16, 1, 2, 2), 4, None, torch.float32, int8=True)
    new = torch.ones(2, 2, 4)
    new[0, 0, 1], new[1, 1, 2] = torch.nan, torch.inf
    keys, _ = cache.write(0, torch.tensor([0, 1]), new, new)
    finite = keys[0:2].isfinite().all(dim=-1)
    assert finite.tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize("int8", [False, True])
def test_what_is_saved_comes_back_elsewhere_to_the_last_bit(int8: bool) -> None:
    torch.manual_seed(0)
    cfg = Qwen2Config(10, 16, 16, 2, 4, 2)
    cache = KVCache(cfg, 30, None, torch.float32, int8=int8)
    for layer in range(2):
        cache.write(layer, torch.arange(30), *torch.randn(2, 30, 2, 4))
    before = [tensor.clone() for tensor in cache._tensors()]
    saved = cache.save(3, 9)
    cache.write(0, torch.arange(3, 12), *torch.randn(2, 9, 2, 4))
    cache.restore(20, saved)
    for tensor, earlier in zip(cache._tensors(), before, strict=True):
        assert torch.equal(tensor[20:29], earlier[3:12])
        assert torch.equal(tensor[12:20], earlier[12:20])
        assert torch.equal(tensor[29:], earlier[29:])
    assert cache.num_bytes == 30 * kv_bytes_per_token(cfg, torch.float32, int8=int8)
