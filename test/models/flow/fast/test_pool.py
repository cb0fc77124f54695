from __future__ import annotations

import gc
import random
from itertools import pairwise

import pytest
import torch

from light_tts.models.flow.fast.estimator import TailShape
from light_tts.models.flow.fast.pool import BLOCK, Lease, PoolShape, StreamPool

SHAPE = PoolShape(2, 3, 4, 2, 2, (TailShape(2, 5, True), TailShape(2, 6, False)), 1, 1, 8, (), torch.float32)


@pytest.fixture
def pool() -> StreamPool:
    return StreamPool(SHAPE, 20 * BLOCK, 6, torch.device("cpu"))


def test_leases_never_overlap_and_come_back(pool: StreamPool) -> None:
    rng, held = random.Random(0), list[Lease]()
    free = pool.free_frames
    for _ in range(300):
        if held and rng.random() < 0.5:
            held.pop(rng.randrange(len(held)))
        elif (lease := pool.lend(rng.randint(1, 6 * BLOCK))) is not None:
            held.append(lease)
        taken = sorted((lease.start, lease.start + lease.capacity) for lease in held)
        assert all(before[1] <= after[0] for before, after in pairwise(taken))
        assert not taken or taken[0][0] >= BLOCK  # the first block is nobody's
        assert len({lease.slot for lease in held}) == len(held)
        assert 0 not in {lease.slot for lease in held}
    held.clear()
    del lease
    gc.collect()
    assert pool.free_frames == free
    assert pool.lend(free) is not None


def test_there_is_no_lease_without_room_or_slot(pool: StreamPool) -> None:
    assert pool.lend(pool.free_frames + 1) is None
    held = [pool.lend(1) for _ in range(6)]
    assert all(held)
    assert pool.lend(1) is None


def test_a_copy_has_the_frames_and_both_sets_of_tails(pool: StreamPool) -> None:
    source, target, other = (pool.lend(BLOCK) for _ in range(3))
    assert source is not None
    assert target is not None
    assert other is not None
    for memory in (pool.keys_values, *pool.tails, pool.token_kv, pool.mel_kv):
        memory.normal_()
    untouched = pool.keys_values[:, :, other.key_row(0) :][:, :, :BLOCK].clone()
    pool.copy(source, target, 40)
    for half in (0, 1):
        of, to = source.key_row(half), target.key_row(half)
        assert torch.equal(pool.keys_values[:, :, to : to + 40], pool.keys_values[:, :, of : of + 40])
    for tail in pool.tails:
        for parity in (0, 1):
            assert torch.equal(tail[:, target.entry(parity, 1)], tail[:, source.entry(parity, 1)])
    assert torch.equal(pool.mel_kv[:, target.start :][:, :40], pool.mel_kv[:, source.start :][:, :40])
    assert torch.equal(
        pool.token_kv[:, target.start // 2 :][:, :20], pool.token_kv[:, source.start // 2 :][:, :20]
    )
    assert torch.equal(pool.keys_values[:, :, other.key_row(0) :][:, :, :BLOCK], untouched)


def test_bytes_per_frame_are_those_of_the_memory(pool: StreamPool) -> None:
    taken = sum(memory.nbytes for memory in (pool.keys_values, pool.token_kv, pool.mel_kv))
    assert SHAPE.bytes_per_frame * pool.num_frames == pytest.approx(taken, rel=0.1)


def test_there_are_no_more_slots_than_leases_can_be() -> None:
    small = StreamPool(SHAPE, 3 * BLOCK, 256, torch.device("cpu"))
    assert small.num_slots == 3
    assert small.tails[0].shape[1] == (3 + 1) * 2 * SHAPE.halves
    assert len([lease for lease in [small.lend(1) for _ in range(4)] if lease is not None]) == 3


def test_a_lease_may_be_collected_while_its_thread_holds_the_lock(pool: StreamPool) -> None:
    free, lease = pool.free_frames, pool.lend(1)
    with pool._lock:
        del lease
    assert pool.free_frames == free
