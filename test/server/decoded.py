"""What a player hears of a file in any of our formats, for tests."""

from __future__ import annotations

import io

import av
import numpy as np

Samples = np.ndarray[tuple[int], np.dtype[np.float64]]
RATE_HZ = 24_000


def decoded(data: bytes, response_format: str) -> Samples:
    """int16 values at 24 kHz, as FFmpeg decodes the file; raw samples as they are."""
    if response_format == "pcm":
        return np.frombuffer(data, "<i2").astype(np.float64)
    with av.open(io.BytesIO(data)) as container:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE_HZ)
        frames = [piece for frame in container.decode(audio=0) for piece in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames]).astype(np.float64)


def delay_and_likeness(heard: Samples, sent: Samples) -> tuple[int, float]:
    """By how many samples `heard` comes late, and how alike both are then (correlation)."""
    size = 1 << (len(heard) + len(sent)).bit_length()
    product = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(sent, size))
    late = int(np.argmax(np.fft.irfft(product, size)))
    late -= size if late > size // 2 else 0
    first, second = heard[max(0, late) :], sent[max(0, -late) :]
    common = min(len(first), len(second))
    return late, float(np.corrcoef(first[:common], second[:common])[0, 1])
