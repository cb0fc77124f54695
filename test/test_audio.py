from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from light_tts.audio import Audio, content_hash
from light_tts.errors import InvalidAudio


def test_saved_audio_is_16_bit_wav_of_the_same_length(tmp_path: Path) -> None:
    audio = Audio(np.linspace(-0.5, 0.5, 2400, dtype=np.float32), 24_000)
    audio.save(tmp_path / "out.wav")
    info = soundfile.info(tmp_path / "out.wav")
    assert (info.format, info.subtype, info.samplerate, info.channels) == ("WAV", "PCM_16", 24_000, 1)
    samples, _ = soundfile.read(tmp_path / "out.wav", dtype="float32")
    np.testing.assert_allclose(samples, audio.samples, atol=0.5 / 32768)
    assert audio.duration_s == pytest.approx(0.1)


def test_samples_beyond_full_scale_are_clipped_and_do_not_wrap() -> None:
    pcm = np.frombuffer(
        Audio(np.array([1.0, 1.5, -1.0, -7.0, 0.0], dtype=np.float32), 24_000).pcm16(), dtype="<i2"
    )
    assert pcm.tolist() == [32767, 32767, -32768, -32768, 0]


def test_all_16_bit_values_survive() -> None:
    values = np.arange(-32768, 32768, dtype=np.int16)
    audio = Audio(values.astype(np.float32) / np.float32(32768), 24_000)
    assert audio.pcm16() == values.tobytes()


def test_the_samples_are_a_copy() -> None:
    samples = np.zeros(10, dtype=np.float32)
    audio = Audio(samples, 24_000)
    samples[0] = 1.0
    assert audio.samples[0] == 0.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_numbers_that_are_not_finite_in_float32_are_refused_by_position(value: float) -> None:
    samples = np.zeros(100)
    samples[37] = value
    with pytest.raises(InvalidAudio, match=r"sample 37 is"):
        Audio(samples, 24_000)  # type: ignore[arg-type]


def test_other_shapes_types_and_rates_are_refused() -> None:
    with pytest.raises(InvalidAudio, match=r"shape \[2, 10\]"):
        Audio(np.zeros((2, 10), dtype=np.float32), 24_000)
    with pytest.raises(InvalidAudio, match="int16"):
        Audio(np.zeros(10, dtype=np.int16), 24_000)
    with pytest.raises(InvalidAudio, match="sample_rate_hz is 0"):
        Audio(np.zeros(10, dtype=np.float32), 0)
    with pytest.raises(InvalidAudio, match="sample_rate_hz is True"):
        Audio(np.zeros(10, dtype=np.float32), True)


def test_the_hash_depends_on_samples_and_rate_and_on_nothing_else() -> None:
    one = Audio(np.full(10, 0.25), 24_000)
    assert content_hash(one) == content_hash(Audio(np.full(10, 0.25, dtype=np.float32), 24_000))
    others = [
        Audio(np.full(10, 0.25), 16_000),
        Audio(np.full(11, 0.25), 24_000),
        Audio(np.full(10, 0.5), 24_000),
    ]
    assert content_hash(one) not in {content_hash(other) for other in others}
    assert content_hash(b"abc") != content_hash(b"abd")


def test_a_file_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio, path = Audio(np.zeros(10, np.float32), 24_000), tmp_path / "a.wav"
    path.write_bytes(b"old")

    def fail(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match=r"No space left on device.*a\.wav"):
        audio.save(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_saving_writes_through_links_and_into_devices(tmp_path: Path) -> None:
    audio = Audio(np.zeros(10, np.float32), 24_000)
    (tmp_path / "link.wav").symlink_to(tmp_path / "real.wav")
    audio.save(tmp_path / "link.wav")
    assert (tmp_path / "link.wav").is_symlink()
    assert soundfile.info(tmp_path / "real.wav").frames == 10
    audio.save("/dev/null")
    assert not Path("/dev/null").is_file()
