"""The flow's training: speech tokens, a speaker and a prompt's mel to the mel of speech.

What is exported is the running average, see `released_weights`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from light_tts.models.flow.flow_state import FlowInput, FlowPrompt
from light_tts.models.flow.token_to_mel import Flow
from light_tts.models.layers.ragged import Frames
from recipes.mini.corpus import Corpus
from recipes.mini.errors import RecipeError
from recipes.mini.jobs_table import Jobs
from recipes.mini.settings import FlowSettings, Settings
from recipes.mini.train.checkpoint import load_latest
from recipes.mini.train.flow_data import FRAMES_PER_TOKEN, LOOKAHEAD, FlowBatch, MelTape, Rows
from recipes.mini.train.flow_model import Question, conditions, new_flow, objective, velocity
from recipes.mini.train.loop import Parts, Plan, TimeBudget, Trainer, adamw, autocast, fast_matmul, seed_stage
from recipes.mini.train.recorded import Gradients
from recipes.mini.train.train_state import averaged_weights
from recipes.mini.train.utterances import Utterances, read_utterances

STAGE = "flow"

_MEAN_OF = 2_000_000  # mel values per bin that the mean is taken of, at most
_NUM_SAMPLES = 8  # held-out utterances that the solver is run for
_VALIDATION_SEED = 0
_PROMPTED = 0.3  # of every second validation row


def train(settings: Settings, work: Path, checkpoints: Path, device: torch.device, budget_s: float) -> None:
    """Train for at most budget_s; resumes if there is a checkpoint, and leaves one. Raises RecipeError."""
    budget = TimeBudget(budget_s)
    fast_matmul()
    tape, utterances = read_tape(settings, work, device)
    train_on(settings, tape, utterances, checkpoints / STAGE, budget, plan(settings))


def read_tape(settings: Settings, work: Path, device: torch.device) -> tuple[MelTape, Utterances]:
    """The corpus with its codes; the waves are forgotten when their mels are made. Raises RecipeError."""
    jobs = Jobs(work / "text")
    utterances = read_utterances(work, jobs, settings.model.speech_token_size)
    corpus = Corpus(work / "corpus", device)
    corpus.refresh()
    utterances = utterances.of_jobs(corpus.job)  # those of earlier runs have codes and no speech any more
    return MelTape.of(corpus, utterances, settings.model_config().mel), utterances


def plan(settings: Settings) -> Plan:
    """The stage's length and learning rate."""
    s = settings.flow
    return Plan(
        max_steps=s.max_steps,
        max_seconds=s.max_seconds,
        warmup_steps=s.warmup_steps,
        clip_norm=s.clip_norm,
        save_every_s=settings.run.checkpoint_every_s,
    )


def train_on(
    settings: Settings, tape: MelTape, utterances: Utterances, folder: Path, budget: TimeBudget, plan: Plan
) -> int:
    """Returns the steps done in all."""
    s, device = settings.flow, tape.device
    seed = int(seed_stage(settings.seed, STAGE).integers(2**62))
    flow = new_flow(settings.model_config().flow, tape.mel[:_MEAN_OF].float().mean(dim=0).cpu()).to(device)
    held_out = utterances.held_out(s.validation)
    rows = Rows(s, tape, utterances.speaker, ~held_out)
    validation = Validation(settings, tape, utterances.speaker, held_out)
    gradients = Gradients(objective(flow, s), list(flow.parameters()), s.cuda_graphs)
    parts = Parts(
        modules={STAGE: flow},
        optimizers={"main": adamw([flow], s.lr, weight_decay=s.weight_decay)},
        averaged={STAGE: s.ema_decay},
    )
    # The exported model is solved without guidance: its weights must have it.
    learns_guidance = flow.cfg.inference_cfg_rate == 0.0
    with Trainer(folder, plan, parts, device, budget) as trainer:
        while trainer.goes_on():
            with torch.no_grad():
                kind, batch = rows.draw(trainer.step, seed)
                kind = replace(kind, guided=learns_guidance and trainer.progress >= s.guided_from)
            losses = gradients(kind, batch.tensors())
            trainer.descend("main", losses["loss"])
            if (trainer.step + 1) % s.validate_every == 0:
                losses |= validation.measure(trainer)
            trainer.end_step(losses)
        return trainer.step


def released_weights(settings: Settings, checkpoints: Path) -> dict[str, Tensor]:
    """The averaged flow, by the names of the released checkpoint; float32 on the CPU.

    Raises RecipeError if nothing was trained yet, or with other settings.
    """
    checkpoint = load_latest(checkpoints / STAGE)
    if checkpoint is None:
        raise RecipeError(f"{checkpoints / STAGE} holds no checkpoint of the flow (train flow makes it)")
    flow = Flow(settings.model_config().flow)
    try:
        flow.load_state_dict(averaged_weights(checkpoint, STAGE))
    except RuntimeError as error:
        raise RecipeError(f"{checkpoints / STAGE}: the checkpoint is of other settings: {error}") from error
    return flow.state_dict()


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """A held-out utterance and what it is spoken after."""

    given: FlowInput
    mel: Tensor


