"""The voice in the package: whole, small enough, and it speaks both languages from its own voices."""

from __future__ import annotations

import numpy as np
import pytest

from light_tts import LightTTS
from light_tts.doctor import Level, diagnose
from light_tts.models.bundled import bundled_model_dir

MAX_BYTES = 32_000_000


@pytest.fixture(scope="module")
def tts() -> LightTTS:
    return LightTTS(num_threads=1)


def test_it_is_whole_and_within_its_size() -> None:
    folder = bundled_model_dir()
    assert folder is not None
    assert (folder / "ATTRIBUTION.md").is_file()
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= MAX_BYTES
    assert all(finding.level is not Level.ERROR for finding in diagnose(folder).findings)


def test_there_are_four_voices_and_more_of_each_language(tts: LightTTS) -> None:
    voices = tts.voices()
    for language, words in (("zh", ("女声", "男声")), ("en", ("woman", "man"))):
        described = [voice.description for voice in voices if voice.language == language]
        assert len(described) >= 4
        women = [text for text in described if text.startswith(words[0])]
        men = [text for text in described if text.startswith(words[1])]
        assert len(women) >= 2
        assert len(men) >= 1
        assert len(women) + len(men) == len(described)


@pytest.mark.parametrize(
    ("text", "voice"), [("今天天气很好。", "lanyue"), ("The weather is nice today.", "owen")]
)
def test_it_speaks_for_about_as_long_as_a_person(tts: LightTTS, text: str, voice: str) -> None:
    audio = tts.synthesize(text, voice=voice, seed=1)
    assert 0.8 <= audio.duration_s <= 3.5
    assert float(np.abs(audio.samples).max()) > 0.05
    again = tts.synthesize(text, voice=voice, seed=1)
    np.testing.assert_array_equal(audio.samples, again.samples)


def test_streaming_says_the_same_for_as_long(tts: LightTTS) -> None:
    whole = tts.synthesize("你好，世界。", seed=3)
    chunks = list(tts.stream("你好，世界。", seed=3))
    assert sum(len(chunk.samples) for chunk in chunks) == len(whole.samples)
