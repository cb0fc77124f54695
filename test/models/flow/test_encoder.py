from __future__ import annotations

import pytest
import torch
from torch import Tensor

from light_tts.models.config import ConformerConfig
from light_tts.models.flow.encoder import EncoderState, UpsampleConformerEncoder
from light_tts.models.layers.ragged import Frames

CHUNK = 5
CONFIG = ConformerConfig(
    input_size=10,
    output_size=16,
    attention_heads=2,
    linear_units=24,
    num_blocks=2,
    num_up_blocks=2,
    chunk_size=CHUNK,
)


@pytest.fixture(scope="module")
def encoder() -> UpsampleConformerEncoder:
    torch.manual_seed(3)
    module = UpsampleConformerEncoder(CONFIG)
    for name, parameter in module.named_parameters():
        if "pos_bias" in name:
            torch.nn.init.normal_(parameter)
    return module


def whole(encoder: UpsampleConformerEncoder, x: Tensor, context: Tensor | None, chunk: int) -> Tensor:
    """One row (T, D) alone, (3, D) after it."""
    frames = Frames.whole(torch.tensor([len(x)]), len(x), chunk)
    out, state = encoder(x[None], frames, None if context is None else context[None])
    assert state is None
    return out[0]


def pad(rows: list[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=1e3)


@torch.inference_mode()
@pytest.mark.parametrize("chunk", [0, CHUNK])
def test_ragged_batch_equals_single_rows(encoder: UpsampleConformerEncoder, chunk: int) -> None:
    rows = [torch.randn(n, 10) for n in (13, 5, 1, 9)]
    context = torch.randn(4, 3, 10)
    finalize = torch.tensor([False, True, True, False])
    frames = Frames.whole(torch.tensor([len(row) for row in rows]), 13, chunk)
    out, _ = encoder(pad(rows), frames, context, finalize)
    assert out.isfinite().all()
    for b, row in enumerate(rows):
        alone = whole(encoder, row, None if finalize[b] else context[b], chunk)
        torch.testing.assert_close(out[b, : 2 * len(row)], alone, atol=1e-4, rtol=0)


def advance(
    encoder: UpsampleConformerEncoder,
    streams: list[Tensor],
    states: list[EncoderState | None],
    ends: list[int],
) -> tuple[list[Tensor], list[EncoderState | None]]:
    """One batched call that brings stream b from its state to token ends[b]."""
    past = [0 if state is None else int(state.past_lens[0]) for state in states]
    new = [end - start for start, end in zip(past, ends, strict=True)]
    x = pad([stream[start:end] for stream, start, end in zip(streams, past, ends, strict=True)])
    finalize = torch.tensor([end == len(stream) for stream, end in zip(streams, ends, strict=True)])
    context = torch.stack(
        [
            torch.cat([stream, torch.ones(3, 10)])[end : end + 3]
            for stream, end in zip(streams, ends, strict=True)
        ]
    )
    frames = Frames(torch.tensor(past), torch.tensor(new), max(new), CHUNK, max(past))
    out, state = encoder(x, frames, context, finalize, EncoderState.stack(states), keep_state=True)
    assert state is not None
    return [out[b, : 2 * n] for b, n in enumerate(new)], list(state.split())


@torch.inference_mode()
@pytest.mark.parametrize("ends", [[5, 10, 15, 18], [10, 18], [15, 18], [5, 15, 18]])
def test_stream_equals_whole_with_the_same_masks(encoder: UpsampleConformerEncoder, ends: list[int]) -> None:
    x = torch.randn(18, 10)
    pieces: list[Tensor] = []
    states: list[EncoderState | None] = [None]
    for end in ends:
        (piece,), states = advance(encoder, [x], states, [end])
        pieces.append(piece)
    torch.testing.assert_close(torch.cat(pieces), whole(encoder, x, None, CHUNK), atol=1e-4, rtol=0)


@torch.inference_mode()
def test_ragged_streams_with_different_pasts_equal_whole_rows(encoder: UpsampleConformerEncoder) -> None:
    streams = [torch.randn(n, 10) for n in (23, 12, 19)]
    expected = [whole(encoder, stream, None, CHUNK) for stream in streams]
    got: list[list[Tensor]] = [[], [], []]
    states: list[EncoderState | None] = [None, None, None]
    # Which streams take part in each call, and how far it brings them: one joins late, one ends early.
    calls = [{0: 10}, {0: 15, 1: 5}, {1: 12, 2: 10}, {0: 20, 2: 15}, {0: 23, 2: 19}]
    for call in calls:
        members = list(call)
        pieces, after = advance(
            encoder, [streams[b] for b in members], [states[b] for b in members], [*call.values()]
        )
        for b, piece, state in zip(members, pieces, after, strict=True):
            got[b].append(piece)
            states[b] = state
    for pieces, wanted in zip(got, expected, strict=True):
        torch.testing.assert_close(torch.cat(pieces), wanted, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_state_holds_each_stream_alone_and_survives_use(encoder: UpsampleConformerEncoder) -> None:
    streams = [torch.randn(15, 10), torch.randn(15, 10)]
    _, (first, second) = advance(encoder, streams, [None, None], [10, 5])
    assert first is not None
    assert second is not None
    assert [kv.shape[2] for kv in second.token_kv + second.mel_kv] == [5, 5, 10, 10]
    assert first.up_tail is not None
    assert first.up_tail.shape == (1, 16, 4)
    before = [kv.clone() for kv in first.token_kv]
    one, _ = advance(encoder, [streams[0]], [first], [15])
    two, _ = advance(encoder, [streams[0]], [first], [15])
    assert torch.equal(one[0], two[0])
    assert all(torch.equal(a, b) for a, b in zip(before, first.token_kv, strict=True))


def test_stack_of_streams_without_a_past_is_none() -> None:
    assert EncoderState.stack([None, None]) is None


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close(encoder: UpsampleConformerEncoder, dtype: torch.dtype) -> None:
    x, frames = torch.randn(2, 12, 10), Frames.whole(torch.tensor([12, 7]), 12, CHUNK)
    half = UpsampleConformerEncoder(CONFIG)
    half.load_state_dict(encoder.state_dict())
    expected, _ = encoder(x, frames)
    out, _ = half.to(dtype)(x.to(dtype), frames)
    error = (out.float() - expected)[frames.scaled(2).valid()]
    assert error.abs().mean() < (0.05 if dtype == torch.bfloat16 else 0.01)


def test_every_parameter_learns() -> None:
    module = UpsampleConformerEncoder(CONFIG)
    x, frames = torch.randn(2, 6, 10), Frames.whole(torch.tensor([6, 4]), 6)
    out, _ = module(x, frames, torch.randn(2, 3, 10), torch.tensor([True, False]))
    out[frames.scaled(2).valid()].square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


def test_module_can_be_built_without_memory() -> None:
    with torch.device("meta"):
        module = UpsampleConformerEncoder(CONFIG)
    assert not list(module.buffers())
