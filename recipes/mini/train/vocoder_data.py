"""What the vocoder learns from: pieces of the teacher's speech with the mels that it will have to live with.

Every batch is a function of the seed and the step alone, so that a resumed run sees what an unbroken one would have.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from light_tts.encode.features import prompt_mel
from light_tts.models.config import HiFTConfig, MelConfig
from recipes.mini.corpus import FRAME, TOKEN, Corpus
from recipes.mini.errors import RecipeError
from recipes.mini.vocoder_settings import VocoderSettings

FLOW_MELS = "flow-mels"  # folder of WORK, used if it is there

_HELD_OUT_EVERY = 50  # utterances by job number: the same whatever order the shards come in
_TOKEN_FRAMES = TOKEN // FRAME
_REFRESH_EVERY = 500  # steps
_CONTEXT = 2  # frames around a crop that its mel hears
_SILENCE = math.log(1e-5)  # of a mel


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One step's input, all on the training device.

    mel: (B, num_mels, T), perhaps perturbed or made by the flow
    f0: (B, T) Hz, the teacher's, 0 where unvoiced
    wav: (B, T * FRAME)
    noise: (B, T * FRAME, harmonics), standard normal: the source's
    guided: () bool: the source follows the teacher's pitch instead of the predicted one
    """

    mel: Tensor
    f0: Tensor
    wav: Tensor
    noise: Tensor
    guided: Tensor

    def tensors(self) -> list[Tensor]:
        return [getattr(self, field.name) for field in dataclasses.fields(self)]


class FlowMels:
    """Mels that the trained flow made of the corpus's codes, in the teacher's timing.

    `part-*.safetensors` of one folder: job int64 (u,), frames int64 (u,), mel float16 (sum of frames, num_mels).
    """

    def __init__(self, folder: Path, num_mels: int, device: torch.device) -> None:
        parts = [_read_part(path, num_mels) for path in sorted(folder.glob("part-*.safetensors"))]
        if not parts:
            raise RecipeError(f"{folder} holds no part-*.safetensors")
        self.job: NDArray[np.int64] = np.concatenate([part["job"].numpy() for part in parts])
        self.frames: NDArray[np.int64] = np.concatenate([part["frames"].numpy() for part in parts])
        self.offset: NDArray[np.int64] = np.cumsum(self.frames) - self.frames
        self.mel = torch.cat([part["mel"] for part in parts]).to(device)

    def matches(self, corpus: Corpus) -> NDArray[np.int64]:
        """(u, 2) pairs of an utterance of the corpus and a mel of the same job and length."""
        place = {job: number for number, job in enumerate(corpus.job.tolist())}
        found = [
            (place[job], number)
            for number, (job, frames) in enumerate(zip(self.job.tolist(), self.frames.tolist(), strict=True))
            if job in place and corpus.length[place[job]] == frames * FRAME
        ]
        return np.array(found, np.int64).reshape(-1, 2)

    def crops(self, index: NDArray[np.int64], start: NDArray[np.int64], num_frames: int) -> Tensor:
        """(B, num_mels, num_frames) from frame `start` of each mel; silence beyond its end."""
        place = start[:, None] + np.arange(num_frames)
        inside = place < self.frames[index][:, None]
        rows = np.where(inside, self.offset[index][:, None] + place, 0)
        mel = self.mel[torch.from_numpy(rows).to(self.mel.device)].float()
        silent = torch.from_numpy(~inside).to(self.mel.device)
        return mel.masked_fill(silent[:, :, None], _SILENCE).transpose(1, 2)


