"""Codes for a tiny corpus, as `extract` would make them: a function of the phones, so they can be learnt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from recipes.mini.corpus import Corpus
from recipes.mini.settings import SPEAKER_DIM
from recipes.mini.testing import write_tiny_corpus
from recipes.mini.train.utterances import CODES_NAME


def write_tiny_work(folder: Path, num_utterances: int, seed: int = 0, num_codes: int = 729) -> None:
    """A WORK folder with text, corpus and codes.

    The code of 40 ms is told by its two phones and whether it is the first, a later or a late one of its
    phone, in the manner of a good tokenizer; it hardly ever comes twice in a row.
    """
    write_tiny_corpus(folder, seed, num_utterances)
    corpus = Corpus(folder / "corpus", torch.device("cpu"))
    corpus.refresh()
    codes, nums = [], []
    for index in range(len(corpus)):
        _, phone = corpus.tracks(np.array([index]))
        pairs = phone[0].view(-1, 2)
        changed = torch.cat([torch.ones(1, dtype=torch.bool), (pairs[1:] != pairs[:-1]).any(1)])
        place = torch.arange(len(pairs))
        since = place - torch.where(changed, place, 0).cummax(0).values
        codes.append((pairs[:, 0] * 41 + pairs[:, 1] * 13 + since.clamp(max=4)) % num_codes)
        nums.append(len(pairs))
    speaker = torch.arange(len(corpus)) % 4
    rng = torch.Generator().manual_seed(seed)
    voices = torch.randn(4, SPEAKER_DIM, generator=rng)
    embedding = voices[speaker] + 0.2 * torch.randn(len(corpus), SPEAKER_DIM, generator=rng)
    save_file(
        {
            "job": torch.from_numpy(corpus.job).int(),
            "num": torch.tensor(nums, dtype=torch.int32),
            "codes": torch.cat(codes).to(torch.uint16),
            "embedding": F.normalize(embedding, dim=1).half(),
        },
        folder / CODES_NAME,
    )
