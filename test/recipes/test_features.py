from __future__ import annotations

import pytest
import torch

from light_tts.encode.features import kaldi_fbank, speaker_fbank, whisper_log_mel
from light_tts.encode.resample import resample
from recipes.mini.features import at_16_khz, exact_convolutions, speaker_features, speech_features, tiled

LENS = [8000, 3210, 800]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def padded() -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of unlike level; what follows a row is loud."""
    wav = torch.randn(3, 8000) * torch.tensor([[0.3], [0.1], [0.01]])
    for row, length in enumerate(LENS):
        wav[row, length:] = 1.0
    return wav, torch.tensor(LENS)


def test_the_tokenizer_hears_padded_rows_as_serving_hears_them_alone() -> None:
    wav, lens = padded()
    features, num_frames = speech_features(wav, lens)
    assert num_frames.tolist() == [50, 20, 5]
    for row, length in enumerate(LENS):
        alone = whisper_log_mel(wav[row, :length])
        torch.testing.assert_close(features[row, :, : alone.shape[1]], alone, atol=1e-5, rtol=0)


def test_the_speaker_encoder_hears_padded_rows_as_serving_hears_them_alone() -> None:
    wav, lens = padded()
    features, num_frames = speaker_features(wav, lens)
    for row, length in enumerate(LENS):
        alone = speaker_fbank(wav[row, :length])
        assert int(num_frames[row]) == len(alone) == len(kaldi_fbank(wav[row, :length]))
        torch.testing.assert_close(features[row, : len(alone)], alone, atol=1e-4, rtol=0)
        assert not bool(features[row, len(alone) :].any())


def test_resampling_is_that_of_serving() -> None:
    wav = torch.randn(2, 960)
    torch.testing.assert_close(at_16_khz(wav)[1], resample(wav[1], 24_000, 16_000), atol=1e-6, rtol=0)


def test_a_row_is_repeated_over_its_padding() -> None:
    wav = torch.tensor([[1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]])
    assert tiled(wav, torch.tensor([3, 7])).tolist() == [[1, 2, 3, 1, 2, 3, 1], [1, 2, 3, 4, 5, 6, 7]]


def test_rounded_convolutions_are_only_off_for_a_while() -> None:
    before = torch.backends.cudnn.allow_tf32
    with exact_convolutions():
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == before
