"""record: what the teacher reads for the built-in voices and for the measurement of tones. On the CPU, in a minute."""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file, save_file

from light_tts.audio import Audio
from light_tts.encode.features import prompt_mel
from recipes.mini.corpus import TOKEN, Utterance
from recipes.mini.errors import RecipeError
from recipes.mini.jobs_table import LANGUAGES, Jobs, Mix, Speaker
from recipes.mini.prepare.generate import prepare_weights, weights_path
from recipes.mini.prepare.jobs import SpellingEncoder, teacher_alphabet
from recipes.mini.prepare.kokoro import Kokoro
from recipes.mini.prepare.phonemise import read_phonemes
from recipes.mini.prepare.speakers import style_vector
from recipes.mini.prepare.utterance import on_cpu, to_utterance
from recipes.mini.settings import SAMPLE_RATE, Settings
from recipes.mini.tones import f0_track

logger = logging.getLogger(__name__)

RECORDINGS = "recordings"  # folder of WORK
TONES = "tones.safetensors"

_TOKENS_MODULO, _TOKENS_REST = 25, 13  # a prompt this long leaves 12 tokens to the first border of a stream
_SILENCE_S = (0.04, 0.24)  # after the quiet end of the speech: a pause between sentences
_SPEEDS = tuple(
    1 + step * sign / 50 for step in range(8) for sign in ((1, -1) if step else (1,))
)  # 1, 1.02, 0.98, ...


@dataclass(frozen=True, slots=True)
class VoicePlan:
    """A built-in voice: timbre and prosody as shares of the teacher's voices, and the sentence of its prompt."""

    name: str
    language: str
    description: str
    timbre: Mapping[str, float]
    prosody: Mapping[str, float]
    text: str


def voice_plans() -> list[VoicePlan]:
    """The built-in voices, from voices.json."""
    rows = json.loads(Path(__file__).with_name("voices.json").read_text("utf-8"))
    return [VoicePlan(**row) for row in rows]


# Characters that differ in nothing but their tone, first to fourth.
TONE_SETS = "妈麻马骂 八拔把爸 衣姨椅易 书熟鼠树 汤糖躺烫 猪竹主住 迂鱼雨玉 锅国果过 机急几记".split()
TONE_CARRIER = "我写的是{}字。"
TONE_VOICES = ("haoran", "lanyue")


class Recorder:
    """The teacher with WORK's voices, on the CPU."""

    def __init__(self, settings: Settings, work: Path, alphabet: Mapping[str, int]) -> None:
        prepare_weights(work)
        self._settings = settings
        self._model = Kokoro.load(load_file(weights_path(work)), torch.device("cpu"))
        self._styles = load_arrays(work / "text" / "voices.safetensors")["voices"]
        self._numbers = {name: number for number, name in enumerate(Jobs(work / "text").voices)}
        self._alphabet = alphabet

    def ids(self, phonemes: str) -> NDArray[np.int64]:
        return np.array([self._alphabet[c] for c in phonemes if c in self._alphabet], np.int64)

    @torch.inference_mode()
    def read(self, plan: VoicePlan, ids: NDArray[np.int64], speed: float = 1.0) -> Utterance:
        """Speech without the silence around it; `phone` holds positions in `ids`, from 1, in place of phonemes."""
        prosody = self._mix(plan.prosody)
        speaker = Speaker(self._mix(plan.timbre), (prosody, prosody))
        style = style_vector(self._styles, speaker, LANGUAGES.index(plan.language), len(ids))
        spoken = on_cpu(self._model(torch.from_numpy(ids), torch.from_numpy(style), speed))
        positions = np.arange(1, len(ids) + 1)
        rng = np.random.default_rng(self._settings.seed)
        utterance = to_utterance(0, positions, spoken, 1.0, self._settings.generate, rng)
        if utterance is None:
            raise RecipeError(f"the teacher could not read the sentence of {plan.name}")
        return utterance

    def _mix(self, shares: Mapping[str, float]) -> Mix:
        if unknown := sorted(set(shares) - set(self._numbers)):
            raise RecipeError(f"WORK/text holds no voice {', '.join(unknown)}")
        return tuple((self._numbers[name], share) for name, share in shares.items())


