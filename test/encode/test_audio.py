from __future__ import annotations

import contextlib
import io
import os
import time
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import psutil
import pytest
import soundfile
from numpy.typing import NDArray

from light_tts.audio import Audio
from light_tts.encode.audio import AudioLimits, check_audio, load_audio
from light_tts.errors import InvalidAudio, LightTTSError, PromptTooLong, PromptTooShort


def tone(seconds: float, rate: int = 24_000, level: float = 0.3) -> NDArray[np.float32]:
    time_s = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * 440 * time_s)).astype(np.float32)


def sound_file(
    samples: NDArray[np.float32], rate: int, format: str = "WAV", subtype: str = "PCM_16"
) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=format, subtype=subtype)
    return buffer.getvalue()


def av_file(
    samples: NDArray[np.float32],
    rate: int,
    format: str,
    codec: str,
    *,
    video: bool = False,
    piece: int = 1024,
) -> bytes:
    """piece: samples per packet, where the codec leaves the choice."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format) as container:
        pictures = container.add_stream("mpeg4", rate=25) if video else None
        sound = container.add_stream(codec, rate=rate, layout="mono") if codec else None
        if pictures is not None:
            pictures.width = pictures.height = 64
            pictures.pix_fmt = "yuv420p"
            picture = np.zeros((64, 64, 3), dtype=np.uint8)
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(pictures.encode(None))
        if sound is not None:
            context = sound.codec_context
            resampler = av.AudioResampler(
                context.format, "mono", rate, frame_size=context.frame_size or piece
            )
            frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
            frame.sample_rate = rate
            for part in resampler.resample(frame) + resampler.resample(None):
                container.mux(sound.encode(part))
            container.mux(sound.encode(None))
    return buffer.getvalue()


CONTAINERS = {
    "wav": lambda samples, rate: sound_file(samples, rate),
    "aiff": lambda samples, rate: sound_file(samples, rate, "AIFF"),
    "flac": lambda samples, rate: sound_file(samples, rate, "FLAC"),
    "mp3": lambda samples, rate: av_file(samples, rate, "mp3", "libmp3lame"),
    "m4a": lambda samples, rate: av_file(samples, rate, "ipod", "aac"),
    "aac": lambda samples, rate: av_file(samples, rate, "adts", "aac"),
    "ogg-vorbis": lambda samples, rate: sound_file(samples, rate, "OGG", "VORBIS"),
    "ogg-opus": lambda samples, rate: av_file(samples, rate, "ogg", "libopus"),
    "webm": lambda samples, rate: av_file(samples, rate, "webm", "libopus"),
    "mp4 with video": lambda samples, rate: av_file(samples, rate, "mp4", "aac", video=True),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_decodes_to_the_recording(container: str) -> None:
    audio = load_audio(CONTAINERS[container](tone(2.0, 48_000), 48_000))
    assert audio.sample_rate_hz == 48_000
    assert audio.duration_s == pytest.approx(2.0, abs=0.1)  # lossy codecs pad
    middle = audio.samples[24_000:72_000]
    spectrum = np.abs(np.fft.rfft(middle))
    assert int(spectrum.argmax()) == 440
    assert float(np.abs(middle).max()) == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize(
    ("subtype", "tolerance"),
    [
        ("PCM_U8", 1 / 128),
        ("PCM_16", 1 / 32768),
        ("PCM_24", 1e-6),
        ("PCM_32", 1e-7),
        ("FLOAT", 0),
        ("DOUBLE", 0),
    ],
)
def test_every_sample_format_of_wav_has_the_same_scale(subtype: str, tolerance: float) -> None:
    audio = load_audio(sound_file(tone(1.0), 24_000, subtype=subtype))
    np.testing.assert_allclose(audio.samples, tone(1.0), atol=tolerance)


@pytest.mark.parametrize("rate", [16_000, 22_050, 24_000, 44_100, 48_000, 96_000])
def test_the_recordings_own_rate_is_kept(rate: int) -> None:
    audio = load_audio(sound_file(tone(1.0, rate), rate))
    assert (audio.sample_rate_hz, len(audio.samples)) == (rate, rate)


def test_stereo_becomes_the_mean_of_its_channels() -> None:
    left, right = tone(1.0), tone(1.0, level=0.1)
    mono = load_audio(sound_file(left, 24_000, subtype="FLOAT")).samples
    same = load_audio(sound_file(np.stack([left, left], axis=1), 24_000, subtype="FLOAT")).samples
    mixed = load_audio(sound_file(np.stack([left, right], axis=1), 24_000, subtype="FLOAT")).samples
    np.testing.assert_array_equal(same, mono)
    np.testing.assert_allclose(mixed, (left + right) / 2, atol=1e-7)


def test_path_text_bytes_and_file_object_give_the_same(tmp_path: Path) -> None:
    data = sound_file(tone(1.0), 24_000)
    path = tmp_path / "http:name.wav"  # must not be taken for an address
    path.write_bytes(data)
    with path.open("rb") as file:
        sources: list[bytes | str | Path | BinaryIO] = [data, path, str(path), file]
        loaded = [load_audio(source).samples for source in sources]
    for samples in loaded[1:]:
        np.testing.assert_array_equal(samples, loaded[0])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        np.random.default_rng(0).bytes(100_000),
        bytes(50_000),
        b"this is a text file, whatever its name\n" * 100,
        b"RIFF\x24\x00\x00\x00WAVEfmt ",
        b"fLaC" + bytes(100),
        b"OggS" + bytes(100),
        b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile '/etc/passwd'\n",
    ],
)
def test_what_is_no_recording_is_refused_without_a_word_on_stderr(
    data: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InvalidAudio, match=r"cannot be decoded|empty"):
        load_audio(data)
    assert capfd.readouterr() == ("", "")


def test_a_file_without_audio_is_refused() -> None:
    with pytest.raises(InvalidAudio, match="no audio stream"):
        load_audio(av_file(tone(1.0), 24_000, "mp4", "", video=True))


def test_a_codec_that_is_not_on_the_list_is_refused() -> None:
    with pytest.raises(InvalidAudio, match="codec is gsm_ms"):
        load_audio(sound_file(tone(2.0, 16_000), 16_000, subtype="GSM610"))


def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    for path in (tmp_path / "missing.wav", tmp_path, tmp_path / "pipe.wav"):
        with pytest.raises(InvalidAudio, match="does not exist or is no regular file"):
            load_audio(path)


@pytest.mark.parametrize("container", ["wav", "mp3", "flac", "ogg-opus", "webm", "aac"])
def test_a_truncated_file_gives_its_beginning(container: str, capfd: pytest.CaptureFixture[str]) -> None:
    data = CONTAINERS[container](tone(4.0, 48_000), 48_000)
    audio = load_audio(data[: len(data) // 2])
    assert 0.5 < audio.duration_s < 3.5
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_file_cut_inside_its_header_is_refused(container: str) -> None:
    data = CONTAINERS[container](tone(1.0, 48_000), 48_000)
    with pytest.raises(InvalidAudio):
        load_audio(data[:40])


@pytest.mark.parametrize("container", ["wav", "mp3", "m4a", "flac", "ogg-vorbis", "ogg-opus", "webm"])
def test_damaged_files_decode_or_raise_a_named_error(
    container: str, capfd: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(1)
    data = CONTAINERS[container](tone(1.0, 48_000), 48_000)
    for _ in range(40):
        damaged = np.frombuffer(data, dtype=np.uint8).copy()
        places = random.integers(0, len(damaged), size=random.integers(1, 60))
        damaged[places] = random.integers(0, 256, size=len(places), dtype=np.uint8)
        with contextlib.suppress(LightTTSError):  # any other exception is the bug
            load_audio(damaged.tobytes())
    assert capfd.readouterr() == ("", "")


def test_refused_files_leave_no_file_open(tmp_path: Path) -> None:
    path = tmp_path / "bad.wav"
    path.write_bytes(b"RIFF" + bytes(1000))
    process = psutil.Process()
    before = len(process.open_files())
    for _ in range(20):
        with pytest.raises(InvalidAudio):
            load_audio(path)
    assert len(process.open_files()) == before


def test_silence_is_refused_by_its_level() -> None:
    for samples in (np.zeros(24_000), np.full(24_000, 0.2), tone(1.0, level=0.0009)):
        with pytest.raises(InvalidAudio, match=r"silent: its peak is -\d+ dBFS, limit -60 dBFS"):
            load_audio(sound_file(samples.astype(np.float32), 24_000))
    load_audio(sound_file(tone(1.0, level=0.0011), 24_000))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_wav_with_numbers_that_are_not_finite_is_refused(value: float) -> None:
    samples = tone(1.0)
    samples[100] = value
    with pytest.raises(InvalidAudio, match="sample 100 is"):
        load_audio(sound_file(samples, 24_000, subtype="FLOAT"))


def test_integers_passed_as_floats_are_refused() -> None:
    with pytest.raises(InvalidAudio, match="peak is 9830"):
        check_audio(Audio(tone(1.0) * 32768, 24_000))


def test_too_short_and_too_long_name_length_and_limit() -> None:
    with pytest.raises(PromptTooShort, match=r"0\.10 s, at least 0\.5 s"):
        load_audio(sound_file(tone(0.1), 24_000))
    with pytest.raises(PromptTooLong, match=r"31\.00 s, limit 30 s"):
        load_audio(sound_file(tone(31.0), 24_000))
    with pytest.raises(PromptTooLong, match=r"31\.00 s, limit 30 s"):
        check_audio(Audio(tone(31.0), 24_000))
    with pytest.raises(PromptTooLong, match=r"30\.01 s, limit 30 s"):
        check_audio(Audio(tone(31.0)[: 30 * 24_000 + 1], 24_000))
    with pytest.raises(PromptTooLong, match=r"limit 30 s"):
        load_audio(sound_file(tone(30.5, 16_000), 16_000))
    assert load_audio(sound_file(tone(30.1, 16_000), 16_000)).duration_s == 30.0, "an encoder's padding"
    assert load_audio(sound_file(tone(0.5), 24_000)).duration_s == 0.5
    assert load_audio(sound_file(tone(30.0, 16_000), 16_000)).duration_s == 30.0
    with pytest.raises(PromptTooLong, match=r"2\.00 s, limit 1\.5 s"):
        load_audio(sound_file(tone(2.0), 24_000), AudioLimits(max_seconds=1.5))


def test_ten_minutes_are_refused_without_decoding_them() -> None:
    data = sound_file(np.tile(tone(1.0, 16_000), 600), 16_000, "FLAC")
    start = time.perf_counter()
    with pytest.raises(PromptTooLong, match=r"600\.00 s, limit 30 s"):
        load_audio(data)
    refused_s = time.perf_counter() - start
    start = time.perf_counter()
    load_audio(data, AudioLimits(max_seconds=601.0))
    assert refused_s < (time.perf_counter() - start) / 4


def test_a_rate_outside_the_limits_is_refused() -> None:
    with pytest.raises(InvalidAudio, match="8000 Hz, allowed is 16000 to 192000 Hz"):
        load_audio(sound_file(tone(1.0, 8_000), 8_000))
    with pytest.raises(InvalidAudio, match="384000 Hz"):
        load_audio(sound_file(tone(1.0, 384_000), 384_000))


def test_a_file_of_countless_tiny_packets_is_refused() -> None:
    data = av_file(tone(1.0, 48_000), 48_000, "matroska", "pcm_s16le", piece=2)
    with pytest.raises(InvalidAudio, match="more than 20000 packets"):
        load_audio(data)