class Batches:
    """Batches by step number."""

    def __init__(
        self,
        settings: VocoderSettings,
        corpus: Corpus,
        hift: HiFTConfig,
        mel: MelConfig,
        seed: int,
        flow_mels: FlowMels | None = None,
    ) -> None:
        self.settings, self.corpus, self.seed, self.flow_mels = settings, corpus, seed, flow_mels
        self.mel_config = mel
        self.num_harmonics = hift.nb_harmonics + 1
        self._training: NDArray[np.int64] = np.zeros(0, np.int64)
        self._weights: NDArray[np.float64] = np.zeros(0)
        self._pairs: NDArray[np.int64] = np.zeros((0, 2), np.int64)
        self.refresh()

    def refresh(self) -> None:
        """Take in what has been generated since."""
        self.corpus.refresh()
        held_out = self.corpus.job % _HELD_OUT_EVERY == 0
        self._training = np.flatnonzero(~held_out)
        if not len(self._training):
            raise RecipeError(f"{len(self.corpus)} utterances leave none to train on")
        length = self.corpus.length[self._training].astype(np.float64)
        self._weights = length.cumsum() / length.sum()
        if self.flow_mels is not None:
            pairs = self.flow_mels.matches(self.corpus)
            self._pairs = pairs[~held_out[pairs[:, 0]]]

    def held_out(self, count: int) -> NDArray[np.int64]:
        """At most `count` utterances that are never trained on, lowest job numbers first."""
        order = np.argsort(self.corpus.job, kind="stable")
        held_out: NDArray[np.int64] = order[self.corpus.job[order] % _HELD_OUT_EVERY == 0]
        return held_out[:count]

    def draw(self, step: int, progress: float) -> Batch:
        """The batch of a step."""
        s, device = self.settings, self.corpus.device
        if step % _REFRESH_EVERY == 0:
            self.refresh()
        rng = np.random.default_rng((self.seed, step))
        generator = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
        batch_size, num_frames = batch_shape(s, progress)
        num_flow = round(batch_size * s.flow_mels) if len(self._pairs) else 0
        mel, f0, wav = self._teacher_rows(batch_size - num_flow, num_frames, rng)
        mel = perturb(mel, s.perturbed, s.perturbed_noise, generator)
        if num_flow:
            rows = self._flow_rows(num_flow, num_frames, rng)
            mel, f0, wav = (torch.cat(pair) for pair in zip((mel, f0, wav), rows, strict=True))
        noise = torch.randn(*wav.shape, self.num_harmonics, generator=generator, device=device)
        guided = torch.full((), progress < s.guided_until, device=device)
        return Batch(mel, f0, wav, noise, guided)

    def _teacher_rows(
        self, count: int, num_frames: int, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """mel, f0 and wav of random places, all seconds of speech being equally likely."""
        chosen = np.searchsorted(self._weights, rng.random(count), side="right").clip(
            max=len(self._weights) - 1
        )
        self.corpus.rng = rng
        wav, f0, _, _ = self.corpus.crops(self._training[chosen], num_frames * FRAME, _CONTEXT * FRAME)
        mel = prompt_mel(wav, self.mel_config)[:, _CONTEXT:-_CONTEXT].transpose(1, 2)
        return mel, f0, wav[:, _CONTEXT * FRAME : -_CONTEXT * FRAME]

    def _flow_rows(
        self, count: int, num_frames: int, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same with the flow's mels: it is blurred where the teacher's is not, and the wave must not be."""
        assert self.flow_mels is not None
        utterance, number = self._pairs[rng.integers(len(self._pairs), size=count)].T
        choices = np.maximum(self.flow_mels.frames[number] - num_frames, 0) // _TOKEN_FRAMES + 1
        start = rng.integers(0, choices) * _TOKEN_FRAMES
        wav, _ = self.corpus.whole(utterance)
        f0, _ = self.corpus.tracks(utterance)
        mel = self.flow_mels.crops(number, start, num_frames)
        return mel, _slices(f0, start, num_frames), _slices(wav, start * FRAME, num_frames * FRAME)


def batch_shape(settings: VocoderSettings, progress: float) -> tuple[int, int]:
    """Rows and mel frames of a batch: late in training longer pieces, as much audio in all."""
    s = settings
    if progress < s.long_crops_from:
        return s.batch_size, s.crop_frames
    return max(1, s.batch_size * s.crop_frames // s.long_crop_frames), s.long_crop_frames


def perturb(mel: Tensor, share: float, noise: float, generator: torch.Generator) -> Tensor:
    """Make some rows resemble what a flow makes: noisier than speech, or smoother.

    mel: (B, M, T) log-mel; share: of rows that get noise, and of those that are smoothed
    noise: largest standard deviation
    """

    def chance() -> Tensor:
        return torch.rand(len(mel), 1, 1, generator=generator, device=mel.device)

    blurred = F.avg_pool2d(mel[:, None], (3, 3), stride=1, padding=1, count_include_pad=False)[:, 0]
    mel = torch.lerp(mel, blurred, chance() * (chance() < share))
    hiss = torch.randn(mel.shape, generator=generator, device=mel.device)
    return mel + hiss * (noise * chance() * (chance() < share))


def _slices(x: Tensor, start: NDArray[np.int64], size: int) -> Tensor:
    """(B, N) to (B, size), each row from its own start; zero beyond the end."""
    padded = F.pad(x, (0, size))
    place = torch.from_numpy(start[:, None] + np.arange(size)).to(x.device)
    return padded.gather(1, place)


def _read_part(path: Path, num_mels: int) -> dict[str, Tensor]:
    try:
        part = load_file(path)
        sizes = (part["mel"].shape, (int(part["frames"].sum()), num_mels))
        counts = (len(part["job"]), len(part["frames"]))
    except (KeyError, OSError, SafetensorError) as error:
        raise RecipeError(f"{path} holds no mels of the flow: {error}") from error
    if tuple(sizes[0]) != sizes[1] or counts[0] != counts[1] or bool((part["frames"] <= 0).any()):
        raise RecipeError(f"{path}: mel {tuple(sizes[0])} and {counts[0]} jobs do not fit {sizes[1]}")
    return part