class Validation:
    """Figures of held-out utterances, always with the same noise, times and prompts."""

    def __init__(
        self, settings: Settings, tape: MelTape, speaker: NDArray[np.int64], held_out: NDArray[np.bool_]
    ) -> None:
        self._settings: FlowSettings = settings.flow
        self._flow = Flow(settings.model_config().flow).to(tape.device).eval().requires_grad_(False)
        index = np.flatnonzero(held_out)[: self._settings.validation_utterances]
        self._lens = torch.from_numpy(tape.num[index])
        self._batch = _padded(tape, index)
        self._samples = [_sample(tape, int(one), speaker) for one in index[:_NUM_SAMPLES]]

    @torch.no_grad()
    def measure(self, trainer: Trainer) -> dict[str, Tensor]:
        """Loss with full and with streaming masks; distance of solved mels, in natural logarithms."""
        trainer.ema(STAGE).copy_to(self._flow)
        return {
            "valid_loss": self._loss(chunk=0),
            "valid_loss_streaming": self._loss(self._flow.chunk_size),
            "valid_mel": self._mel_distance(streaming=False),
            "valid_mel_streaming": self._mel_distance(streaming=True),
        }

    def _loss(self, chunk: int) -> Tensor:
        batch = self._batch
        question = Question.of(batch, self._settings.sigma_min)
        frames = Frames.whole(self._lens, batch.tokens.shape[1], chunk)
        with autocast(batch.mel.device):
            given = conditions(self._flow, batch, frames)
            answer = velocity(self._flow, question, frames, given, ~batch.dropped)
        error = answer - question.wanted
        valid = frames.scaled(FRAMES_PER_TOKEN).valid(error.device)
        sizes = error.square() if self._settings.squared else error.abs()
        return sizes[valid].mean()

    def _mel_distance(self, streaming: bool) -> Tensor:
        mels = self._flow([sample.given for sample in self._samples], streaming)
        pairs = zip(mels, self._samples, strict=True)
        return torch.stack([(mel - sample.mel.T).abs().mean() for mel, sample in pairs]).mean()


def _padded(tape: MelTape, index: NDArray[np.int64]) -> FlowBatch:
    """Whole utterances, right-padded; every second one begins with a prompt."""
    longest, device = int(tape.num[index].max()), tape.device
    num_frames, bins = longest * FRAMES_PER_TOKEN, tape.mel.shape[1]
    tokens = torch.zeros(len(index), longest, dtype=torch.int64, device=device)
    mel = torch.zeros(len(index), num_frames, bins, device=device)
    for row, one in enumerate(index):
        tokens[row, : tape.num[one]] = tape.tokens(one)
        mel[row, : tape.num[one] * FRAMES_PER_TOKEN] = tape.mels(one)
    generator = torch.Generator().manual_seed(_VALIDATION_SEED)
    noise = torch.randn(mel.shape, generator=generator)
    prompt = torch.from_numpy((tape.num[index] * FRAMES_PER_TOKEN * _PROMPTED).astype(np.int64))
    return FlowBatch(
        tokens,
        torch.zeros(len(index), LOOKAHEAD, dtype=torch.int64, device=device),
        torch.ones(len(index), dtype=torch.bool, device=device),
        tape.embedding[torch.from_numpy(index).to(device)],
        mel,
        noise.to(device),
        ((torch.arange(len(index)) * 0.618) % 1).to(device),  # spread evenly whatever the number of rows
        (prompt * (torch.arange(len(index)) % 2)).to(device),
        torch.zeros(len(index), dtype=torch.bool, device=device),
    )


def _sample(tape: MelTape, utterance: int, speaker: NDArray[np.int64]) -> _Sample:
    prompt = prompt_for(tape, utterance, speaker)
    return _Sample(FlowInput(tape.tokens(utterance).cpu(), prompt), tape.mels(utterance))


def prompt_for(tape: MelTape, utterance: int, speaker: NDArray[np.int64]) -> FlowPrompt:
    """The next utterance of the speaker as the reference recording; without one only the own embedding."""
    others = np.flatnonzero(speaker == speaker[utterance])
    other = int(others[(np.searchsorted(others, utterance) + 1) % len(others)])
    embedding = tape.embedding[other].cpu()
    if other == utterance:
        return FlowPrompt.without_recording(embedding, tape.mel.shape[1])
    return FlowPrompt(tape.tokens(other).cpu(), tape.mels(other).cpu(), embedding)
