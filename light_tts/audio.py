"""Mono audio in memory."""

from __future__ import annotations

import hashlib
import io
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from light_tts.errors import InvalidAudio


@dataclass(frozen=True, slots=True, eq=False)
class Audio:
    """A mono recording.

    samples: (n,) float, full scale is [-1, 1]; kept as a float32 copy
    Raises InvalidAudio for another shape or type, for NaN or infinity, and for an impossible rate.
    """

    samples: NDArray[np.float32]
    sample_rate_hz: int

    def __post_init__(self) -> None:
        samples = np.asarray(self.samples)
        if samples.ndim != 1:
            raise InvalidAudio(f"samples have shape {list(samples.shape)}, must be (n,): one channel")
        if not np.issubdtype(samples.dtype, np.floating):
            raise InvalidAudio(f"samples are {samples.dtype}, must be floating point in [-1, 1]")
        if isinstance(self.sample_rate_hz, bool) or not isinstance(self.sample_rate_hz, int | np.integer):
            raise InvalidAudio(f"sample_rate_hz is {self.sample_rate_hz!r}, must be an integer")
        if self.sample_rate_hz < 1:
            raise InvalidAudio(f"sample_rate_hz is {self.sample_rate_hz}, must be at least 1")
        with np.errstate(over="ignore"):
            kept = np.array(samples, dtype=np.float32)  # a copy: later changes by the caller do not reach it
        finite = np.isfinite(kept)
        if not finite.all():
            where = int(np.argmin(finite))
            raise InvalidAudio(f"sample {where} is {samples[where]}, every sample must be finite")
        object.__setattr__(self, "sample_rate_hz", int(self.sample_rate_hz))
        object.__setattr__(self, "samples", kept)

    @property
    def duration_s(self) -> float:
        return len(self.samples) / self.sample_rate_hz

    def pcm16(self) -> bytes:
        """The samples as 16-bit little-endian PCM; beyond full scale they are clipped."""
        return self._int16().tobytes()

    def save(self, path: Path | str) -> None:
        """Write a 16-bit WAV file, whatever the name ends in. Raises OSError.

        Whoever reads it, and whenever this is interrupted, finds the whole file or the one that was there before.
        """
        wav = io.BytesIO()
        soundfile.write(wav, self._int16(), self.sample_rate_hz, subtype="PCM_16", format="WAV")
        target = Path(path).resolve()
        if target.exists() and not target.is_file():  # a device or pipe cannot be replaced
            target.write_bytes(wav.getvalue())
            return
        part = target.with_name(f".{uuid.uuid4().hex}.part")
        try:
            part.write_bytes(wav.getvalue())
            part.replace(target)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
        finally:
            part.unlink(missing_ok=True)

    def _int16(self) -> NDArray[np.int16]:
        # 32768, not 32767: what was decoded from 16 bits comes back unchanged.
        clipped: NDArray[np.float32] = np.clip(np.rint(self.samples * 32768.0), -32768, 32767)
        return clipped.astype(np.dtype("<i2"))


def content_hash(source: bytes | Audio) -> str:
    """SHA-256 of a recording: of the encoded bytes as they came, or of samples and rate."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    digest = hashlib.sha256(f"float32 mono {source.sample_rate_hz} Hz\n".encode())
    digest.update(source.samples.tobytes())
    return digest.hexdigest()
