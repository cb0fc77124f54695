"""The language model's training: text symbols and a prompt's speech to speech tokens.

What is exported is the running average that was best in validation, CHECKPOINTS/lm/best, see `released_weights`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recipes.mini.errors import RecipeError
from recipes.mini.jobs_table import Jobs
from recipes.mini.settings import LMSettings, Settings
from recipes.mini.train.checkpoint import Checkpoint, compact, load_latest, save_checkpoint
from recipes.mini.train.lm_data import Curriculum, TextTable, noisy
from recipes.mini.train.lm_model import TrainableLM, next_token_loss
from recipes.mini.train.loop import Parts, Plan, TimeBudget, Trainer, adamw, autocast, fast_matmul, seed_stage
from recipes.mini.train.packing import Examples, Packer, Packs, Placement, place
from recipes.mini.train.recorded import Gradients, Losses, Objective
from recipes.mini.train.train_state import averaged_weights
from recipes.mini.train.utterances import Utterances, read_utterances

STAGE = "lm"
BEST = "best"  # folder beside the stage's checkpoints

_FULL = 0.98  # of the rows of an epoch are surely there in every other

logger = logging.getLogger(__name__)


def train(settings: Settings, work: Path, checkpoints: Path, device: torch.device, budget_s: float) -> None:
    """Train for at most budget_s; resumes if there is a checkpoint, and leaves one. Raises RecipeError."""
    budget = TimeBudget(budget_s)
    fast_matmul()
    jobs = Jobs(work / "text")
    utterances = read_utterances(work, jobs, settings.model.speech_token_size)
    train_on(settings, jobs, utterances, checkpoints / STAGE, device, budget, plan(settings))


def plan(settings: Settings) -> Plan:
    """The stage's length and learning rate."""
    s = settings.lm
    return Plan(
        max_steps=s.max_steps,
        max_seconds=s.max_seconds,
        warmup_steps=s.warmup_steps,
        clip_norm=s.clip_norm,
        save_every_s=settings.run.checkpoint_every_s,
    )


def train_on(
    settings: Settings,
    jobs: Jobs,
    utterances: Utterances,
    folder: Path,
    device: torch.device,
    budget: TimeBudget,
    plan: Plan,
) -> int:
    """Returns the steps done in all."""
    s = settings.lm
    seed = int(seed_stage(settings.seed, STAGE).integers(2**62))
    model = new_model(settings, jobs.vocabulary).to(device)
    text = TextTable.read(jobs, utterances)
    packer = Packer(model.cfg, torch.from_numpy(text.ids).to(device), utterances.codes.to(device))
    held_out = utterances.held_out(s.validation)
    mix_ratio = model.cfg.mix_ratio
    batches = Batches(s, Curriculum(s, utterances, text, ~held_out, mix_ratio), packer, seed)
    validation = Validation(
        settings, jobs, Curriculum(s, utterances, text, held_out, mix_ratio), packer, folder
    )
    gradients = Gradients(objective(model, s), list(model.parameters()), s.cuda_graphs)
    parts = Parts(
        modules={STAGE: model},
        optimizers={"main": adamw([model], s.lr, weight_decay=s.weight_decay)},
        averaged={STAGE: s.ema_decay},
    )
    with Trainer(folder, plan, parts, device, budget) as trainer:
        while trainer.goes_on():
            with torch.no_grad():
                packs = batches.draw(trainer.step)
            losses = gradients(None, [packs.ids, packs.targets, packs.segments, packs.positions])
            trainer.descend("main", losses["loss"])
            if (trainer.step + 1) % s.validate_every == 0:
                losses |= validation.measure(trainer)
            trainer.end_step(losses)
        return trainer.step


def new_model(settings: Settings, vocabulary: Sequence[str]) -> TrainableLM:
    """Raises RecipeError if the model has fewer rows than there are symbols."""
    cfg = settings.model_config().llm
    if len(vocabulary) > cfg.qwen.vocab_size:
        raise RecipeError(f"{len(vocabulary)} text symbols, model.text_vocab_size is {cfg.qwen.vocab_size}")
    return TrainableLM(cfg, vocabulary, settings.lm.dropout)


def released_weights(settings: Settings, vocabulary: Sequence[str], checkpoints: Path) -> dict[str, Tensor]:
    """The best model so far, by the names of the released checkpoint; float32 on the CPU.

    Raises RecipeError if nothing was trained yet.
    """
    folder = checkpoints / STAGE
    checkpoint = load_latest(folder / BEST) or load_latest(folder)
    if checkpoint is None:
        raise RecipeError(f"{folder} holds no checkpoint of the language model (train lm makes it)")
    model = new_model(settings, vocabulary)
    try:
        model.load_state_dict(averaged_weights(checkpoint, STAGE))
    except RuntimeError as error:
        raise RecipeError(f"{folder}: the checkpoint is of other settings: {error}") from error
    return model.released()


