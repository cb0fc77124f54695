"""train speaker: a small encoder that tells voices apart as GE2E does, from the features that serving gives it.

Three losses: a linear map of the embedding points where GE2E's embedding of the clean voice points; similarities
between the voices of a batch are GE2E's similarities, so that the embedding itself, not only its image, is a map of
voices; and an additive-margin softmax over the pseudo-speakers for voices that are not warped.
The encoder hears part of a crop through rooms, telephones and noise; its teacher hears all of it, clean. Voices are
warped far beyond the teacher's speakers, since real people are not mixtures of a few styles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from light_tts.encode.features import SPEECH_RATE_HZ, speaker_fbank
from recipes.mini.corpus import FRAME, TOKEN, Corpus, Jobs
from recipes.mini.encoders import ENCODER, SPEAKER, is_frozen, speaker_shape
from recipes.mini.features import at_16_khz, tiled
from recipes.mini.models import ge2e
from recipes.mini.models.speaker import EMBED_DIM, SpeakerNet
from recipes.mini.settings import SAMPLE_RATE, Settings, SpeakerSettings
from recipes.mini.train import augment
from recipes.mini.train.loop import (
    Parts,
    Plan,
    TimeBudget,
    adamw,
    autocast,
    fast_matmul,
    seed_stage,
    train_stage,
)
from recipes.mini.train.utterances import as_indices

_LOOK_EVERY = 200  # steps, for new shards of the corpus
_LENGTHS = 6  # of what the encoder hears: each is a recording of its own on the GPU


@dataclass(frozen=True, slots=True)
class VoiceBatch:
    """fbank: (B, T, 80); target: (B, 256) of unit length; speaker: (n,) int64, of the first n rows: natural voices"""

    fbank: Tensor
    target: Tensor
    speaker: Tensor


def train(settings: Settings, work: Path, checkpoints: Path, device: torch.device, budget_s: float) -> None:
    """Train until the plan or the budget ends; resumes. Returns at once if the encoders are frozen."""
    if is_frozen(work, SPEAKER):
        return
    budget = TimeBudget(budget_s)
    s = settings.speaker
    fast_matmul()
    seed_stage(settings.seed, SPEAKER)
    corpus = Corpus(work / "corpus", device, seed=settings.seed + 1)
    corpus.wait(settings.run.corpus_hours, settings.run.corpus_wait_s)
    teacher = ge2e.load_ge2e(work / ge2e.FILE_NAME, device)
    stage = SpeakerStage(s, corpus, Jobs(work / "text"), teacher, device)
    plan = Plan(
        max_steps=s.max_steps,
        max_seconds=settings.run.tokenizer_s,  # both encoders are wanted at the same time
        warmup_steps=s.warmup_steps,
        clip_norm=5.0,
        save_every_s=settings.run.checkpoint_every_s,
    )
    train_stage(stage, checkpoints / SPEAKER, plan, device, budget, s.cuda_graphs)


class TeachingHead(nn.Module):
    """What is needed to compare embeddings with the teacher's and with speakers. Training only."""

    def __init__(self, num_speakers: int) -> None:
        super().__init__()
        self.to_teacher = nn.Linear(EMBED_DIM, ge2e.EMBED_DIM)
        self.speakers = nn.Parameter(torch.randn(num_speakers, EMBED_DIM) * 0.1)


class SpeakerStage:
    """See `loop.Stage`."""

    def __init__(
        self, settings: SpeakerSettings, corpus: Corpus, jobs: Jobs, teacher: ge2e.GE2E, device: torch.device
    ) -> None:
        self._settings = settings
        self._corpus = corpus
        self._speaker_of_job = jobs.speaker  # checked against the number of speakers when it was read
        self._teacher = teacher
        self._device = device
        self._batches = 0
        self._encoder = SpeakerNet(speaker_shape(settings)).to(device)
        self._head = TeachingHead(len(jobs.speakers)).to(device)
        self._optimizer = adamw([self._encoder, self._head], settings.lr)

    def parts(self) -> Parts:
        return Parts(
            {ENCODER: self._encoder, "head": self._head},
            {"main": self._optimizer},
            {ENCODER: self._settings.ema_decay},
            {"corpus": self._corpus.rng},
        )

    def next_batch(self) -> VoiceBatch:
        self._batches += 1
        if self._batches % _LOOK_EVERY == 0:
            self._corpus.refresh()
        s, rng = self._settings, self._corpus.rng
        num_samples = round(s.crop_s * SAMPLE_RATE / TOKEN) * TOKEN
        source_len = math.ceil(num_samples * s.augment.speed[1] / FRAME) * FRAME
        index = rng.integers(0, len(self._corpus), s.batch_size)
        wav, _, _, lens = self._corpus.crops(index, source_len)
        wav, _, natural = augment.other_voices(tiled(wav, lens), num_samples, s.augment, rng, SAMPLE_RATE)
        clean = at_16_khz(wav)
        shortest = s.shortest_s / s.crop_s
        share = shortest + (1.0 - shortest) * rng.integers(_LENGTHS) / (_LENGTHS - 1)
        heard_len = int(clean.shape[1] * share)
        heard = augment.recorded(clean[:, :heard_len], s.augment, SPEECH_RATE_HZ)
        speaker = as_indices(self._speaker_of_job[self._corpus.job[index[:natural]]], self._device)
        return VoiceBatch(speaker_fbank(heard), self._teacher(clean), speaker)

    def loss(self, batch: VoiceBatch, progress: Tensor) -> dict[str, Tensor]:
        s = self._settings
        with autocast(self._device):
            embedding = self._encoder(batch.fbank)
        image = self._head.to_teacher(embedding)
        distil = 1.0 - F.cosine_similarity(image, batch.target).mean()
        relations = (embedding @ embedding.T - batch.target @ batch.target.T).square().mean()
        softmax, right = self._speaker_loss(embedding[: len(batch.speaker)], batch.speaker)
        total = s.weight_distil * distil + s.weight_relations * relations + s.weight_softmax * softmax
        return {
            "loss": total,
            "distil": distil,
            "relations": relations,
            "softmax": softmax,
            "accuracy": right,
        }

    def _speaker_loss(self, embedding: Tensor, speaker: Tensor) -> tuple[Tensor, Tensor]:
        """Additive-margin softmax, and the share of rows that find their speaker. Both (n, ...), n >= 1."""
        s = self._settings
        cosine = embedding @ F.normalize(self._head.speakers, dim=1).T
        margin = torch.zeros_like(cosine).scatter(1, speaker[:, None], s.softmax_margin)
        loss = F.cross_entropy(s.softmax_scale * (cosine - margin), speaker)
        return loss, (cosine.argmax(dim=1) == speaker).float().mean()
