"""The vocoder's training: first on spectra alone, then against discriminators.

What is exported is the running average of the generator, in the trainer's checkpoint under GENERATOR: `HiFT`'s own
names, with plain weights.
"""

from __future__ import annotations

import math
import wave
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from light_tts.encode.features import prompt_mel
from light_tts.models.config import HiFTConfig, MelConfig
from light_tts.models.vocoder.hift import HiFT
from light_tts.models.vocoder.source_noise import SourceNoise
from recipes.mini.corpus import FRAME, Corpus
from recipes.mini.losses import f0_errors, mel_distance, stft_distance
from recipes.mini.models.discriminators import Discriminators
from recipes.mini.settings import SAMPLE_RATE, Settings
from recipes.mini.train.loop import Ema, Parts, Plan, TimeBudget, Trainer, adamw, seed_stage
from recipes.mini.train.vocoder_data import FLOW_MELS, Batches, FlowMels
from recipes.mini.train.vocoder_step import (
    DISCRIMINATORS,
    GENERATOR,
    PITCH,
    VocoderStep,
    decoder_parts,
)
from recipes.mini.vocoder_settings import VocoderSettings

STAGE = "vocoder"

_BETAS = (0.8, 0.99)  # of GANs: short memories, since the game's target moves
_FIRST_LOG_MAGNITUDE = -4.0
_NUM_SAMPLES = 2  # held-out utterances that are written as WAV


def train(settings: Settings, work: Path, checkpoints: Path, device: torch.device, budget_s: float) -> None:
    """Train for at most budget_s; resumes if there is a checkpoint, and leaves one. Raises RecipeError."""
    budget = TimeBudget(budget_s)
    with budget.stopped_by_sigterm():
        corpus = Corpus(work / "corpus", device)
        corpus.wait(settings.run.corpus_hours, settings.run.corpus_wait_s)
        flow_mels = None
        if (work / FLOW_MELS).is_dir():
            flow_mels = FlowMels(work / FLOW_MELS, settings.model_config().mel.num_mels, device)
        train_on(settings, corpus, checkpoints / STAGE, budget, plan(settings), flow_mels)


def plan(settings: Settings) -> Plan:
    """The stage's length. Its learning rates are `learning_rates`; the plan's own factor is always 1."""
    s = settings.vocoder
    return Plan(
        max_steps=s.max_steps,
        max_seconds=s.max_seconds,
        warmup_steps=0,
        final_lr=1.0,
        clip_norm=s.clip_norm,
        save_every_s=settings.run.checkpoint_every_s,
    )


def train_on(
    settings: Settings,
    corpus: Corpus,
    folder: Path,
    budget: TimeBudget,
    plan: Plan,
    flow_mels: FlowMels | None = None,
) -> int:
    """Returns the steps done in all."""
    s, config, device = settings.vocoder, settings.model_config(), corpus.device
    rng = seed_stage(settings.seed, STAGE)
    generator = new_generator(config.hift).to(device)
    discriminators = Discriminators(s.period_channels, s.spectrum_channels).to(device)
    batches = Batches(s, corpus, config.hift, config.mel, int(rng.integers(2**62)), flow_mels)
    step = VocoderStep(generator, discriminators, s)
    parts = Parts(
        modules={GENERATOR: generator, DISCRIMINATORS: discriminators},
        optimizers={
            GENERATOR: adamw(decoder_parts(generator), s.lr_alone, _BETAS),
            PITCH: adamw([generator.f0_predictor], s.lr_pitch, _BETAS, weight_decay=0.0),
            DISCRIMINATORS: adamw([discriminators], s.lr_discriminators, _BETAS),
        },
        averaged={GENERATOR: s.ema_decay},
    )
    validation = Validation(config.hift, config.mel, batches, s.validation_utterances, folder)
    torch.backends.cudnn.benchmark = True  # shapes stay the same for thousands of steps
    with Trainer(folder, plan, parts, device, budget) as trainer:
        while trainer.goes_on():
            _set_rates(trainer, learning_rates(s, trainer.step, trainer.progress))
            adversarial = trainer.progress >= s.gan_from
            with torch.no_grad():
                batch = batches.draw(trainer.step, trainer.progress)
            losses = step(batch, adversarial)
            for name in (PITCH, GENERATOR, DISCRIMINATORS)[: 3 if adversarial else 2]:
                trainer.descend(name, losses[name])
            if (trainer.step + 1) % s.validate_every == 0:
                losses |= validation.measure(trainer.ema(GENERATOR))
            trainer.end_step(losses)
        return trainer.step


