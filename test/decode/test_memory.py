from __future__ import annotations

import psutil
import torch

from light_tts.config import ServerConfig
from light_tts.decode.memory import budget_for, state_bytes, state_limit_bytes
from light_tts.models.flow.fast.pool import PoolShape, StreamPool
from light_tts.models.vocoder.mel_stretch import MelStretcher


def test_tensors_anywhere_in_the_state_count_and_shared_memory_once() -> None:
    base = torch.zeros(100, dtype=torch.float32)
    state = ([base, base[:10]], MelStretcher(1.0, pending=torch.zeros(5, dtype=torch.float64)), None, 3)
    assert state_bytes(state) == 400 + 40


def test_a_view_counts_as_all_that_it_keeps_alive() -> None:
    assert state_bytes(torch.zeros(1000)[:1]) == 4000


def test_on_a_cpu_the_decode_processes_share_half_of_the_free_memory() -> None:
    one = state_limit_bytes(ServerConfig(decode_process_num=1, num_gpus=0), 0)
    two = state_limit_bytes(ServerConfig(decode_process_num=2, num_gpus=0), 1)
    assert 0 < one <= psutil.virtual_memory().total / 2
    assert 0.3 * one < two < 0.7 * one  # the machine does other things meanwhile


def test_a_pool_has_room_for_what_is_promised_of_it() -> None:
    shape = PoolShape(1, 1, 4, 1, 2, (), 0, 0, 0, (), torch.float32)
    pool = StreamPool(shape, 2000, 4, torch.device("cpu"))
    budget = budget_for(ServerConfig(num_gpus=0), 0, shape.bytes_per_frame * 2000)
    lease = pool.lend(650)
    assert lease is not None
    assert lease.num_bytes == state_bytes((lease, lease)) == 700 * shape.bytes_per_frame
    assert budget.limit_bytes < 2000 * shape.bytes_per_frame
    assert budget.copies == 0


def test_batches_of_several_copy_their_states() -> None:
    single = budget_for(ServerConfig(num_gpus=0), 0)
    several = budget_for(ServerConfig(decode_max_batch_size=4, decode_paral_num=2, num_gpus=0), 0)
    assert (single.in_flight, single.copies) == (1, 1)
    assert (several.in_flight, several.copies) == (8, 3)
