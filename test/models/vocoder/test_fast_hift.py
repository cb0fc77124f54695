"""The fast vocoder in float32, where it must equal its oracle."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from light_tts.models.vocoder.fast_hift import FastHiFT, bucket_of
from light_tts.models.vocoder.source_noise import SourceNoise
from light_tts.models.vocoder.streaming import StreamInput, VocoderState, stream_batch
from test.models.vocoder.vocoders import SAME_WAVE, make, vocoder_params

STREAMED_WAVE = 1e-4  # the phase of f0 of windows, whose last bit differs, over three seconds
NOISES = [SourceNoise.seeded(seed) for seed in range(4)]


@torch.inference_mode()
@pytest.mark.parametrize("kind", vocoder_params())
@pytest.mark.parametrize("silent", [False, True])
def test_rows_of_any_length_equal_the_oracle(kind: tuple[int, str | None], silent: bool) -> None:
    model, mel = make(*kind, frames=90)
    mels = torch.cat([mel, mel.flip(2), 0.9 * mel, mel])
    noise = [SourceNoise.zeros()] * 4 if silent else NOISES
    lens = torch.tensor([90, 61, 17, 2])
    expected = model.synthesize(mels, lens, noise)
    actual = FastHiFT(model, torch.float32).synthesize(mels, lens, noise)
    torch.testing.assert_close(actual, expected, atol=SAME_WAVE, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize("kind", vocoder_params())
def test_streams_equal_the_whole(kind: tuple[int, str | None]) -> None:
    model, mel = make(*kind, frames=150)
    fast = FastHiFT(model, torch.float32)
    mels, parts = [mel, mel.flip(2)], [[], []]  # type: ignore[var-annotated]
    states: list[VocoderState | None] = [None, None]
    for start, end in ((0, 26), (26, 76), (76, 126), (126, 150)):
        inputs = [
            StreamInput(m[:, :, start:end], state, noise, end == 150)
            for m, state, noise in zip(mels, states, NOISES[:2], strict=True)
        ]
        for index, (wav, state) in enumerate(stream_batch(fast, inputs)):
            parts[index].append(wav)
            states[index] = state
    for wavs, m, noise in zip(parts, mels, NOISES[:2], strict=True):
        whole: Tensor = model.synthesize(m, torch.tensor([150]), [noise])
        torch.testing.assert_close(torch.cat(wavs, dim=1), whole, atol=STREAMED_WAVE, rtol=0)


@torch.inference_mode()
def test_a_row_that_is_no_number_leaves_the_others_alone() -> None:
    model, mel = make(2, "5-8-3", 40)
    bad = torch.full_like(mel, torch.nan)
    fast = FastHiFT(model, torch.float32)
    lens = torch.tensor([40, 40])
    wavs = fast.synthesize(torch.cat([bad, mel]), lens, NOISES[:2])
    alone = fast.synthesize(mel, lens[:1], NOISES[1:2])
    assert torch.isnan(wavs[0]).any()
    torch.testing.assert_close(wavs[1:], alone, atol=SAME_WAVE, rtol=0)


@torch.inference_mode()
def test_warming_changes_nothing() -> None:
    model, mel = make(3, "3-4", 40)
    fast = FastHiFT(model, torch.float32)
    before = fast.synthesize(mel, torch.tensor([40]), NOISES[:1])
    fast.warm([(1, 40), (2, 70)])
    assert torch.equal(fast.synthesize(mel, torch.tensor([40]), NOISES[:1]), before)


def test_buckets_hold_what_is_put_in_them() -> None:
    for frames in range(1, 2000):
        assert frames <= bucket_of(frames) < frames + 64
