"""`HiFT` for GPUs: the same calls, by bucket of lengths, each recorded once as a graph."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from light_tts.kernels.lang import can_run
from light_tts.models.config import HiFTConfig
from light_tts.models.graphs import Graphs
from light_tts.models.vocoder.fast import FastDecoder
from light_tts.models.vocoder.hift import HiFT
from light_tts.models.vocoder.reach import Reach
from light_tts.models.vocoder.source_noise import NoiseKeys, SourceNoise

BATCHES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)


@dataclass(frozen=True, slots=True)
class _Whole:
    """mel: (B, bins, T) float32; numbers: (3, B) int32: frames, and the two keys of the noise"""

    mel: Tensor
    numbers: Tensor


@dataclass(frozen=True, slots=True)
class _Window:
    """features: (B, T, base); source: (B, T * samples_per_frame); lens: (B,) int32"""

    features: Tensor
    source: Tensor
    lens: Tensor


Inputs = _Whole | _Window


def bucket_of(frames: int) -> int:
    """Frames, padded: an eighth more at most from 256 on, 31 more before."""
    step = 32 if frames <= 512 else 64
    return -(-frames // step) * step


class FastHiFT:
    """Answers as its oracle `HiFT` does, within the rounding of `dtype`; f0 and phase keep their precision.

    triton: None chooses it where it can run; record: as graphs, where there is a GPU; recording: see `Graphs`
    """

    def __init__(
        self,
        model: HiFT,
        dtype: torch.dtype,
        *,
        triton: bool | None = None,
        record: bool = True,
        recording: threading.Lock | None = None,
    ) -> None:
        self._model, self._dtype = model, dtype
        self._device = model.conv_post.weight.device
        if triton is None:
            triton = self._device.type == "cuda" and dtype != torch.float32 and can_run(self._device)
        self._decoder = FastDecoder(model, dtype, triton)
        self.m_source = model.m_source
        self._graphs: Graphs[Inputs] = Graphs(self._device, record=record, recording=recording)

    @property
    def cfg(self) -> HiFTConfig:
        return self._model.cfg

    @property
    def oracle(self) -> HiFT:
        return self._model

    @property
    def reach(self) -> Reach:
        return self._model.reach

    @property
    def front_reach(self) -> Reach:
        return self._model.front_reach

    @property
    def features_dtype(self) -> torch.dtype:
        return self._dtype

    def f0(self, mel: Tensor, mel_lens: Tensor | None = None) -> Tensor:
        return self._model.f0(mel, mel_lens)

    def features(self, mel: Tensor) -> Tensor:
        """(B, bins, T) to (B, base channels, T)"""
        return self._decoder.features(mel.transpose(1, 2)).transpose(1, 2)

    def decode_window(self, features: Tensor, source: Tensor, first: int, last: int) -> Tensor:
        """As `HiFT.decode_window`."""
        batch, _, frames = features.shape
        padded, samples = bucket_of(frames), self.cfg.samples_per_frame
        rows = next((size for size in BATCHES if size >= batch), batch)

        def make() -> Inputs:
            return _Window(
                torch.zeros(rows, padded, features.shape[1], dtype=self._dtype, device=self._device),
                torch.zeros(rows, padded * samples, device=self._device),
                torch.zeros(rows, dtype=torch.int32, device=self._device),
            )

        def fill(inputs: Inputs) -> None:
            assert isinstance(inputs, _Window)
            inputs.features[:batch, :frames] = features.transpose(1, 2)
            inputs.source[:batch, : frames * samples] = source[:, : frames * samples]
            inputs.lens.fill_(frames)

        with self._graphs.turn():
            (wav,) = self._graphs.run(("window", rows, padded), make, fill, self._decoded)
        return wav[:batch, first * samples : last * samples]

    def synthesize(self, mel: Tensor, mel_lens: Tensor, noise: Sequence[SourceNoise]) -> Tensor:
        """As `HiFT.synthesize`."""
        if any(item.seed is None for item in noise):
            return self._in_parts(mel, mel_lens, noise)
        batch, bins, frames = mel.shape
        padded, samples = bucket_of(frames), self.cfg.samples_per_frame
        rows = next((size for size in BATCHES if size >= batch), batch)
        keys = NoiseKeys.of([item.seed or 0 for item in noise])
        numbers = torch.zeros(3, rows, dtype=torch.int32)
        numbers[:, :batch] = torch.stack([mel_lens.int(), keys.offset, keys.mask])

        def make() -> Inputs:
            return _Whole(
                torch.zeros(rows, bins, padded, device=self._device),
                torch.zeros(3, rows, dtype=torch.int32, device=self._device),
            )

        def fill(inputs: Inputs) -> None:
            assert isinstance(inputs, _Whole)
            pinned = numbers.pin_memory() if inputs.numbers.is_cuda else numbers
            inputs.numbers.copy_(pinned, non_blocking=True)
            inputs.mel[:batch, :, :frames] = mel

        with self._graphs.turn():
            (wav,) = self._graphs.run(("whole", rows, padded), make, fill, self._spoken)
        return wav[:batch, : frames * samples]

    def _spoken(self, inputs: Inputs) -> tuple[Tensor]:
        assert isinstance(inputs, _Whole)
        lens, offset, mask = inputs.numbers.unbind(0)
        inside = torch.arange(inputs.mel.shape[2], device=lens.device) < lens[:, None]
        mel = torch.where(inside[:, None], inputs.mel, 0.0)
        f0 = self._model.f0(mel, lens)
        source, _ = self.m_source(f0, NoiseKeys(offset, mask))
        wav = self._decoder.decode(self._decoder.features(mel.transpose(1, 2)), source, lens)
        return (wav * inside.repeat_interleave(self.cfg.samples_per_frame, dim=1),)

    def _decoded(self, inputs: Inputs) -> tuple[Tensor]:
        assert isinstance(inputs, _Window)
        return (self._decoder.decode(inputs.features, inputs.source, inputs.lens),)

    def _in_parts(self, mel: Tensor, mel_lens: Tensor, noise: Sequence[SourceNoise]) -> Tensor:
        """With noise that only the CPU knows."""
        lens = mel_lens.to(self._device)
        inside = torch.arange(mel.shape[2], device=lens.device) < lens[:, None]
        mel = mel * inside[:, None]
        source = self._model.source(self._model.f0(mel, lens), noise)
        wav = self._decoder.decode(self._decoder.features(mel.transpose(1, 2)), source, lens.int())
        return wav * inside.repeat_interleave(self.cfg.samples_per_frame, dim=1)

    def warm(self, shapes: Sequence[tuple[int, int]]) -> None:
        """Record graphs of whole utterances ahead. shapes: (batch, frames)"""
        for batch, frames in shapes:
            mel = torch.zeros(batch, self.cfg.in_channels, frames, device=self._device)
            with torch.inference_mode():
                self.synthesize(mel, torch.full((batch,), frames), [SourceNoise.seeded(0)] * batch)
