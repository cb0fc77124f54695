from __future__ import annotations

import numpy as np
import pytest
import torch

from light_tts.errors import InvalidInput
from light_tts.models.vocoder.overlap_add import (
    CACHED_FRAMES,
    OverlapState,
    RevocodeState,
    crossfade,
    overlap_add_stream,
    revocode_stream,
    speech_window,
    with_cached_source,
)
from light_tts.models.vocoder.source_noise import SourceNoise
from test.models.vocoder.vocoders import SAME_WAVE, golden_mel, golden_vocoder

SILENCE = SourceNoise.zeros()
SAMPLES = 480
OVERLAP = CACHED_FRAMES * SAMPLES


def test_crossfade_is_float64_arithmetic_with_numpys_window() -> None:
    generator = np.random.default_rng(1)
    old, new = generator.standard_normal((2, 1, 100), dtype=np.float32)
    new = np.concatenate([new, new[:, :30]], axis=1)
    window = np.hamming(200)
    expected = new.astype(np.float64)
    expected[:, :100] = expected[:, :100] * window[:100] + old * window[100:]
    faded = crossfade(torch.from_numpy(old), torch.from_numpy(new), speech_window(100))
    assert np.array_equal(faded.numpy(), expected.astype(np.float32))


def test_the_window_halves_sum_to_more_than_one() -> None:
    window = speech_window(OVERLAP)
    torch.testing.assert_close(
        window[:OVERLAP] + window[OVERLAP:], torch.full((OVERLAP,), 1.08).double(), atol=1e-3, rtol=0
    )


def test_cached_source_replaces_the_first_samples() -> None:
    source, cached = torch.zeros(1, 10), torch.ones(1, 4)
    assert with_cached_source(source, cached).tolist() == [[1.0] * 4 + [0.0] * 6]
    assert with_cached_source(source, None) is source


@torch.inference_mode()
def test_chunks_add_up_to_every_sample_and_match_inside() -> None:
    model, mel = golden_vocoder(2), golden_mel(2)
    assert model.cfg.samples_per_frame == SAMPLES
    state: OverlapState | None = None
    pieces, start = [], 0
    for size in (30, 25, mel.shape[2] - 55):
        chunk = mel[:, :, start : start + size]
        start += size
        wav, state = overlap_add_stream(model, chunk, state, SILENCE, finalize=start == mel.shape[2])
        pieces.append(wav)
    assert state is None
    assert [piece.shape[1] for piece in pieces] == [22 * SAMPLES, 25 * SAMPLES, (mel.shape[2] - 47) * SAMPLES]
    # Before the first seam it is the plain vocoder on the first chunk.
    first = model.synthesize(mel[:, :, :30], torch.tensor([30]), [SILENCE])
    assert torch.equal(pieces[0], first[:, : 22 * SAMPLES])


@torch.inference_mode()
def test_a_single_final_chunk_is_plain_synthesis() -> None:
    model, mel = golden_vocoder(2), golden_mel(2)[:, :, :20]
    wav, state = overlap_add_stream(model, mel, None, SILENCE, finalize=True)
    assert state is None
    assert torch.equal(wav, model.synthesize(mel, torch.tensor([20]), [SILENCE]))


@torch.inference_mode()
def test_a_first_chunk_shorter_than_the_overlap_is_refused() -> None:
    with pytest.raises(InvalidInput, match="first chunk has 7 mel frames, the overlap needs 8"):
        overlap_add_stream(golden_vocoder(2), golden_mel(2)[:, :, :7], None, SILENCE, finalize=False)


@torch.inference_mode()
def test_revocoding_holds_eight_frames_back_and_joins_to_the_whole() -> None:
    model, mel = golden_vocoder(3), golden_mel(3)
    noise = SourceNoise.seeded(4)
    state: RevocodeState | None = None
    pieces, start = [], 0
    for size in (5, 30, 20, mel.shape[2] - 55):
        chunk = mel[:, :, start : start + size]
        start += size
        finalize = start == mel.shape[2]
        wav, state = revocode_stream(model, chunk, state, noise, finalize=finalize)
        pieces.append(wav)
        if not finalize:
            assert sum(piece.shape[1] for piece in pieces) == max(0, start - 8) * SAMPLES
    whole = model.synthesize(mel, torch.tensor([mel.shape[2]]), [noise])
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, atol=SAME_WAVE, rtol=0)