def record(settings: Settings, work: Path, downloads: Path, python: Path) -> None:
    """Write WORK/recordings: NAME.wav of every voice, and tones.safetensors. Raises RecipeError."""
    folder = work / RECORDINGS
    plans = voice_plans()
    texts = [plan.text for plan in plans] + [text for texts in tone_texts() for text in texts]
    phonemes = phonemes_of(
        texts, SpellingEncoder(Jobs(work / "text").vocabulary), folder / "phonemes", python
    )
    recorder = Recorder(settings, work, teacher_alphabet(downloads))
    for plan in plans:
        ids = recorder.ids(phonemes[plan.text])
        wav, speed = fitted(lambda speed, plan=plan, ids=ids: recorder.read(plan, ids, speed).wav)  # type: ignore[misc]
        Audio(wav.astype(np.float32) / np.float32(32768), SAMPLE_RATE).save(folder / f"{plan.name}.wav")
        logger.info("%s: %d tokens, at speed %.2f", plan.name, len(wav) // TOKEN, speed)
    tensors: dict[str, torch.Tensor] = {}
    for plan in (plan for plan in plans if plan.name in TONE_VOICES):
        tensors |= _tone_references(settings, recorder, plan, phonemes)
    save_file(tensors, folder / TONES)


def tone_texts() -> list[list[str]]:
    """For each set of characters its four sentences."""
    return [[TONE_CARRIER.format(character) for character in characters] for characters in TONE_SETS]


def phonemes_of(texts: Sequence[str], encoder: SpellingEncoder, cache: Path, python: Path) -> dict[str, str]:
    """The teacher's phonemes by text, from misaki in the prepare environment. Raises RecipeError."""
    cache = cache.resolve()  # the program runs in the repository
    cache.mkdir(parents=True, exist_ok=True)
    rows = ({"text": text, "syllables": encoder.syllables(text)} for text in texts)
    (cache / "texts.jsonl").write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8"
    )
    command = [
        python,
        "-m",
        "recipes.mini.prepare.phonemise",
        "--texts",
        cache / "texts.jsonl",
        "--out",
        cache,
    ]
    repository = Path(__file__).resolve().parents[2]
    try:
        subprocess.run([str(word) for word in command], cwd=repository, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise RecipeError(
            f"phonemes cannot be made with {python} (requirements-prepare.txt): {error}"
        ) from error
    found = {text: phonemes for text, phonemes in read_phonemes(cache).items() if phonemes}
    if missing := [text for text in texts if text not in found]:
        raise RecipeError(f"the teacher cannot read {missing[0]!r}")
    return found


def fitted(read: Callable[[float], NDArray[np.int16]]) -> tuple[NDArray[np.int16], float]:
    """A prompt whose number of tokens is right for streaming: read at a speed at which it ends in a short pause.

    A stream's first chunk ends where prompt and new tokens together are a multiple of 25: a prompt of 13 more than
    such a multiple makes it 12 tokens long, hardly more than the fewest that a chunk may have.
    read: speech at a speed, without silence around it. Returns the prompt, (n,) int16, and its speed.
    """
    for speed in _SPEEDS:
        wav = read(speed)
        seconds = len(wav) / SAMPLE_RATE
        tokens = prompt_tokens(seconds)
        silence = tokens * TOKEN / SAMPLE_RATE - seconds
        if _SILENCE_S[0] <= silence <= _SILENCE_S[1]:
            return np.pad(wav, (0, tokens * TOKEN - len(wav))), speed
    raise RecipeError(
        f"a sentence of {seconds:.2f} s cannot be read in {tokens} tokens: choose another length"
    )


def prompt_tokens(seconds: float) -> int:
    """The number of tokens, 13 modulo 25, that is nearest for so much speech and a pause."""
    wanted = (seconds + sum(_SILENCE_S) / 2) * SAMPLE_RATE / TOKEN
    return max(1, round((wanted - _TOKENS_REST) / _TOKENS_MODULO)) * _TOKENS_MODULO + _TOKENS_REST


def _tone_references(
    settings: Settings, recorder: Recorder, plan: VoicePlan, phonemes: Mapping[str, str]
) -> dict[str, torch.Tensor]:
    """`VOICE.SET.TONE.mel` (T, 80), `.f0` (T,) Hz and `.region` (2,): frames of the syllable that differs."""
    tensors = {}
    for number, texts in enumerate(tone_texts()):
        ids = [recorder.ids(phonemes[text]) for text in texts]
        for tone, row in enumerate(ids):
            first, last = differing(row, [other for other in ids if other is not row])
            utterance = recorder.read(plan, row)
            inside = np.flatnonzero((utterance.phone >= first + 1) & (utterance.phone <= last + 1))
            wav = torch.from_numpy(utterance.wav.astype(np.float32) / 32768)
            key = f"{plan.name}.{number}.{tone + 1}"
            tensors[f"{key}.mel"] = prompt_mel(wav, settings.model_config().mel).half()
            tensors[f"{key}.f0"] = torch.from_numpy(f0_track(wav.numpy()))
            tensors[f"{key}.region"] = torch.tensor([int(inside[0]), int(inside[-1]) + 1])
    return tensors


def differing(row: NDArray[np.int64], others: Sequence[NDArray[np.int64]]) -> tuple[int, int]:
    """First and last place of the syllable by which a row differs from the others, its vowel included.

    A tone's sign follows its syllable; what stands before it and is the same in all is at least a vowel.
    """
    ahead = min(_common(row, other) for other in others)
    behind = min(_common(row[::-1], other[::-1]) for other in others)
    return max(0, ahead - 1), max(ahead, len(row) - 1 - behind)


def _common(left: NDArray[np.int64], right: NDArray[np.int64]) -> int:
    shorter = min(len(left), len(right))
    unequal = np.flatnonzero(left[:shorter] != right[:shorter])
    return int(unequal[0]) if len(unequal) else shorter
