"""A made-up corpus: harmonic "speech" with exact pitch and phones, so that every stage can run without the teacher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from recipes.mini.corpus import FRAME, TOKEN, Job, Speaker, Utterance, write_jobs, write_shard
from recipes.mini.settings import SAMPLE_RATE

_SYLLABLES = "z_ma1 z_ma2 z_ma3 z_ma4 z_ma5 z_shi4 z_ni3 z_hao3 e_HH_AH0 e_L_OW1 e_W_ER1 c_L_D e_S_T_R_EH1 c_NG".split()
_VOCABULARY = [*"<|endoftext|> <unk> , . ? !".split(), *(f"l_{chr(97 + k)}" for k in range(26)), *_SYLLABLES]
_FIRST_SYMBOL = 6
_NUM_PHONES = 12  # phone p of the teacher is said where symbol _FIRST_SYMBOL + p is written
_NUM_SPEAKERS = 4
_NUM_VOICES = 3
_NUM_STYLE_ROWS = 4
_UTTERANCES_PER_SHARD = 8


def write_tiny_corpus(folder: Path, seed: int, num_utterances: int) -> None:
    """Fill a WORK folder: text/ (jobs and voices) and corpus/ (shards of 1 to 3 s utterances). Deterministic.

    Each phone has formants of its own and each speaker a pitch and a vocal tract, so that a model has
    something to learn: loss falls, and speakers can be told apart.
    """
    rng = np.random.default_rng(seed)
    speakers = [
        Speaker(
            ((k % _NUM_VOICES, 1.0),), (((0, 1.0),), ((1, 0.5), (2, 0.5))), star="tiny" if not k else None
        )
        for k in range(_NUM_SPEAKERS)
    ]
    jobs = [_job(rng, k) for k in range(num_utterances)]
    voices = [f"voice{k}" for k in range(_NUM_VOICES)]
    write_jobs(folder / "text", jobs, speakers, voices, _VOCABULARY, {"seed": seed})
    styles = torch.from_numpy(rng.standard_normal((_NUM_VOICES, _NUM_STYLE_ROWS, 256))).half()
    save_file({"voices": styles}, folder / "text" / "voices.safetensors")
    utterances = [_speak(rng, k, job) for k, job in enumerate(jobs)]
    for first in range(0, num_utterances, _UTTERANCES_PER_SHARD):
        name = f"shard-000-{first // _UTTERANCES_PER_SHARD:03d}.safetensors"
        write_shard(folder / "corpus" / name, utterances[first : first + _UTTERANCES_PER_SHARD])


def _job(rng: np.random.Generator, number: int) -> Job:
    phones = rng.integers(1, 1 + _NUM_PHONES, rng.integers(8, 20)).tolist()
    ids = [_FIRST_SYMBOL + phone for phone in phones]
    spelled = [_FIRST_SYMBOL + _NUM_PHONES, *ids]
    language = int(rng.integers(2))
    variants = (ids, ids, ids) if language else (ids, ids, spelled)
    return Job(phones, variants, language, number % _NUM_SPEAKERS, 1.0)


def _speak(rng: np.random.Generator, number: int, job: Job) -> Utterance:
    """Every phone lasts 4 to 8 frames; every fourth is unvoiced."""
    durations = rng.integers(4, 9, len(job.teacher_ids))
    phone = np.repeat(np.array(job.teacher_ids), durations)
    phone = np.pad(phone, (2, 2 + len(phone) % 2))  # silence at either end, whole speech tokens
    frames = np.arange(len(phone))
    pitch = 110.0 * 1.3 ** (job.speaker % _NUM_SPEAKERS)
    f0 = pitch * (1 + 0.15 * np.sin(frames / 9 + rng.uniform(0, 6))) * ((phone > 0) & (phone % 4 > 0))
    wav = _harmonics(rng, f0, phone, 1 + 0.05 * job.speaker)
    assert len(wav) % TOKEN == 0
    return Utterance(number, wav, f0.astype(np.float16), phone.astype(np.uint8))


def _harmonics(
    rng: np.random.Generator, f0: NDArray[np.float64], phone: NDArray[np.int64], tract: float
) -> NDArray[np.int16]:
    """Harmonics (or noise) under two formants per phone; (frames,) tracks to (frames * FRAME,) samples."""
    pitch = np.repeat(f0, FRAME)
    phase = np.cumsum(pitch) * (2 * np.pi / SAMPLE_RATE)
    formants = np.stack([250 + 60 * phone, 900 + 150 * ((phone * 5) % 13)], 1) * tract  # (frames, 2) Hz
    wav = np.zeros(len(pitch))
    for harmonic in range(1, 16):
        frequency = harmonic * f0
        peaks = np.exp(-(((frequency[:, None] - formants) / 250) ** 2)).sum(1) + 0.02
        wav += np.sin(harmonic * phase) * np.repeat(
            peaks * (f0 > 0) * (frequency < 0.45 * SAMPLE_RATE), FRAME
        )
    hiss = np.repeat((f0 == 0) & (phone > 0), FRAME) * rng.standard_normal(len(pitch))
    wav = wav / (np.abs(wav).max() + 1e-9) * 0.6 + 0.05 * hiss + 1e-4 * rng.standard_normal(len(pitch))
    return (wav.clip(-1, 1) * 32767).astype(np.int16)
