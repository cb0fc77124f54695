from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from light_tts.models.model_yaml import read_model_config
from light_tts.models.vocoder.hift import HiFT
from light_tts.models.vocoder.source_noise import SourceNoise
from light_tts.models.vocoder.streaming import (
    StreamInput,
    VocoderState,
    held_back_frames,
    stream,
    stream_batch,
)
from test.conftest import GOLDEN
from test.models.vocoder.vocoders import SAME_WAVE, SHAPES, make, random_mel, random_vocoder, vocoder_params

NOISE = SourceNoise.seeded(5)


@pytest.fixture(params=vocoder_params())
def voice(request: pytest.FixtureRequest) -> tuple[HiFT, Tensor]:
    """A vocoder, and a mel longer than what a stream ever remembers."""
    version, shape = request.param
    return make(version, shape, 130)


def whole(model: HiFT, mel: Tensor, noise: SourceNoise = NOISE) -> Tensor:
    return model.synthesize(mel, torch.tensor([mel.shape[2]]), [noise])


def stream_all(model: HiFT, mel: Tensor, sizes: Sequence[int], noise: SourceNoise = NOISE) -> list[Tensor]:
    """The pieces that come out when `mel` goes in by pieces of `sizes`, and then the end."""
    pieces, state, start = [], None, 0
    for size in sizes:
        wav, state = stream(model, mel[:, :, start : start + size], state, noise, finalize=False)
        pieces.append(wav)
        start += size
    wav, state = stream(model, mel[:, :, start:], state, noise, finalize=True)
    assert state is None
    return [*pieces, wav]


def random_sizes(total: int, seed: int) -> list[int]:
    """Pieces of at most `total` frames: some empty, some of one frame, some long."""
    generator = random.Random(seed)
    sizes: list[int] = []
    while True:
        size = generator.choice((0, 1, 2, 7, generator.randrange(60)))
        if sum(sizes) + size > total:
            return sizes
        sizes.append(size)


@torch.inference_mode()
@pytest.mark.parametrize("seed", [0, 1])
def test_pieces_join_to_the_whole_waveform(voice: tuple[HiFT, Tensor], seed: int) -> None:
    model, mel = voice
    pieces = stream_all(model, mel, random_sizes(mel.shape[2], seed))
    expected = whole(model, mel)
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(torch.cat(pieces, dim=1), expected, atol=SAME_WAVE, rtol=0)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    version=st.sampled_from([2, 3]),
    shape=st.sampled_from(["3-4", "3-1-5"]),
    sizes=st.lists(st.integers(0, 40), max_size=6),
    rest=st.integers(0, 20),
)
def test_any_chunking_of_any_length_joins(version: int, shape: str, sizes: list[int], rest: int) -> None:
    model = random_vocoder(version, shape)
    mel = random_mel(model, sum(sizes) + rest, seed=1)
    with torch.inference_mode():
        joined = torch.cat(stream_all(model, mel, sizes), dim=1)
        assert joined.shape[1] == mel.shape[2] * model.cfg.samples_per_frame
        if mel.shape[2]:
            torch.testing.assert_close(joined, whole(model, mel), atol=SAME_WAVE, rtol=0)


@torch.inference_mode()
def test_each_call_returns_all_but_the_held_back_frames(voice: tuple[HiFT, Tensor]) -> None:
    model, mel = voice
    sizes = [30, 0, 1, 40, 25]
    pieces = stream_all(model, mel, sizes)
    emitted = received = 0
    for size, piece in zip(sizes, pieces, strict=False):
        received += size
        emitted += piece.shape[1]
        assert emitted == max(0, received - held_back_frames(model)) * model.cfg.samples_per_frame
    assert sum(piece.shape[1] for piece in pieces) == mel.shape[2] * model.cfg.samples_per_frame


@pytest.mark.parametrize(("version", "frames"), [(2, 21), (3, 5)])
def test_held_back_frames_of_the_released_shapes_are_as_documented(version: int, frames: int) -> None:
    # The tiny recorded models differ from the released ones in widths only.
    cfg = read_model_config(GOLDEN / f"cosyvoice{version}").hift
    assert held_back_frames(HiFT(dataclasses.replace(cfg, base_channels=8))) == frames


