"""The file formats of answers: samples in, the bytes of a file out while it grows."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from types import MappingProxyType, TracebackType

import av
import numpy as np

from light_tts.errors import GenerationFailed
from light_tts.server.playback import BYTES_PER_SAMPLE, SAMPLE_RATE_HZ

UNKNOWN_SIZE = 0xFFFF_FFFF
WAV_HEADER_BYTES = 44


@dataclass(frozen=True, slots=True)
class _Coding:
    """How FFmpeg makes a file: its muxer and codec with their options. bit_rate: 0 where the codec has none"""

    muxer: str
    codec: str
    bit_rate: int = 0
    muxer_options: tuple[tuple[str, str], ...] = ()
    codec_options: tuple[tuple[str, str], ...] = ()


MEDIA_TYPES = MappingProxyType(
    {
        "pcm": "audio/pcm",
        "wav": "audio/wav",
        "mp3": "audio/mpeg",
        "opus": "audio/opus",
        "aac": "audio/aac",
        "flac": "audio/flac",
    }
)
"""By the name that a request has for the format."""

_CODINGS = MappingProxyType(
    {
        # Without a Xing header, which would have to be written when the length is known.
        "mp3": _Coding("mp3", "libmp3lame", 96_000, (("write_xing", "0"), ("id3v2_version", "0"))),
        # Pages of 100 ms: by default the first second would wait for its page to be full.
        "opus": _Coding("ogg", "libopus", 48_000, (("page_duration", "100000"),)),
        "aac": _Coding("adts", "aac", 96_000),
        "flac": _Coding("flac", "flac"),
    }
)


class Packer:
    """One answer's way from int16 samples (24 kHz mono) to the bytes of its file. A codec works in a thread, one call
    after another; leaving the block frees it, also where a call is still under way.

    kind: of MEDIA_TYPES; num_bytes: of all samples, UNKNOWN_SIZE while nobody knows (only WAV says it)
    threads: for codecs; None: those of the event loop
    """

    def __init__(self, kind: str, num_bytes: int = UNKNOWN_SIZE, threads: Executor | None = None) -> None:
        coding = _CODINGS.get(kind)
        self._codec = _Codec(coding) if coding is not None else None
        self._header = wav_header(num_bytes) if kind == "wav" else b""
        self._threads = threads
        self._working: asyncio.Future[bytes] | None = None

    def __enter__(self) -> Packer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        codec = self._codec
        if codec is None:
            return
        if self._working is None or self._working.done():
            codec.close()
        else:  # the task was cancelled; the thread was not, and still uses the codec
            self._working.add_done_callback(lambda work: _close_after(work, codec))

    async def pack(self, samples: bytes) -> bytes:
        """What the file grows by; a codec keeps up to a tenth of a second. Raises GenerationFailed."""
        if self._codec is None:
            header, self._header = self._header, b""
            return header + samples
        codec = self._codec
        return await self._work(lambda: codec.encode(samples))

    async def finish(self) -> bytes:
        """The end of the file. Raises GenerationFailed."""
        if self._codec is None:
            return await self.pack(b"")
        return await self._work(self._codec.finish)

    async def _work(self, call: Callable[[], bytes]) -> bytes:
        self._working = asyncio.get_running_loop().run_in_executor(self._threads, call)
        return await asyncio.shield(self._working)


def _close_after(work: asyncio.Future[bytes], codec: _Codec) -> None:
    if not work.cancelled():
        work.exception()  # nobody else asks for it
    codec.close()


class _Codec:
    """FFmpeg's muxer and encoder of one file. For one thread at a time."""

    def __init__(self, coding: _Coding) -> None:
        self._coding = coding
        self._made = bytearray()
        self._container: av.container.OutputContainer | None = None
        self._stream: av.AudioStream | None = None
        self._num_samples = 0

    def write(self, data: bytes) -> int:
        """FFmpeg hands over what it made."""
        self._made += data
        return len(data)

    def encode(self, samples: bytes) -> bytes:
        if not samples:
            return b""
        try:
            if self._container is None:
                self._open()  # here, because it takes milliseconds
            array = np.frombuffer(samples, "<i2").reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(array, format="s16", layout="mono")
            frame.sample_rate = SAMPLE_RATE_HZ
            frame.pts = self._num_samples
            self._num_samples += array.shape[1]
            return self._mux(frame)
        except av.FFmpegError as error:
            raise GenerationFailed(f"the audio could not be encoded: {error}") from error

    def finish(self) -> bytes:
        try:
            tail = self._mux(None) if self._container is not None else b""
            self.close()
        except av.FFmpegError as error:
            raise GenerationFailed(f"the audio could not be encoded: {error}") from error
        return tail + self._take()

    def close(self) -> None:
        container, self._container, self._stream = self._container, None, None
        if container is not None:
            container.close()

    def _open(self) -> None:
        coding = self._coding
        options = {"flush_packets": "1", **dict(coding.muxer_options)}
        self._container = av.open(self, "w", format=coding.muxer, options=options)
        self._stream = self._container.add_stream(
            coding.codec, rate=SAMPLE_RATE_HZ, layout="mono", options=dict(coding.codec_options)
        )
        if coding.bit_rate:
            self._stream.bit_rate = coding.bit_rate

    def _mux(self, frame: av.AudioFrame | None) -> bytes:
        assert self._container is not None
        assert self._stream is not None
        for packet in self._stream.encode(frame):
            self._container.mux(packet)
        return self._take()

    def _take(self) -> bytes:
        made = bytes(self._made)
        self._made.clear()
        return made


def wav_header(num_bytes: int) -> bytes:
    """Of 16-bit mono at 24 kHz. num_bytes: of samples; UNKNOWN_SIZE where nobody knows yet"""
    total = min(num_bytes + 36, UNKNOWN_SIZE)
    rate = SAMPLE_RATE_HZ * BYTES_PER_SAMPLE
    form = (16, 1, 1, SAMPLE_RATE_HZ, rate, BYTES_PER_SAMPLE, 8 * BYTES_PER_SAMPLE)
    return struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", total, b"WAVE", b"fmt ", *form, b"data", num_bytes)