def new_generator(cfg: HiFTConfig) -> HiFT:
    """HiFT with random weights and a quiet voice: from magnitudes of 1 it takes twice as long to reach speech."""
    generator = HiFT(cfg)
    with torch.no_grad():
        assert generator.conv_post.bias is not None
        generator.conv_post.bias[: cfg.istft_n_fft // 2 + 1] += _FIRST_LOG_MAGNITUDE
    return generator


def learning_rates(s: VocoderSettings, step: int, progress: float) -> dict[str, float]:
    """By optimizer. The generator's falls to lr_gan before the game and to lr_final in it, each by half a cosine."""
    warmup = min(1.0, (step + 1) / s.warmup_steps)
    played = max(0.0, progress - s.gan_from) / max(1e-9, 1 - s.gan_from)
    generator = _fall(s.lr_gan, s.lr_final, played)
    if progress < s.gan_from:
        generator = _fall(s.lr_alone, s.lr_gan, progress / s.gan_from)
    return {
        GENERATOR: warmup * generator,
        PITCH: warmup * _fall(s.lr_pitch, s.lr_final, progress),
        DISCRIMINATORS: _fall(s.lr_discriminators, s.lr_final, played),
    }


class Validation:
    """Copy synthesis of held-out utterances by the averaged generator."""

    def __init__(self, hift: HiFTConfig, mel: MelConfig, batches: Batches, count: int, folder: Path) -> None:
        self._corpus, self._batches, self._count, self._folder = batches.corpus, batches, count, folder
        self._generator = HiFT(hift).to(self._corpus.device).eval()
        self._mel = mel

    @torch.no_grad()
    def measure(self, average: Ema) -> dict[str, Tensor]:
        """Averages over the utterances, by name; the first ones are written as WAV beside the checkpoints."""
        average.copy_to(self._generator)
        benchmark, torch.backends.cudnn.benchmark = (
            torch.backends.cudnn.benchmark,
            False,
        )  # every length is new
        rows = [self._utterance(place, int(i)) for place, i in enumerate(self._batches.held_out(self._count))]
        torch.backends.cudnn.benchmark = benchmark
        figures = {name: torch.tensor([row[name] for row in rows]).nanmean() for name in (rows or [{}])[0]}
        return {name: figure.to(self._corpus.device) for name, figure in figures.items()}

    def _utterance(self, place: int, number: int) -> dict[str, float]:
        index = np.array([number])
        real, lens = self._corpus.whole(index)
        true_f0, _ = self._corpus.tracks(index)
        mel = prompt_mel(real, self._mel).transpose(1, 2)
        fake = self._generator.synthesize(mel, lens.cpu() // FRAME, [SourceNoise.seeded(place)])
        if place < _NUM_SAMPLES:
            write_wav(self._folder / f"sample-{place}.wav", fake[0])
        threshold = self._generator.cfg.nsf_voiced_threshold
        rmse, wrong_voicing = f0_errors(self._generator.f0(mel), true_f0, threshold)
        return {
            "valid_mel": float(mel_distance(fake, real, SAMPLE_RATE)),
            "valid_stft": float(stft_distance(fake, real)),
            "valid_f0_rmse": rmse,
            "valid_voicing": wrong_voicing,
        }


def write_wav(path: Path, wav: Tensor) -> None:
    """(N,) float in -1..1 as 16-bit mono."""
    samples = (wav.clamp(-1, 1) * 32767).round().to("cpu", torch.int16).numpy()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.astype("<i2").tobytes())


def _fall(start: float, end: float, share: float) -> float:
    """From start to end by half a cosine."""
    return end + (start - end) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, share)))


def _set_rates(trainer: Trainer, rates: dict[str, float]) -> None:
    for name, optimizer in trainer.state.parts.optimizers.items():
        for group in optimizer.param_groups:
            group["lr"] = rates[name]