@torch.inference_mode()
def test_a_state_can_be_continued_twice(voice: tuple[HiFT, Tensor]) -> None:
    model, mel = voice
    _, state = stream(model, mel[:, :, :60], None, NOISE, finalize=False)
    first, _ = stream(model, mel[:, :, 60:], state, NOISE, finalize=True)
    stream(model, mel[:, :, :40], state, NOISE, finalize=True)
    again, _ = stream(model, mel[:, :, 60:], state, NOISE, finalize=True)
    assert torch.equal(first, again)


@torch.inference_mode()
def test_a_state_stops_growing(voice: tuple[HiFT, Tensor]) -> None:
    model, mel = voice
    sizes = []
    state: VocoderState | None = None
    for _ in range(6):
        _, state = stream(model, mel[:, :, :60], state, NOISE, finalize=False)
        assert state is not None
        sizes.append([tensor.numel() for tensor in (state.mel, state.f0, state.features, state.source)])
    assert sizes[2:] == [sizes[1]] * 4


@torch.inference_mode()
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("shape", [None, "3-4"])
def test_streams_in_a_batch_sound_as_alone(version: int, shape: str | None) -> None:
    model, mel = make(version, shape, 130)
    plans = [[50, 50], [50, 50], [3, 30, 50], [50, 20, 50], [20, 50], [50, 50, 0, 20]]
    noises = [SourceNoise.seeded(row) for row in range(len(plans))]
    states: list[VocoderState | None] = [None] * len(plans)
    pieces: list[list[Tensor]] = [[] for _ in plans]
    positions, calls = [0] * len(plans), [0] * len(plans)
    while open_rows := [row for row, plan in enumerate(plans) if calls[row] <= len(plan)]:
        inputs = []
        for row in open_rows:
            finalize = calls[row] == len(plans[row])
            size = mel.shape[2] - positions[row] if finalize else plans[row][calls[row]]
            chunk = mel[:, :, positions[row] : positions[row] + size]
            inputs.append(StreamInput(chunk, states[row], noises[row], finalize))
            positions[row] += size
            calls[row] += 1
        for row, (wav, state) in zip(open_rows, stream_batch(model, inputs), strict=True):
            states[row] = state
            pieces[row].append(wav)
    for row, plan in enumerate(plans):
        alone = stream_all(model, mel, plan, noises[row])
        assert [piece.shape for piece in pieces[row]] == [piece.shape for piece in alone]
        torch.testing.assert_close(torch.cat(pieces[row], 1), torch.cat(alone, 1), atol=SAME_WAVE, rtol=0)


@torch.inference_mode()
def test_streams_of_equal_windows_run_as_one_batch() -> None:
    model, mel = make(2, "3-4", 130)
    rows: list[int] = []
    handle = model.conv_post.register_forward_hook(lambda _m, inputs, _o: rows.append(inputs[0].shape[0]))
    states = [stream(model, mel[:, :, :start], None, NOISE, finalize=False)[1] for start in (60, 70, 80)]
    rows.clear()
    stream_batch(model, [StreamInput(mel[:, :, :50], state, NOISE, False) for state in states])
    handle.remove()
    assert rows == [3]


@torch.inference_mode()
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_context_covers_what_the_waveform_depends_on_and_hardly_more(version: int, shape: str) -> None:
    model = random_vocoder(version, shape)
    frames, at, samples = 60, 30, model.cfg.samples_per_frame
    features = torch.randn(1, model.cfg.base_channels, frames, generator=torch.Generator().manual_seed(0))
    source = 0.1 * torch.randn(1, frames * samples, generator=torch.Generator().manual_seed(1))
    before = model.decode_window(features, source, 0, frames)
    features, source = features.clone(), source.clone()
    features[:, :, at] += 1
    source[:, at * samples : (at + 1) * samples] += 1
    changed = (model.decode_window(features, source, 0, frames) != before)[0].view(frames, samples).any(1)
    touched = changed.nonzero().flatten()
    needed_left, needed_right = int(touched[-1]) - at, at - int(touched[0])
    assert needed_left <= model.reach.left <= needed_left + 1
    assert needed_right <= model.reach.right <= needed_right + 1
