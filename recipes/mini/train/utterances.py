"""The corpus as the flow and the language model see it: speech tokens, speaker embeddings, and who speaks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from recipes.mini.errors import RecipeError
from recipes.mini.jobs_table import Jobs
from recipes.mini.settings import SPEAKER_DIM

CODES_NAME = "codes.safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class Utterances:
    """WORK/codes.safetensors with the speakers of WORK/text.

    job, start, num, speaker: (u,) int64; the tokens of utterance i are codes[start[i] : start[i] + num[i]]
    codes: (n,) int64 on the CPU
    embedding: (u, 192) float32 on the CPU, of length 1
    """

    job: NDArray[np.int64]
    start: NDArray[np.int64]
    num: NDArray[np.int64]
    speaker: NDArray[np.int64]
    codes: Tensor
    embedding: Tensor

    def __len__(self) -> int:
        return len(self.job)

    def of_jobs(self, jobs: NDArray[np.int64]) -> Utterances:
        """Those whose job is among `jobs`; codes that nobody refers to stay."""
        kept = np.isin(self.job, jobs)
        return Utterances(
            self.job[kept], self.start[kept], self.num[kept], self.speaker[kept], self.codes,
            self.embedding[torch.from_numpy(kept)],
        )  # fmt: skip

    def held_out(self, share: float) -> NDArray[np.bool_]:
        """(u,) which utterances are for validation: decided by the job alone, so that it never changes.

        At least one is, and one is not. Raises RecipeError if there are not two.
        """
        if len(self) < 2:
            raise RecipeError(f"{len(self)} utterances cannot be split into training and validation")
        every = max(2, round(1 / share))
        chosen: NDArray[np.bool_] = self.job % every == every - 1
        if not chosen.any() or chosen.all():
            chosen = self.job == self.job.max()
        return chosen


def read_utterances(work: Path, jobs: Jobs, num_codes: int) -> Utterances:
    """Raises RecipeError if the file is missing or damaged, or holds a code or job that does not exist."""
    path = work / CODES_NAME
    try:
        arrays = load_file(path)
        job, num = (arrays[name].long().numpy() for name in ("job", "num"))
        codes, embedding = arrays["codes"].long(), arrays["embedding"].float()
    except FileNotFoundError as error:
        raise RecipeError(f"{path} is missing (extract makes it)") from error
    except (KeyError, OSError, SafetensorError) as error:
        raise RecipeError(f"{path} holds no codes: {error!r}") from error
    if len(num) != len(job) or embedding.shape != (len(job), SPEAKER_DIM) or int(num.sum()) != len(codes):
        raise RecipeError(f"{path}: {len(job)} jobs, {len(num)} lengths of {len(codes)} codes do not fit")
    if not len(job) or num.min() <= 0:
        raise RecipeError(f"{path} holds no utterance, or an empty one")
    # An index beyond a table would take the GPU down with all that runs on it.
    if int(codes.min()) < 0 or int(codes.max()) >= num_codes:
        raise RecipeError(
            f"{path}: codes {int(codes.min())} to {int(codes.max())}, must be below {num_codes}"
        )
    if job.min() < 0 or job.max() >= len(jobs) or len(np.unique(job)) != len(job):
        raise RecipeError(f"{path}: its jobs are not among the {len(jobs)} of the table, or come twice")
    if not bool(embedding.isfinite().all()):
        raise RecipeError(f"{path}: a speaker embedding is not finite")
    speaker = jobs.speaker[job].astype(np.int64)
    return Utterances(job, np.cumsum(num) - num, num, speaker, codes, F.normalize(embedding, dim=1))


def as_indices(values: NDArray[np.integer], device: torch.device) -> Tensor:
    """A table to the device without waiting for it."""
    tensor = torch.from_numpy(np.ascontiguousarray(values, np.int64))
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
