"""Each format's file holds what was put in, and grows while it is put in."""

from __future__ import annotations

import asyncio
import io
import threading
import wave
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from light_tts.errors import GenerationFailed
from light_tts.server.containers import MEDIA_TYPES, Packer, _Codec
from test.server.decoded import RATE_HZ, decoded, delay_and_likeness

SPEECH = Path(__file__).parents[1] / "golden/fixtures/prompt_24k.wav"
LOSSLESS = {"pcm", "wav", "flac"}
# Codecs that do not say how much they put before the speech: a frame or two, and the filling of the last one.
DELAYS = {"mp3": 1105, "aac": 1024}
LATEST_S = 0.2  # of audio put in, until a player could begin


@pytest.fixture(scope="module")
def speech() -> bytes:
    samples, rate = soundfile.read(SPEECH, dtype="int16")
    assert rate == RATE_HZ
    return np.asarray(samples).tobytes()


async def _pack(kind: str, samples: bytes, piece: int) -> list[bytes]:
    with Packer(kind) as packer:
        grown = [await packer.pack(samples[at : at + piece]) for at in range(0, len(samples), piece)]
        return [*grown, await packer.finish()]


@pytest.mark.parametrize("piece", [960, 4802, 48_000])
@pytest.mark.parametrize("kind", MEDIA_TYPES)
def test_what_is_decoded_is_what_was_put_in(kind: str, piece: int, speech: bytes) -> None:
    sent = decoded(speech, "pcm")
    heard = decoded(b"".join(asyncio.run(_pack(kind, speech, piece))), kind)
    if kind in LOSSLESS:
        assert np.array_equal(heard, sent)
        return
    late, likeness = delay_and_likeness(heard, sent)
    assert late == DELAYS.get(kind, 0)
    assert likeness > 0.97
    assert 0 <= len(heard) - len(sent) <= 2 * 1152


@pytest.mark.parametrize("kind", MEDIA_TYPES)
def test_a_player_can_begin_long_before_the_end(kind: str, speech: bytes) -> None:
    grown = asyncio.run(_pack(kind, speech, 960))  # 20 ms
    begun = b"".join(grown[: round(LATEST_S / 0.02)])
    assert len(decoded(begun, kind)) > 0.02 * RATE_HZ
    sizes = [len(piece) for piece in grown]
    assert sum(sizes[: len(sizes) // 2]) > 0.25 * sum(sizes)
    longest_silence = max(len(run) for run in "".join("x" if n else "." for n in sizes).split("x"))
    assert longest_silence * 0.02 <= LATEST_S


def test_a_wav_file_says_its_length_where_that_is_known(speech: bytes) -> None:
    async def pack() -> bytes:
        with Packer("wav", len(speech)) as packer:
            return await packer.pack(speech) + await packer.finish()

    with wave.open(io.BytesIO(asyncio.run(pack()))) as file:
        assert file.readframes(10**7) == speech


def test_a_codec_works_in_another_thread_and_is_freed_after_a_cancelled_call(
    speech: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work, go_on, events = threading.Event(), threading.Event(), []
    encode, close = _Codec.encode, _Codec.close

    def slow(codec: _Codec, samples: bytes) -> bytes:
        at_work.set()
        assert go_on.wait(5)
        made = encode(codec, samples)
        events.append(("encoded", threading.current_thread() is threading.main_thread()))
        return made

    def noted(codec: _Codec) -> None:
        events.append(("closed", True))
        close(codec)

    monkeypatch.setattr(_Codec, "encode", slow)
    monkeypatch.setattr(_Codec, "close", noted)

    async def answer(threads: ThreadPoolExecutor) -> None:
        with Packer("mp3", threads=threads) as packer:
            await packer.pack(speech[:9600])

    async def cancelled() -> None:
        with ThreadPoolExecutor(1) as threads:
            task = asyncio.create_task(answer(threads))
            await asyncio.to_thread(at_work.wait, 5)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert events == []  # the thread still uses it
            go_on.set()
            while len(events) < 2:
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(cancelled(), 10))
    assert events == [("encoded", False), ("closed", True)]


def test_an_error_of_the_codec_is_one_of_ours(speech: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise av.FFmpegError(5, "broken")

    monkeypatch.setattr(av, "open", fail)
    with pytest.raises(GenerationFailed, match="could not be encoded"):
        asyncio.run(_pack("opus", speech, 9600))
