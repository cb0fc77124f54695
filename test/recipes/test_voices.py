"""Built-in voices: enough of them, of a length that lets streams begin early, and usable by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from light_tts.audio import Audio
from light_tts.encode.voices import VoiceStore
from recipes.mini.corpus import TOKEN
from recipes.mini.errors import RecipeError
from recipes.mini.export import untrained, write_model
from recipes.mini.prepare.speakers import AMERICAN, BRITISH, CHINESE, FURTHER, RESERVED
from recipes.mini.recordings import (
    RECORDINGS,
    TONE_SETS,
    TONE_VOICES,
    VoicePlan,
    differing,
    fitted,
    prompt_tokens,
    tone_texts,
    voice_plans,
)
from recipes.mini.settings import SAMPLE_RATE, Settings
from recipes.mini.voices import MOST_FIRST_TOKENS, first_chunk_tokens, make_voices
from test.recipes.test_export import VOCABULARY, onnx_writers


def test_there_are_four_voices_a_language_women_and_men() -> None:
    plans = voice_plans()
    assert len({plan.name for plan in plans}) == len(plans)
    for language in ("zh", "en"):
        own = [plan for plan in plans if plan.language == language]
        sexes = [next(iter(plan.prosody))[1] for plan in own]
        assert sexes.count("f") >= 2
        assert sexes.count("m") >= 2
        assert all(plan.text and plan.description for plan in own)


def test_no_voice_is_mixed_from_what_is_reserved_for_tests() -> None:
    known = {*AMERICAN, *BRITISH, *CHINESE, *FURTHER} - RESERVED
    for plan in voice_plans():
        assert {*plan.timbre, *plan.prosody} <= known, plan.name


def test_prosody_is_of_the_language_that_is_spoken() -> None:
    for plan in voice_plans():
        assert all((voice in CHINESE) == (plan.language == "zh") for voice in plan.prosody), plan.name


@pytest.mark.parametrize("tokens", [9, 34, 59, 84])
def test_a_prompt_of_9_beyond_a_multiple_of_25_lets_a_stream_begin_early(tokens: int) -> None:
    assert first_chunk_tokens(tokens) == 16
    assert first_chunk_tokens(tokens + 5) > MOST_FIRST_TOKENS


def test_a_sentence_is_read_at_a_speed_at_which_it_ends_in_a_short_pause() -> None:
    def read(speed: float) -> NDArray[np.int16]:
        return np.ones(round(2.6 * SAMPLE_RATE / speed / TOKEN) * TOKEN, np.int16)

    prompt, speed = fitted(read)
    assert len(prompt) // TOKEN % 25 == 13
    assert 0.86 <= speed <= 1.14
    silence = np.flatnonzero(prompt[::-1])[0] / SAMPLE_RATE
    assert 0.04 <= silence <= 0.24


def test_a_sentence_of_an_impossible_length_is_refused() -> None:
    with pytest.raises(RecipeError, match="choose another length"):
        fitted(lambda _: np.ones(round(3.05 * SAMPLE_RATE), np.int16))


def test_the_nearest_length_is_taken() -> None:
    assert [prompt_tokens(seconds) for seconds in (0.4, 1.3, 2.3, 3.3)] == [38, 38, 63, 88]


def test_tone_sets_differ_in_tone_alone() -> None:
    from pypinyin import Style, lazy_pinyin

    for characters in TONE_SETS:
        syllables = [lazy_pinyin(c, style=Style.TONE3)[0] for c in characters]
        assert [syllable[-1] for syllable in syllables] == ["1", "2", "3", "4"], characters
        assert len({syllable[:-1] for syllable in syllables}) == 1, characters
    assert all(len(set(texts)) == 4 for texts in tone_texts())
    assert set(TONE_VOICES) < {plan.name for plan in voice_plans() if plan.language == "zh"}


def test_the_differing_syllable_reaches_from_its_vowel_to_its_tone() -> None:
    row, other = np.array([7, 8, 20, 31, 9]), np.array([7, 8, 20, 32, 9])
    assert differing(row, [other]) == (2, 3)
    longer = np.array([7, 8, 20, 33, 34, 9])
    assert differing(longer, [row]) == (2, 4)


def test_voices_are_usable_by_name(tmp_path: Path) -> None:
    settings = Settings.tiny()
    model = write_model(tmp_path / "model", settings, untrained(settings, VOCABULARY), onnx_writers(settings))
    plan = VoicePlan("someone", "zh", "made up", {}, {}, "你好。")
    rng = np.random.default_rng(0)
    folder = tmp_path / "work" / RECORDINGS
    folder.mkdir(parents=True)
    samples = (0.1 * rng.standard_normal(34 * TOKEN)).astype(np.float32)
    Audio(samples, SAMPLE_RATE).save(folder / "someone.wav")
    assert make_voices(tmp_path / "work", model, [plan]) == ["someone"]
    voice = VoiceStore(model / "voices").get("someone")
    assert (voice.info.prompt_text, voice.info.language, voice.info.description) == (
        "你好。",
        "zh",
        "made up",
    )
    assert "Kokoro" in voice.info.source
    assert len(voice.features.speech_token) == 34
    assert voice.features.prompt_mel.shape == (68, 80)
    assert voice.features.prompt_mel.dtype == torch.float32


def test_silence_around_a_prompt_is_cut_so_that_streams_begin_early(tmp_path: Path) -> None:
    settings = Settings.tiny()
    model = write_model(tmp_path / "model", settings, untrained(settings, VOCABULARY), onnx_writers(settings))
    folder = tmp_path / "work" / RECORDINGS
    folder.mkdir(parents=True)
    samples = np.zeros(63 * TOKEN, np.float32)
    samples[2400:-3600] = 0.1 * np.random.default_rng(0).standard_normal(63 * TOKEN - 6000)
    Audio(samples, SAMPLE_RATE).save(folder / "someone.wav")
    make_voices(tmp_path / "work", model, [VoicePlan("someone", "zh", "", {}, {}, "你好。")])
    assert len(VoiceStore(model / "voices").get("someone").features.speech_token) == 59


def test_a_prompt_that_would_delay_streams_is_refused(tmp_path: Path) -> None:
    settings = Settings.tiny()
    model = write_model(tmp_path / "model", settings, untrained(settings, VOCABULARY), onnx_writers(settings))
    folder = tmp_path / "work" / RECORDINGS
    folder.mkdir(parents=True)
    plan = VoicePlan("late", "zh", "", {}, {}, "你好。")
    with pytest.raises(RecipeError, match="does not exist"):
        make_voices(tmp_path / "work", model, [plan])
    noise = np.random.default_rng(0).standard_normal(45 * TOKEN)
    Audio((0.1 * noise).astype(np.float32), SAMPLE_RATE).save(folder / "late.wav")
    with pytest.raises(RecipeError, match="30 tokens long"):
        make_voices(tmp_path / "work", model, [plan])
