"""Reference recordings: decode what people upload, and refuse what cannot be a voice prompt."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import av
import av.container
import av.error
import numpy as np
from numpy.typing import NDArray

from light_tts.audio import Audio
from light_tts.errors import InvalidAudio, PromptTooLong, PromptTooShort

# Containers and codecs of recordings. Playlists and others that name further files must not be in here.
_FORMATS = "wav,aiff,caf,mp3,mov,ogg,flac,matroska,aac"
_CODECS = "mp3,mp3float,aac,opus,libopus,vorbis,flac,alac,pcm_alaw,pcm_mulaw,adpcm_ms,adpcm_ima_wav"
_OPEN_OPTIONS = {"format_whitelist": _FORMATS, "codec_whitelist": _CODECS}

_INTEGER_SCALE = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31}
_MICROSECONDS = 1_000_000
_PADDING_S = 0.15  # what encoders add to a recording; so much beyond the limit is cut off
_MAX_PACKETS = 20_000  # 30 s of Opus have at most 12 000; without a limit, packets of one sample cost minutes


@dataclass(frozen=True, slots=True)
class AudioLimits:
    """What a reference recording must keep to. The defaults are the models' own limits."""

    min_seconds: float = 0.5
    max_seconds: float = 30.0  # of the speech tokenizer
    min_sample_rate_hz: int = 16_000
    max_sample_rate_hz: int = 192_000
    silence_dbfs: float = -60.0  # a peak below is no speech
    max_peak: float = 8.0  # integers passed as floats are far above


def load_audio(source: bytes | str | Path | BinaryIO, limits: AudioLimits | None = None) -> Audio:
    """Decode the first audio stream of `source` to mono (the mean of its channels), at its own rate.

    Decoding stops soon after `max_seconds`, however long the recording is. A truncated or damaged file gives
    what can be decoded of it. Raises InvalidAudio, PromptTooShort or PromptTooLong.
    """
    limits = limits or AudioLimits()
    with ExitStack() as stack:
        if isinstance(source, str | Path):
            file: BinaryIO = stack.enter_context(_open_file(Path(source)))
        else:
            file = io.BytesIO(source) if isinstance(source, bytes) else source
        try:
            container = stack.enter_context(
                av.open(file, mode="r", container_options=_OPEN_OPTIONS, metadata_errors="ignore")
            )
            audio = _decode(container, limits)
        except (av.error.FFmpegError, OSError, ValueError, OverflowError) as error:
            raise InvalidAudio(f"the audio cannot be decoded: {_reason(error)}") from error
    check_audio(audio, limits)
    return audio


def check_audio(audio: Audio, limits: AudioLimits | None = None) -> None:
    """Raises InvalidAudio, PromptTooShort or PromptTooLong, naming value and limit."""
    limits = limits or AudioLimits()
    rate = audio.sample_rate_hz
    if not limits.min_sample_rate_hz <= rate <= limits.max_sample_rate_hz:
        raise InvalidAudio(
            f"the audio's sample rate is {rate} Hz, "
            f"allowed is {limits.min_sample_rate_hz} to {limits.max_sample_rate_hz} Hz"
        )
    if audio.duration_s > limits.max_seconds:
        raise _too_long(audio.duration_s, limits)
    if audio.duration_s < limits.min_seconds:
        raise PromptTooShort(
            f"the audio has {audio.duration_s:.2f} s, at least {limits.min_seconds:g} s are needed"
        )
    # A constant offset is as silent as zeros.
    offset = audio.samples.mean(dtype=np.float64)
    peak = float(np.abs(audio.samples - offset).max())
    level = 20.0 * math.log10(max(peak, 1e-10))
    if level < limits.silence_dbfs:
        raise InvalidAudio(
            f"the audio is silent: its peak is {level:.0f} dBFS, limit {limits.silence_dbfs:g} dBFS"
        )
    if peak > limits.max_peak:
        raise InvalidAudio(f"the audio's peak is {peak:.4g}, full scale is 1, limit {limits.max_peak:g}")


def _too_long(seconds: float, limits: AudioLimits) -> PromptTooLong:
    return PromptTooLong(
        f"the audio has {math.ceil(100 * seconds) / 100:.2f} s, limit {limits.max_seconds:g} s"
    )


def _open_file(path: Path) -> BinaryIO:
    if not path.is_file():
        raise InvalidAudio(f"audio file {path} does not exist or is no regular file")
    try:
        return path.open("rb")
    except OSError as error:
        raise InvalidAudio(f"audio file {path} cannot be read: {error.strerror}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, av.error.FFmpegError):
        return str(error.strerror)
    return str(error) or type(error).__name__


def _decode(container: av.container.InputContainer, limits: AudioLimits) -> Audio:
    if not container.streams.audio:
        raise InvalidAudio("the file has no audio stream")
    stream = container.streams.audio[0]
    codec = stream.codec_context.name if stream.codec_context else "unknown"
    if codec not in _CODECS.split(",") and not codec.startswith("pcm_"):
        raise InvalidAudio(f"the audio's codec is {codec}, which is not accepted")
    pieces: list[NDArray[np.float32]] = []
    num_samples, rate = 0, 0
    for frame in _frames(container, stream):
        rate = rate or frame.sample_rate
        if frame.sample_rate != rate:
            raise InvalidAudio(f"the audio's sample rate changes from {rate} to {frame.sample_rate} Hz")
        pieces.append(_mono(frame))
        num_samples += len(pieces[-1])
        if num_samples > (limits.max_seconds + _PADDING_S) * rate:
            told = (container.duration or 0) / _MICROSECONDS
            raise _too_long(max(told, num_samples / rate), limits)
    if not num_samples:
        raise InvalidAudio("the audio stream is empty")
    return Audio(np.concatenate(pieces)[: int(limits.max_seconds * rate)], rate)


def _frames(container: av.container.InputContainer, stream: av.AudioStream) -> Iterator[av.AudioFrame]:
    """Decoded frames. Packets that cannot be decoded are skipped, but most of them must be sound."""
    sound, broken = 0, 0
    try:
        for packet in container.demux(stream):
            try:
                yield from packet.decode()
                sound += 1
            except av.error.InvalidDataError:
                broken += 1
            if sound + broken > _MAX_PACKETS:
                raise InvalidAudio(f"the audio is cut into more than {_MAX_PACKETS} packets")
    except (av.error.InvalidDataError, av.error.EOFError):  # the container itself ends in rubbish
        broken += 1
    if broken > sound:
        raise InvalidAudio(f"the audio is damaged: {broken} of {broken + sound} packets cannot be decoded")


def _mono(frame: av.AudioFrame) -> NDArray[np.float32]:
    """(n,) float32 mean of the channels, full scale 1."""
    data = frame.to_ndarray()  # (channels, n) if planar, else (1, n * channels)
    if not frame.format.is_planar:
        data = data.reshape(-1, frame.layout.nb_channels).T
    kind = frame.format.name.removesuffix("p")
    if kind in _INTEGER_SCALE:
        scaled = data.astype(np.float32) / np.float32(_INTEGER_SCALE[kind])
        data = scaled - 1.0 if kind == "u8" else scaled
    elif kind not in ("flt", "dbl"):
        raise InvalidAudio(f"the audio's samples are {frame.format.name}, which is not accepted")
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are reported by Audio
        mono: NDArray[np.float32] = data.astype(np.float32).mean(axis=0, dtype=np.float32)
    return mono
