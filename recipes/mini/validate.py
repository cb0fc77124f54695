"""Looks at every index on the CPU before any of it reaches a GPU, where a single bad one ends every process."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from recipes.mini.errors import RecipeError
from recipes.mini.jobs_table import Jobs
from recipes.mini.prepare.kokoro import MAX_PHONEMES, NUM_PHONEMES
from recipes.mini.prepare.speakers import STYLE_DIM
from recipes.mini.settings import Settings
from recipes.mini.train.utterances import CODES_NAME, read_utterances

logger = logging.getLogger(__name__)


def validate(settings: Settings, work: Path) -> None:
    """Check the jobs, and the voices, the corpus and its codes as far as they are there. Raises RecipeError."""
    jobs = Jobs(work / "text")
    model = settings.model
    if jobs.symbols > model.text_vocab_size:
        raise RecipeError(
            f"{jobs.symbols} text symbols, the model has {model.text_vocab_size} (text_vocab_size)"
        )
    _check_teacher_ids(jobs)
    _check_voices(jobs, work / "text" / "voices.safetensors")
    shards = sorted((work / "corpus").glob("shard-*.safetensors"))
    num_utterances = sum(_check_shard(path, len(jobs)) for path in shards)
    if (work / CODES_NAME).exists():
        read_utterances(work, jobs, model.speech_token_size)
    logger.info("validated: %d jobs, %d utterances in %d shards", len(jobs), num_utterances, len(shards))


def _check_teacher_ids(jobs: Jobs) -> None:
    for job in range(len(jobs)):
        ids = jobs.teacher_ids(job)
        if not 0 < len(ids) <= MAX_PHONEMES or int(ids.max()) >= NUM_PHONEMES:
            raise RecipeError(
                f"job {job}: {len(ids)} phonemes up to {ids.max(initial=0)}, the teacher takes 1 to {MAX_PHONEMES} "
                f"below {NUM_PHONEMES}"
            )


def _check_voices(jobs: Jobs, path: Path) -> None:
    if not path.exists():
        return
    try:
        voices = load_file(path)["voices"]
    except (OSError, KeyError, SafetensorError) as error:
        raise RecipeError(f"{path} holds no voices: {error}") from error
    if voices.ndim != 3 or len(voices) != len(jobs.voices) or voices.shape[2] != STYLE_DIM:
        raise RecipeError(f"{path} has shape {voices.shape}, must be ({len(jobs.voices)}, rows, {STYLE_DIM})")
    if not np.isfinite(voices.astype(np.float32)).all():
        raise RecipeError(f"{path} holds numbers that are not finite")


def _check_shard(path: Path, num_jobs: int) -> int:
    """Returns its utterances."""
    try:
        shard = load_file(path)
        job, phone = shard["job"], shard["phone"]
    except (OSError, KeyError, SafetensorError) as error:
        raise RecipeError(f"{path} is no shard of the corpus: {error}") from error
    if len(job) and not 0 <= job.min() <= job.max() < num_jobs:
        raise RecipeError(f"{path}: jobs {job.min()} to {job.max()}, there are {num_jobs}")
    if len(phone) and phone.max() >= NUM_PHONEMES:
        raise RecipeError(f"{path}: phoneme {phone.max()}, the teacher knows {NUM_PHONEMES}")
    return len(job)
