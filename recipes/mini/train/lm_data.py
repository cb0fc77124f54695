"""Which sequences the language model reads in an epoch: every utterance once, half of them after a prompt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from recipes.mini.jobs_table import VARIANTS, Jobs
from recipes.mini.settings import LMSettings
from recipes.mini.train.packing import Examples
from recipes.mini.train.utterances import Utterances

_PIECES = 2  # of a sequence: prompt, target


@dataclass(frozen=True, slots=True, eq=False)
class TextTable:
    """Text ids of all utterances in one array: variant v of utterance i at start[v, i], len[v, i] long.

    ids: (n,) int64; start, len: (VARIANTS, u) int64
    """

    ids: NDArray[np.int64]
    start: NDArray[np.int64]
    len: NDArray[np.int64]

    @classmethod
    def read(cls, jobs: Jobs, utterances: Utterances) -> TextTable:
        rows = [jobs.ids(int(job), variant) for variant in range(VARIANTS) for job in utterances.job]
        lens = np.array([len(row) for row in rows], np.int64)
        shape = (VARIANTS, len(utterances))
        starts = np.cumsum(lens) - lens
        return cls(np.concatenate(rows), starts.reshape(shape), lens.reshape(shape))


class Curriculum:
    """Draws the sequences of an epoch. Prompts are other utterances of the same speaker."""

    def __init__(
        self,
        settings: LMSettings,
        utterances: Utterances,
        text: TextTable,
        chosen: NDArray[np.bool_],
        mix_ratio: tuple[int, int],
    ) -> None:
        """chosen: (u,) the utterances that are read, as targets and as prompts"""
        self._settings = settings
        self._utterances = utterances
        self._text = text
        self._mix_ratio = mix_ratio
        # Utterances without text have nothing to say: the table of jobs holds none, but costs nothing to check.
        index = np.flatnonzero(chosen & (text.len[0] > 0))
        index = index[np.argsort(utterances.speaker[index], kind="stable")]
        self._targets = index  # by speaker
        speaker = utterances.speaker[index]
        self._first = np.searchsorted(speaker, speaker)  # of the speaker's, in the order of _targets
        self._count = np.searchsorted(speaker, speaker, side="right") - self._first

    def __len__(self) -> int:
        return len(self._targets)

    def draw(self, rng: np.random.Generator) -> Examples:
        """Each utterance is the target of one sequence."""
        s, count = self._settings, len(self)
        pairs = np.stack([self._partners(rng), self._targets], axis=1)  # (E, 2) prompt, target
        variants = rng.choice(VARIANTS, (count, _PIECES), p=s.variants)
        paired = (rng.random(count) < s.paired) & (self._count > 1)
        examples = self._examples(pairs, variants, paired)
        too_long = examples.lens > s.row_tokens
        examples = self._examples(pairs, variants, paired & ~too_long)
        return self._interleave(examples, rng.random(count) < s.bistream)

    def fixed(self, *, paired: bool, interleaved: bool) -> Examples:
        """Every utterance once, always the same way: for validation. Those that cannot are left out."""
        rng = np.random.default_rng(0)
        pairs = np.stack([self._partners(rng), self._targets], axis=1)
        variants = np.zeros((len(self), _PIECES), np.int64)
        with_prompt = np.full(len(self), paired) & (self._count > 1)
        examples = self._examples(pairs, variants, with_prompt)
        examples = self._interleave(examples, np.full(len(self), interleaved))
        fits = examples.lens <= self._settings.row_tokens
        return examples.take(np.flatnonzero(fits & (examples.interleaved == interleaved)))

    def _partners(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """(E,) another utterance of each target's speaker; the target itself where there is no other."""
        own = np.arange(len(self)) - self._first
        step = rng.integers(1, np.maximum(self._count, 2))
        partners: NDArray[np.int64] = self._targets[self._first + (own + step) % self._count]
        return partners

    def _examples(
        self, pairs: NDArray[np.int64], variants: NDArray[np.int64], paired: NDArray[np.bool_]
    ) -> Examples:
        heard = np.stack([paired, np.ones_like(paired)], axis=1)
        return Examples(
            self._text.start[variants, pairs],
            self._text.len[variants, pairs] * heard,
            self._utterances.start[pairs],
            self._utterances.num[pairs] * heard,
            np.zeros(len(pairs), np.bool_),
        )

    def _interleave(self, examples: Examples, wanted: NDArray[np.bool_]) -> Examples:
        """Blocks are possible where speech does not end before the text: inference would wait for both."""
        num_text, num_speech = self._mix_ratio
        text, speech = examples.text_len.sum(axis=1), examples.speech_len.sum(axis=1)
        possible = (speech * num_text > text * num_speech) & (text >= num_text)
        return Examples(
            examples.text_start,
            examples.text_len,
            examples.speech_start,
            examples.speech_len,
            wanted & possible,
        )


def noisy(ids: torch.Tensor, first_speech: int, num_speech: int, share: float) -> torch.Tensor:
    """Replace a share of the speech tokens in `ids` by random ones, as sampling would now and then.

    ids: rows of the joint embedding table, of which speech has those from first_speech on
    """
    random = torch.randint_like(ids, first_speech, first_speech + num_speech)
    is_speech = (ids >= first_speech) & (ids < first_speech + num_speech)
    hit = torch.rand(ids.shape, device=ids.device) < share
    return torch.where(is_speech & hit, random, ids)
