"""The teacher's speech, resident on the training device, with its exact pitch and phones."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from recipes.mini.errors import RecipeError
from recipes.mini.jobs_table import LANGUAGES, Job, Jobs, Speaker, write_jobs
from recipes.mini.settings import SAMPLE_RATE

__all__ = [
    "FRAME",
    "LANGUAGES",
    "TOKEN",
    "Corpus",
    "Job",
    "Jobs",
    "Speaker",
    "Utterance",
    "write_jobs",
    "write_shard",
]

logger = logging.getLogger(__name__)

FRAME = 480  # samples of a mel frame, and of an entry of f0 and phone: 50 Hz
TOKEN = 960  # samples of a speech token, 25 Hz: every utterance is a multiple of it

_LOOK_EVERY_S = 1.0  # for new shards


@dataclass(frozen=True, slots=True)
class Utterance:
    """One synthesised job.

    wav: (n,) int16 at 24 kHz, n a multiple of TOKEN
    f0: (n / FRAME,) float16 Hz, 0 where unvoiced
    phone: (n / FRAME,) uint8, the teacher's token that is spoken in the frame
    """

    job: int
    wav: NDArray[np.int16]
    f0: NDArray[np.float16]
    phone: NDArray[np.uint8]


def write_shard(path: Path, utterances: Sequence[Utterance]) -> None:
    """One shard, renamed into place when complete: a reader never sees half of it."""
    for item in utterances:
        num_frames = len(item.wav) // FRAME
        if len(item.wav) % TOKEN or len(item.f0) != num_frames or len(item.phone) != num_frames:
            raise RecipeError(
                f"job {item.job}: {len(item.wav)} samples, {len(item.f0)} f0, {len(item.phone)} phones"
            )
    tensors = {
        "wav": torch.from_numpy(np.concatenate([item.wav for item in utterances]).astype(np.int16)),
        "f0": torch.from_numpy(np.concatenate([item.f0 for item in utterances]).astype(np.float16)),
        "phone": torch.from_numpy(np.concatenate([item.phone for item in utterances]).astype(np.uint8)),
        "length": torch.tensor([len(item.wav) for item in utterances], dtype=torch.int64),
        "job": torch.tensor([item.job for item in utterances], dtype=torch.int64),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.tmp")
    save_file(tensors, partial)
    partial.replace(path)


class Corpus:
    """All shards of a folder on one device; `refresh` adds those that have come since.

    `job`, `offset` and `length` (numpy, one entry an utterance) say whose audio lies where; every index that
    a method takes is checked on the CPU, since one that is out of range can take a GPU down.
    Random crops come from `rng`, whose state (`rng.bit_generator.state`) belongs into a stage's checkpoint.
    """

    def __init__(self, folder: Path, device: torch.device, max_hours: float = 40.0, seed: int = 0) -> None:
        self.folder = folder
        self.device = device
        self.max_samples = int(max_hours * 3600 * SAMPLE_RATE)
        self.rng = np.random.default_rng(seed)
        self.wav = torch.zeros(0, dtype=torch.int16, device=device)
        self.f0 = torch.zeros(0, dtype=torch.float16, device=device)
        self.phone = torch.zeros(0, dtype=torch.uint8, device=device)
        self.job: NDArray[np.int64] = np.zeros(0, np.int64)
        self.offset: NDArray[np.int64] = np.zeros(0, np.int64)  # of the first sample
        self.length: NDArray[np.int64] = np.zeros(0, np.int64)  # in samples
        self._seen: set[str] = set()

    def __len__(self) -> int:
        return len(self.job)

    @property
    def hours(self) -> float:
        return self.wav.numel() / SAMPLE_RATE / 3600

    def refresh(self) -> int:
        """Load new shards, until max_hours; returns the number of utterances. Raises RecipeError for a bad one."""
        loaded, num_samples = [], self.wav.numel()
        for path in sorted(self.folder.glob("shard-*.safetensors")):
            if path.name in self._seen or num_samples >= self.max_samples:
                continue
            loaded.append(self._load(path))
            num_samples += loaded[-1]["wav"].numel()
            self._seen.add(path.name)
        if not loaded:
            return len(self)
        lengths = np.concatenate([shard["length"].numpy() for shard in loaded])
        starts = np.cumsum(np.concatenate([[self.wav.numel()], lengths[:-1]]))
        self.job = np.concatenate([self.job, *(shard["job"].numpy() for shard in loaded)])
        self.offset = np.concatenate([self.offset, starts])
        self.length = np.concatenate([self.length, lengths])
        self.wav = torch.cat([self.wav, *(shard["wav"].to(self.device) for shard in loaded)])
        self.f0 = torch.cat([self.f0, *(shard["f0"].to(self.device) for shard in loaded)])
        self.phone = torch.cat([self.phone, *(shard["phone"].to(self.device) for shard in loaded)])
        return len(self)

    def wait(self, hours: float, timeout_s: float) -> None:
        """Return when so many hours are loaded, or the time is over and there is something.

        Raises RecipeError if there is nothing at all by then.
        """
        deadline = time.monotonic() + timeout_s
        while (self.refresh() == 0 or self.hours < hours) and time.monotonic() < deadline:
            time.sleep(min(_LOOK_EVERY_S, max(0.0, deadline - time.monotonic())))
        if not len(self):
            raise RecipeError(f"{self.folder} holds no speech after {timeout_s:.0f} s (generate makes it)")
        logger.info("corpus: %d utterances, %.2f h", len(self), self.hours)

    def crops(
        self, index: NDArray[np.int64], num_samples: int, context: int = 0
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A random piece of each utterance, from a multiple of TOKEN; a shorter utterance is padded.

        index: (B,) utterances; num_samples: a multiple of FRAME
        context: so many samples more on either side, zero outside the utterance
        Returns wav (B, context + num_samples + context) float32 in -1..1; f0 (B, num_samples / FRAME) float32 Hz
        and phone (same shape) int64, both 0 beyond the end; lens (B,) int64: samples of the piece before its end.
        """
        index = self._checked(index)
        if num_samples <= 0 or num_samples % FRAME:
            raise RecipeError(f"a crop of {num_samples} samples is not a multiple of {FRAME}")
        choices = np.maximum(self.length[index] - num_samples, 0) // TOKEN + 1
        return self._pieces(index, self.rng.integers(0, choices) * TOKEN, num_samples, context)

    def whole(self, index: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """wav (B, longest) float32, right-padded with zeros, and lens (B,) int64."""
        index = self._checked(index)
        wav, _, _, lens = self._pieces(
            index, np.zeros(len(index), np.int64), int(self.length[index].max()), 0
        )
        return wav, lens

    def tracks(self, index: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """f0 and phone (B, longest / FRAME) of whole utterances, right-padded with zeros."""
        index = self._checked(index)
        num_frames = int(self.length[index].max()) // FRAME
        return self._frames(index, np.zeros(len(index), np.int64), num_frames)

    def _pieces(
        self, index: NDArray[np.int64], start: NDArray[np.int64], num_samples: int, context: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        offset, begin, length = self._moved(self.offset[index], start, self.length[index])
        # positions count from the utterance's first sample
        position = begin[:, None] + torch.arange(-context, num_samples + context, device=self.device)
        inside = (position >= 0) & (position < length[:, None])
        wav = self.wav[torch.where(inside, offset[:, None] + position, 0)].float() / 32768 * inside
        f0, phone = self._frames(index, start, num_samples // FRAME)
        return wav, f0, phone, (length - begin).clamp(max=num_samples)

    def _frames(
        self, index: NDArray[np.int64], start: NDArray[np.int64], num_frames: int
    ) -> tuple[Tensor, Tensor]:
        offset, begin, length = self._moved(
            self.offset[index] // FRAME, start // FRAME, self.length[index] // FRAME
        )
        position = begin[:, None] + torch.arange(num_frames, device=self.device)
        inside = position < length[:, None]
        at = torch.where(inside, offset[:, None] + position, 0)
        return self.f0[at].float() * inside, self.phone[at].long() * inside

    def _moved(self, *arrays: NDArray[np.int64]) -> tuple[Tensor, ...]:
        table = torch.from_numpy(np.stack(arrays))
        if self.device.type == "cuda":
            table = table.pin_memory()
        return tuple(table.to(self.device, non_blocking=True))

    def _checked(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        if index.ndim != 1 or not len(index) or index.dtype.kind not in "iu":
            raise RecipeError(f"an index must be a list of utterances, is {index.dtype} {index.shape}")
        if index.min() < 0 or index.max() >= len(self):
            raise RecipeError(f"utterance {index.min()}..{index.max()} asked for, there are {len(self)}")
        return index.astype(np.int64)

    @staticmethod
    def _load(path: Path) -> dict[str, Tensor]:
        try:
            shard = load_file(path)
            num_samples, num_frames = int(shard["length"].sum()), int(shard["length"].sum()) // FRAME
            sizes = [shard[name].numel() for name in ("wav", "f0", "phone", "job")]
        except (KeyError, OSError, SafetensorError) as error:
            raise RecipeError(f"{path} is no shard of the corpus: {error}") from error
        if sizes != [num_samples, num_frames, num_frames, len(shard["length"])]:
            raise RecipeError(f"{path}: the sizes {sizes} do not fit {num_samples} samples")
        if bool((shard["length"] % TOKEN).any()) or bool((shard["length"] <= 0).any()):
            raise RecipeError(f"{path}: an utterance is not a positive multiple of {TOKEN} samples")
        return shard
