"""Rows of speech for the flow, all of one length: utterances of one speaker, one after the other.

That is what the flow meets in service, a prompt and then the target; and rows without padding need no masks, have
fixed shapes and waste nothing. The corpus lies on the device as codes and mels, and rows are index arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from light_tts.encode.features import prompt_mel
from light_tts.models.config import MelConfig
from recipes.mini.corpus import FRAME, TOKEN, Corpus
from recipes.mini.errors import RecipeError
from recipes.mini.settings import FlowSettings
from recipes.mini.train.utterances import Utterances, as_indices

LOOKAHEAD = 3  # tokens after a row that its last ones may see
FRAMES_PER_TOKEN = TOKEN // FRAME

_SAMPLES_AT_ONCE = 48_000 * 600  # of waves that become mels in one go


@dataclass(frozen=True, slots=True, eq=False)
class FlowBatch:
    """B rows of T tokens, on the training device.

    tokens: (B, T) int64; context: (B, 3) those that follow; final: (B,) bool, nothing follows
    speaker: (B, 192) of length 1, of the utterance that the row begins with
    mel: (B, 2 T, 80) float32; noise: the same shape, standard normal
    time: (B,) uniform in 0..1, before the schedule
    prompt_frames: (B,) int64, frames of `mel` that are given
    dropped: (B,) bool, everything that the estimator follows is withheld
    """

    tokens: Tensor
    context: Tensor
    final: Tensor
    speaker: Tensor
    mel: Tensor
    noise: Tensor
    time: Tensor
    prompt_frames: Tensor
    dropped: Tensor

    def tensors(self) -> list[Tensor]:
        return [getattr(self, field.name) for field in fields(self)]


class MelTape:
    """All utterances in one line: codes (n,) int64 and mels (2 n, 80) float16, on the device.

    start, num: (u,) int64 numpy, in tokens. Half precision rounds a log-mel by 0.004 at most.
    """

    def __init__(
        self, codes: Tensor, mel: Tensor, embedding: Tensor, start: NDArray[np.int64], num: NDArray[np.int64]
    ) -> None:
        self.codes, self.mel, self.embedding = codes, mel, embedding
        self.start, self.num = start, num

    @property
    def device(self) -> torch.device:
        return self.codes.device

    @classmethod
    def of(cls, corpus: Corpus, utterances: Utterances, config: MelConfig) -> MelTape:
        """Raises RecipeError if an utterance is not in the corpus, or has another length there."""
        device = corpus.device
        place = {job: index for index, job in enumerate(corpus.job.tolist())}
        missing = [job for job in utterances.job.tolist() if job not in place]
        if missing:
            raise RecipeError(
                f"{len(missing)} utterances with codes are not in {corpus.folder}, e.g. job {missing[0]}"
            )
        index = np.array([place[job] for job in utterances.job.tolist()], np.int64)
        wrong = np.flatnonzero(corpus.length[index] != utterances.num * TOKEN)
        if len(wrong):
            job, num = utterances.job[wrong[0]], utterances.num[wrong[0]]
            raise RecipeError(f"job {job} has {num} codes for {corpus.length[index[wrong[0]]]} samples")
        mel = torch.empty(
            len(utterances.codes) * FRAMES_PER_TOKEN, config.num_mels, dtype=torch.float16, device=device
        )
        for group in _of_one_length(utterances.num):
            first = as_indices(utterances.start[group] * FRAMES_PER_TOKEN, device)
            wav, _ = corpus.whole(index[group])
            made = prompt_mel(wav, config)
            rows = first[:, None] + torch.arange(made.shape[1], device=device)
            mel[rows] = made.half()
        codes, embedding = utterances.codes.to(device), utterances.embedding.to(device)
        return cls(codes, mel, embedding, utterances.start, utterances.num)

    def mels(self, utterance: int) -> Tensor:
        """(frames, 80) float32 of a whole utterance."""
        first = int(self.start[utterance]) * FRAMES_PER_TOKEN
        return self.mel[first : first + int(self.num[utterance]) * FRAMES_PER_TOKEN].float()

    def tokens(self, utterance: int) -> Tensor:
        first = int(self.start[utterance])
        return self.codes[first : first + int(self.num[utterance])]


def _of_one_length(num: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Groups of utterances that have the same number of tokens, none too large for memory."""
    order = np.argsort(num, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(num[order])) + 1)
    parts = []
    for group in groups:
        at_once = max(1, _SAMPLES_AT_ONCE // (int(num[group[0]]) * TOKEN))
        parts += np.split(group, range(at_once, len(group), at_once))
    return parts


@dataclass(frozen=True, slots=True)
class RowKind:
    """What must be the same in all rows of a batch, and in all batches that share a CUDA graph."""

    num_tokens: int
    streaming: bool
    guided: bool = False  # guidance is learnt, see `flow_model.objective`


class Rows:
    """Draws batches. Each speaker's utterances form a ring, in an order that is new in every epoch."""

    def __init__(
        self, settings: FlowSettings, tape: MelTape, speaker: NDArray[np.int64], chosen: NDArray[np.bool_]
    ) -> None:
        """speaker: (u,); chosen: (u,) the utterances to train on. Raises RecipeError if there are none."""
        self._settings, self._tape = settings, tape
        index = np.flatnonzero(chosen)
        if not len(index):
            raise RecipeError("there is no utterance to train the flow on")
        self._index = index
        self._speaker = speaker[index]
        # A new order after about as many rows as there are utterances.
        self._steps_per_epoch = max(1, len(index) * min(settings.row_tokens) // settings.batch_tokens)
        self._epoch = -1

    def kind(self, rng: np.random.Generator) -> RowKind:
        s = self._settings
        return RowKind(int(rng.choice(s.row_tokens)), bool(rng.random() < s.streaming))

    def draw(self, step: int, seed: int) -> tuple[RowKind, FlowBatch]:
        """The batch of a step: a function of the step and the seed alone."""
        epoch = step // self._steps_per_epoch
        if epoch != self._epoch:
            self._shuffle(epoch, seed)
        rng = np.random.default_rng((seed, 1, step))
        kind = self.kind(rng)
        num_rows = max(1, self._settings.batch_tokens // kind.num_tokens)
        entry = rng.integers(len(self._index), size=num_rows)
        final = rng.random(num_rows) < self._settings.final
        begin = np.where(final, self._first[entry + 1] - kind.num_tokens, self._first[entry])
        table = as_indices(
            np.stack([begin, self._ring_first[entry], self._ring_len[entry], final], axis=1),
            self._tape.device,
        )
        generator = torch.Generator(self._tape.device).manual_seed(int(rng.integers(2**62)))
        return kind, self._batch(table, kind, generator)

    def _shuffle(self, epoch: int, seed: int) -> None:
        """Lay the utterances out speaker by speaker, with the places where each one and its ring begin."""
        self._epoch = epoch
        rng = np.random.default_rng((seed, 0, epoch))
        order = rng.permutation(len(self._index))
        order = order[np.argsort(self._speaker[order], kind="stable")]
        utterance, speaker = self._index[order], self._speaker[order]
        self._first = np.concatenate([[0], np.cumsum(self._tape.num[utterance])])
        ring = np.searchsorted(speaker, speaker)
        ring_end = np.searchsorted(speaker, speaker, side="right")
        self._ring_first = self._first[ring]
        self._ring_len = self._first[ring_end] - self._ring_first
        device = self._tape.device
        self._entry_first = as_indices(self._first[:-1], device)
        self._entry_source = as_indices(self._tape.start[utterance] - self._first[:-1], device)
        self._entry_utterance = as_indices(utterance, device)

    def _batch(self, table: Tensor, kind: RowKind, generator: torch.Generator) -> FlowBatch:
        s, tape, device = self._settings, self._tape, table.device
        begin, ring_first, ring_len, final = table.unbind(1)
        steps = torch.arange(kind.num_tokens + LOOKAHEAD, device=device)
        place = ring_first[:, None] + (begin - ring_first)[:, None].add(steps) % ring_len[:, None]
        entry = torch.searchsorted(self._entry_first, place, right=True) - 1
        source = place + self._entry_source[entry]
        tokens = tape.codes[source]
        frames = (source[:, : kind.num_tokens, None] * 2 + torch.arange(2, device=device)).flatten(1)
        mel = tape.mel[frames].float()

        def uniform() -> Tensor:
            return torch.rand(len(table), generator=generator, device=device)

        # Stratified: every batch sees all times, which makes its loss less of a lottery.
        time = (torch.arange(len(table), device=device) + uniform()) / len(table)
        longest = s.prompt_max * mel.shape[1]
        prompt = (uniform() * longest).long() * (uniform() < s.prompted)
        return FlowBatch(
            tokens[:, : kind.num_tokens],
            tokens[:, kind.num_tokens :],
            final.bool(),
            tape.embedding[self._entry_utterance[entry[:, 0]]],
            mel,
            torch.randn(mel.shape, generator=generator, device=device),
            time,
            prompt,
            uniform() < s.cfg_dropout,
        )
