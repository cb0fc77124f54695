"""Pseudo-speakers: reproducible, varied, and never made of a voice that is reserved for the evaluation."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from recipes.mini.errors import RecipeError
from recipes.mini.jobs_table import Speaker
from recipes.mini.prepare.speakers import (
    AMERICAN,
    BRITISH,
    CHINESE,
    FURTHER,
    RESERVED,
    STARS,
    make_speakers,
    read_voices,
    style_vector,
)


def test_reserved_voices_are_never_used() -> None:
    everyone = {*AMERICAN, *BRITISH, *CHINESE, *FURTHER}
    assert everyone >= RESERVED
    assert len(RESERVED) == 8
    for seed in range(5):
        _, voices = make_speakers(360, seed, warped=0.5, warp=(0.92, 1.08))
        assert not RESERVED & set(voices)
        assert len(voices) > 35


def test_speakers_are_the_same_for_the_same_seed() -> None:
    once, again = (make_speakers(40, 7, 0.5, (0.92, 1.08)) for _ in range(2))
    assert once == again
    assert once != make_speakers(40, 8, 0.5, (0.92, 1.08))


def test_prosody_is_of_the_language_and_of_one_sex_with_the_timbre() -> None:
    speakers, voices = make_speakers(200, 1, 0.5, (0.92, 1.08))
    for speaker in speakers:
        english, chinese = ([voices[voice] for voice, _ in mix] for mix in speaker.prosody)
        assert all(voice in AMERICAN or voice in BRITISH for voice in english)
        assert all(voice in CHINESE for voice in chinese)
        timbre = [voices[voice] for voice, _ in speaker.timbre]
        assert len({voice[1] for voice in [*english, *chinese, *timbre]}) == 1
        assert sum(weight for _, weight in speaker.timbre) == pytest.approx(1, abs=0.01)


def test_stars_come_first_and_are_not_warped() -> None:
    speakers, _ = make_speakers(60, 1, 1.0, (0.92, 1.08))
    assert [speaker.star for speaker in speakers[: len(STARS)]] == STARS
    assert all(speaker.warp == 1.0 for speaker in speakers[: len(STARS)])
    assert {speaker.warp for speaker in speakers[len(STARS) :]} - {1.0}
    assert all(0.92 <= speaker.warp <= 1.08 for speaker in speakers)


def test_style_takes_timbre_and_prosody_from_different_voices() -> None:
    voices = np.zeros((3, 2, 256), np.float16)
    voices[0], voices[1], voices[2] = 1, 2, 4
    voices[:, 1] += 10  # the row for longer utterances
    speaker = Speaker(((0, 1.0), (1, 1.0)), (((1, 1.0),), ((2, 1.0),)))
    short, long = style_vector(voices, speaker, 1, 4), style_vector(voices, speaker, 0, 500)
    assert set(short[:128]) == {1.5}
    assert set(short[128:]) == {4.0}
    assert set(long[:128]) == {11.5}
    assert set(long[128:]) == {12.0}


def test_voices_come_from_the_package(tmp_path: Path) -> None:
    archive = tmp_path / "voices.tgz"
    style = np.arange(510 * 256, dtype=np.float32).reshape(510, 1, 256) / 1e5
    with tarfile.open(archive, "w:gz") as package:
        member = tarfile.TarInfo("package/voices/af_heart.bin")
        member.size = style.nbytes
        package.addfile(member, io.BytesIO(style.tobytes()))
    voices = read_voices(archive, ["af_heart"])
    assert voices.shape == (1, 127, 256)
    np.testing.assert_allclose(voices[0, 3], style[12, 0], rtol=1e-3)
    with pytest.raises(RecipeError, match="af_bella"):
        read_voices(archive, ["af_bella"])
    with pytest.raises(RecipeError, match="reserved"):
        read_voices(archive, ["af_heart", "am_liam"])