class Batches:
    """Batches by step number: a resumed run reads what an unbroken one would have."""

    def __init__(self, settings: LMSettings, curriculum: Curriculum, packer: Packer, seed: int) -> None:
        if not len(curriculum):
            raise RecipeError("there is no utterance to train the language model on")
        self._settings, self._curriculum, self._packer, self._seed = settings, curriculum, packer, seed
        self._epoch = -1
        self._examples, self._placement = self._begin(0)
        self.steps_per_epoch = max(1, int(_FULL * self._placement.num_rows) // settings.rows)

    def draw(self, step: int) -> Packs:
        """Rows of the step's epoch, in which each utterance is the target of one sequence."""
        s = self._settings
        epoch, number = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._examples, self._placement = self._begin(epoch)
        wanted = (number * s.rows + np.arange(s.rows)) % self._placement.num_rows
        packs = self._packer.pack(self._examples, self._placement.rows(wanted), s.row_tokens)
        cfg = self._packer.cfg
        ids = noisy(packs.ids, cfg.qwen.vocab_size, cfg.speech_token_size, s.history_noise)
        return Packs(ids, packs.targets, packs.segments, packs.positions)

    def _begin(self, epoch: int) -> tuple[Examples, Placement]:
        self._epoch = epoch
        rng = np.random.default_rng((self._seed, epoch))
        examples = self._curriculum.draw(rng)
        placement = place(examples.lens, self._settings.row_tokens, rng)
        if not placement.num_rows:
            raise RecipeError(f"no utterance fits into row_tokens {self._settings.row_tokens}")
        return examples, placement


class Validation:
    """Teacher-forced figures of held-out utterances, with text known and in blocks; keeps the best average."""

    def __init__(
        self, settings: Settings, jobs: Jobs, curriculum: Curriculum, packer: Packer, folder: Path
    ) -> None:
        self._settings, self._packer, self._folder = settings.lm, packer, folder / BEST
        self._model = new_model(settings, jobs.vocabulary).to(packer.device).eval()
        whole = curriculum.fixed(paired=True, interleaved=False)
        blocks = curriculum.fixed(paired=False, interleaved=True)
        self._sets = {
            name: self._rows(examples)
            for name, examples in (("valid", whole), ("valid_blocks", blocks))
            if len(examples)
        }
        best = load_latest(self._folder)
        self._best = math.inf if best is None else float(str(best.facts["loss"]))

    @torch.no_grad()
    def measure(self, trainer: Trainer) -> dict[str, Tensor]:
        """Mean loss and accuracy by token; saves the averaged weights if their loss is the lowest so far."""
        if not self._sets:
            return {}
        trainer.ema(STAGE).copy_to(self._model)
        sums = {name: self._sums(batches) for name, batches in self._sets.items()}
        figures = {f"{name}_loss": total[0] / total[2] for name, total in sums.items()}
        figures |= {f"{name}_accuracy": total[1] / total[2] for name, total in sums.items()}
        loss = float(torch.stack([figures[f"{name}_loss"] for name in self._sets]).mean())
        if loss < self._best:
            self._best = loss
            self._save(trainer, loss)
        return figures

    def _rows(self, examples: Examples) -> list[Packs]:
        rows, row_tokens = self._settings.rows, self._settings.row_tokens
        placement = place(examples.lens, row_tokens, np.random.default_rng(0))
        return [
            self._packer.pack(examples, placement.rows(wanted), row_tokens)
            for wanted in np.split(np.arange(placement.num_rows), range(rows, placement.num_rows, rows))
        ]

    def _sums(self, batches: list[Packs]) -> Tensor:
        """(3,) over all tokens: loss, right ones, and their number."""
        totals = []
        for packs in batches:
            with autocast(packs.ids.device):
                logits = self._model.logits(self._model(packs))
            count = (packs.targets >= 0).sum()
            loss, accuracy = next_token_loss(logits.float(), packs.targets)
            totals.append(torch.stack([loss * count, accuracy * count, count.float()]))
        return torch.stack(totals).sum(dim=0)

    def _save(self, trainer: Trainer, loss: float) -> None:
        weights = {f"ema.{STAGE}.{name}": value for name, value in trainer.ema(STAGE).weights.items()}
        checkpoint = Checkpoint(trainer.step, compact(weights), {"loss": loss})
        save_checkpoint(self._folder, checkpoint)
        logger.info("%s: best so far at step %d, validation loss %.4f", STAGE, trainer.step, loss)


def objective(model: TrainableLM, settings: LMSettings) -> Objective:
    """Mean cross-entropy of a batch's speech, fill and eos tokens."""

    def losses(_kind: Hashable, inputs: Sequence[Tensor]) -> Losses:
        packs = Packs(*inputs)
        with autocast(packs.ids.device):
            logits = model.logits(model(packs))
        loss, accuracy = next_token_loss(logits.float(), packs.targets, settings.label_smoothing)
        return {"loss": loss, "accuracy": accuracy}

    return losses
