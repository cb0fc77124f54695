from __future__ import annotations

import pytest
import torch

from light_tts.models.vocoder.spectral import istft, stft


@pytest.mark.parametrize(("n_fft", "hop_len"), [(16, 4), (8, 2), (6, 1)])
@pytest.mark.parametrize("num_hops", [5, 40])
def test_both_directions_equal_those_of_torch(n_fft: int, hop_len: int, num_hops: int) -> None:
    signal = torch.randn(3, hop_len * num_hops * 4, generator=torch.Generator().manual_seed(1))
    window = torch.hann_window(n_fft)
    expected = torch.stft(signal, n_fft, hop_len, window=window, return_complex=True)
    spectrum = stft(signal, n_fft, hop_len)
    torch.testing.assert_close(spectrum, torch.cat([expected.real, expected.imag], dim=1), atol=1e-5, rtol=0)
    # Not the transform of a signal, as the vocoder's output is not either.
    noise = torch.randn(spectrum.shape, generator=torch.Generator().manual_seed(2))
    real, imaginary = noise.chunk(2, dim=1)
    back = torch.istft(torch.complex(real, imaginary), n_fft, hop_len, window=window)
    torch.testing.assert_close(istft(noise, n_fft, hop_len), back, atol=1e-5, rtol=0)


def test_tables_made_in_inference_serve_training() -> None:
    with torch.inference_mode():
        stft(torch.randn(1, 44), 22, 11)
    signal = torch.randn(1, 44, requires_grad=True)
    istft(stft(signal, 22, 11), 22, 11).sum().backward()
    assert signal.grad is not None
