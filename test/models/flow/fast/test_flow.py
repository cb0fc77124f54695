"""The fast flow in float32, where it equals its oracle; `test.gpu.decode_check` compares half precision on a GPU."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import pytest
import torch

from light_tts.models.flow.fast.flow import FastFlow
from light_tts.models.flow.fast.pool import BLOCK
from light_tts.models.flow.flow_state import FlowInput, FlowState
from light_tts.models.flow.token_to_mel import Flow
from test.models.flow.test_token_to_mel import (
    CONFIGS,
    TOLERANCE,
    Stream,
    advance,
    border,
    flow,  # noqa: F401  # a fixture
    speech,
    voice,
    whole,
)

POOL_BYTES = 60_000_000


@pytest.fixture(scope="module")
def fast(flow: Flow) -> FastFlow:  # noqa: F811
    return FastFlow(flow, torch.float32, pool_bytes=POOL_BYTES, num_slots=8)


def free_slots(fast: FastFlow) -> int:
    gc.collect()
    leases = []
    while (lease := fast.pool.lend(1)) is not None:
        leases.append(lease)
    return len(leases)


@torch.inference_mode()
@pytest.mark.parametrize("streaming", [False, True])
def test_whole_utterances_of_any_length_equal_the_oracle(flow: Flow, fast: FastFlow, streaming: bool) -> None:  # noqa: F811
    inputs = [
        FlowInput(speech(40, 1), voice(13)),
        FlowInput(speech(8, 2), voice(0), finalize=False),
        FlowInput(speech(55, 3), voice(37, 70), finalize=False),
        FlowInput(speech(1, 4), voice(5)),
        FlowInput(speech(0), voice(0)),
    ]
    for actual, expected in zip(fast(inputs, streaming), flow(inputs, streaming), strict=True):
        torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=0)


@torch.inference_mode()
def test_nothing_to_say_is_an_empty_mel(fast: FastFlow) -> None:
    assert fast([FlowInput(speech(0), voice(0))])[0].shape == (CONFIGS[2].output_size, 0)


@torch.inference_mode()
@pytest.mark.parametrize("num_prompt", [0, 10, 25, 37, 60])
@pytest.mark.parametrize("hops", [[25, 25, 25, 25], [25, 50, 25], [100]], ids=str)
@pytest.mark.parametrize("prefill", [True, False], ids=["prefill", "start"])
def test_a_stream_equals_the_whole_with_the_same_masks(
    flow: Flow,  # noqa: F811
    fast: FastFlow,
    num_prompt: int,
    hops: list[int],
    prefill: bool,
) -> None:
    prompt = voice(num_prompt)
    tokens = speech(border(prompt, sum(hops)) + 9)
    stream = Stream(tokens, fast.prefill_prompt(prompt) if prefill else fast.start(prompt))
    end = 0
    for hop in hops:
        end = border(prompt, end + hop)
        run(fast, [stream], [end])
    run(fast, [stream], [None])
    torch.testing.assert_close(
        torch.cat(stream.mels, dim=1), whole(flow, tokens, prompt), atol=TOLERANCE, rtol=0
    )


def run(fast: FastFlow, streams: Sequence[Stream], ends: Sequence[int | None]) -> None:
    advance(fast, streams, ends)  # type: ignore[arg-type]  # has all that is used of a Flow


@torch.inference_mode()
def test_batched_streams_with_different_pasts_equal_whole_rows(flow: Flow, fast: FastFlow) -> None:  # noqa: F811
    prompts = [voice(60), voice(0), voice(37), voice(10)]
    tokens = [speech(n, n) for n in (95, 58, 70, 11)]
    streams = [Stream(t, fast.prefill_prompt(prompt)) for t, prompt in zip(tokens, prompts, strict=True)]
    calls: list[dict[int, int | None]] = [
        {0: 15},
        {0: 40, 1: 25, 2: 13},
        {1: 50, 3: None},
        {0: 90, 1: None, 2: 63},
        {0: None, 2: None},
    ]
    for call in calls:
        run(fast, [streams[b] for b in call], [*call.values()])
    for stream, prompt, ids in zip(streams, prompts, tokens, strict=True):
        torch.testing.assert_close(
            torch.cat(stream.mels, dim=1), whole(flow, ids, prompt), atol=TOLERANCE, rtol=0
        )


@torch.inference_mode()
def test_streams_of_one_voice_leave_its_state_alone(flow: Flow, fast: FastFlow) -> None:  # noqa: F811
    prompt = voice(60)
    prefilled = fast.prefill_prompt(prompt)
    for seed in (1, 2):
        tokens = speech(45, seed)
        stream = Stream(tokens, prefilled)
        run(fast, [stream], [15])
        run(fast, [stream], [None])
        torch.testing.assert_close(
            torch.cat(stream.mels, dim=1), whole(flow, tokens, prompt), atol=TOLERANCE, rtol=0
        )


@torch.inference_mode()
def test_a_chunk_can_be_done_again_from_the_state_before_it(flow: Flow, fast: FastFlow) -> None:  # noqa: F811
    """A batch that failed is tried again member by member."""
    prompt, tokens = voice(37), speech(80)
    stream = Stream(tokens, fast.prefill_prompt(prompt))
    run(fast, [stream], [13])
    before: FlowState = stream.state
    chunk = stream.chunk(63)
    (first,), _ = fast.stream([chunk], [before])
    (again,), (after,) = fast.stream([chunk], [before])
    torch.testing.assert_close(again, first, atol=0, rtol=0)
    assert after is not None
    stream.state = after
    stream.mels.append(again)
    run(fast, [stream], [None])
    torch.testing.assert_close(
        torch.cat(stream.mels, dim=1), whole(flow, tokens, prompt), atol=TOLERANCE, rtol=0
    )


@torch.inference_mode()
@pytest.mark.parametrize("frames", [0, 1, 2, 3])
def test_streams_without_memory_compute_their_past_again(flow: Flow, frames: int) -> None:  # noqa: F811
    """frames: room for so many blocks of them; a stream that outgrows it goes on without"""
    small = FastFlow(flow, torch.float32, pool_bytes=0, num_slots=8)
    bytes_per_frame = small.state_bytes_per_frame
    small = FastFlow(flow, torch.float32, pool_bytes=frames * BLOCK * bytes_per_frame, num_slots=8)
    prompt, tokens = voice(37), speech(120)
    stream = Stream(tokens, small.prefill_prompt(prompt))
    for end in (13, 38, 88, None):
        run(small, [stream], [end])
    torch.testing.assert_close(
        torch.cat(stream.mels, dim=1), whole(flow, tokens, prompt), atol=TOLERANCE, rtol=0
    )


@torch.inference_mode()
def test_memory_comes_back_when_streams_are_forgotten(fast: FastFlow) -> None:
    before = free_slots(fast), fast.pool.free_frames
    stream = Stream(speech(80), fast.prefill_prompt(voice(60)))
    run(fast, [stream], [15])
    assert fast.pool.free_frames < before[1]
    del stream
    assert (free_slots(fast), fast.pool.free_frames) == before


@torch.inference_mode()
def test_a_longer_stream_moves_to_more_memory(flow: Flow) -> None:  # noqa: F811
    fast = FastFlow(flow, torch.float32, pool_bytes=POOL_BYTES, num_slots=8)
    prompt, tokens = voice(10), speech(700)
    stream = Stream(tokens, fast.start(prompt))
    for end in (*range(15, 690, 75), None):
        run(fast, [stream], [end])
    torch.testing.assert_close(
        torch.cat(stream.mels, dim=1), whole(flow, tokens, prompt), atol=TOLERANCE, rtol=0
    )


@torch.inference_mode()
def test_refusals_are_the_oracles(fast: FastFlow) -> None:
    with pytest.raises(ValueError, match="multiple of 25"):
        run(fast, [Stream(speech(60), fast.start(voice(0)))], [26])


@torch.inference_mode()
def test_half_precision_stays_close(flow: Flow) -> None:  # noqa: F811
    """The references of the kernels stand in for them; a GPU rounds alike."""
    fast = FastFlow(flow, torch.bfloat16, pool_bytes=0, stream_dtype=torch.float32)
    inputs = [FlowInput(speech(40, 1), voice(13))]
    error = (fast(inputs)[0] - flow(inputs)[0]).norm() / flow(inputs)[0].norm()
    assert error < 3e-2


@torch.inference_mode()
def test_warming_changes_nothing(flow: Flow, fast: FastFlow) -> None:  # noqa: F811
    inputs = [FlowInput(speech(40, 1), voice(13))]
    before = fast(inputs)[0]
    fast.warm([(1, 50, True), (2, 30, False)])
    assert torch.equal(fast(inputs)[0], before)
