"""Parity of the vocoder: recordings `cv2_hift` and `cv3_hift`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from light_tts.models.loader import load_vocoder
from light_tts.models.model_yaml import read_model_config
from light_tts.models.vocoder.harmonic_source import SourceState
from light_tts.models.vocoder.hift import HiFT
from light_tts.models.vocoder.overlap_add import (
    CACHED_FRAMES,
    REVOCODE_HELD_BACK_FRAMES,
    crossfade,
    revocode_stream,
    speech_window,
    with_cached_source,
)
from light_tts.models.vocoder.source_noise import SourceNoise
from light_tts.models.vocoder.spectral import stft
from light_tts.models.vocoder.streaming import stream
from test.parity.recording import Recording
from test.parity.report import DECODE, F0_HZ, SHORT_WAVE, SOURCE, Report

CPU = torch.device("cpu")
STAGE = 5e-5  # activations reach +-20: float32 sums in another order
STFT = 1e-5


def check(folder: Path, report: Report) -> list[Recording]:
    recordings = []
    for version, case in ((2, _CosyVoice2), (3, _CosyVoice3)):
        if not (folder / "fixtures" / f"cv{version}_hift.safetensors").exists():
            continue
        model_dir = folder / f"cosyvoice{version}"
        recording = Recording(folder / "fixtures", f"cv{version}_hift")
        model = load_vocoder(model_dir, read_model_config(model_dir).hift, CPU, torch.float32)
        checked = case(model, recording, report)
        with torch.inference_mode():
            checked.run()
        checked.window(Recording(folder / "fixtures", f"cv{version}_flow"))
        recordings.append(recording)
    return recordings


class _HiFTCheck:
    """What both versions share."""

    def __init__(self, model: HiFT, recording: Recording, report: Report) -> None:
        self.model, self.recording = model, recording
        self.close = partial(report.close, recording.name)
        self.equal = partial(report.equal, recording.name)
        self.mel = recording.tensor("mel")
        self.samples = self.mel.shape[2] * model.cfg.samples_per_frame
        self.silence = SourceNoise.zeros()

    def window(self, flow: Recording) -> None:
        """The mel is a window of the recorded flow's output, chosen away from the voicing threshold."""
        start, frames = self.recording.meta("window", "start"), self.mel.shape[2]
        self.equal("mel", self.mel, flow.tensor("mel.stream0.final1")[:, :, start : start + frames])
        f0 = self.model.f0(self.mel)
        threshold = self.model.cfg.nsf_voiced_threshold
        recorded = self.recording.meta("window", "unvoiced_frames")
        possible = self.unvoiced_counts(f0[0] <= threshold)
        found = recorded if recorded in possible else possible
        self.equal("window.unvoiced_frames", found, recorded)
        margin = torch.tensor(self.recording.meta("window", f"min_abs_f0_minus_{threshold:g}"))
        self.close("window.min_abs_f0_minus_threshold", (f0 - threshold).abs().min(), margin, F0_HZ)

    def unvoiced_counts(self, unvoiced: Tensor) -> list[int]:
        """What the recording may call the number of unvoiced frames."""
        return [int(unvoiced.sum())]

    def noise_from_seed(self, start_phases: np.ndarray, noise: np.ndarray) -> SourceNoise:
        """The recorded noise is what its documented seed gives, and is what the model is then fed."""
        self.equal("rand_ini", self.recording.tensor("rand_ini"), torch.from_numpy(start_phases).float())
        recorded = self.recording.tensor("noise")
        self.equal("noise", recorded, torch.from_numpy(noise).float())
        return SourceNoise.recorded(recorded)

    def decode(self, source: Tensor, expected: Tensor, tensor: str) -> None:
        """The waveform from a recorded source, and the activations on the way."""
        with _observed(self.model) as seen:
            wav = self.model.decode(self.mel, source[:, 0])
        self.close(tensor, wav, expected, DECODE)
        for name in self.recording.tensor_names:
            if name.startswith("stage."):
                module = name.removeprefix("stage.")
                self.close(name, seen[module], self.recording.tensor(name), STAGE)


class _CosyVoice2(_HiFTCheck):
    def run(self) -> None:
        tensor = self.recording.tensor
        seed = self.recording.meta("noise_seed")
        random = np.random.RandomState(seed + 1)  # the first vocoder call of its run
        harmonics = self.model.cfg.nb_harmonics + 1
        phases = random.random_sample((1, harmonics))
        noise = self.noise_from_seed(phases, random.standard_normal((1, self.samples, harmonics)))
        f0 = self.model.f0(self.mel)
        self.close("f0", f0, tensor("f0"), F0_HZ)
        self.excitation(tensor("f0"), noise)
        self.close("source", self.model.source(f0, [noise])[:, None], tensor("source"), SOURCE)
        self.close(
            "source_zeronoise",
            self.model.source(f0, [self.silence])[:, None],
            tensor("source_zeronoise"),
            SOURCE,
        )
        n_fft, hop_len = self.model.cfg.istft_n_fft, self.model.cfg.istft_hop_len
        self.close("stft", stft(tensor("source")[:, 0], n_fft, hop_len), tensor("stft"), STFT)
        self.decode(tensor("source"), tensor("wav"), "wav (recorded source)")
        self.close(
            "decode.wav", self.model.decode(self.mel, tensor("decode.s")[:, 0]), tensor("decode.wav"), DECODE
        )
        self.waveforms(noise)
        self.fade()

    def excitation(self, f0: Tensor, noise: SourceNoise) -> None:
        blocks = list(self.model.m_source.excitations(f0, [noise], SourceState()))
        sines = torch.cat([excitation for excitation, _, _ in blocks], dim=1)
        voiced = torch.cat([voiced for _, voiced, _ in blocks], dim=1)
        channels = self.recording.meta("sine_waves_channels")
        self.close("sine_waves", sines[:, :, channels], self.recording.tensor("sine_waves"), SOURCE)
        self.equal("uv", voiced[..., None].float(), self.recording.tensor("uv"))

    def waveforms(self, noise: SourceNoise) -> None:
        tensor, lens = self.recording.tensor, torch.tensor([self.mel.shape[2]])
        self.close("wav", self.model.synthesize(self.mel, lens, [noise]), tensor("wav"), SHORT_WAVE)
        silent = self.model.synthesize(self.mel, lens, [self.silence])
        self.close("wav_zeronoise", silent, tensor("wav_zeronoise"), SHORT_WAVE)
        streamed, _ = stream(self.model, self.mel, None, noise, finalize=True)
        self.close("wav (stream)", streamed, tensor("wav"), SHORT_WAVE)
        cached = tensor("cache_source")[:, 0]
        source = with_cached_source(self.model.source(self.model.f0(self.mel), [noise]), cached)
        self.close("wav_cached", self.model.decode(self.mel, source), tensor("wav_cached"), SHORT_WAVE)

    def fade(self) -> None:
        tensor = self.recording.tensor
        window = speech_window(CACHED_FRAMES * self.model.cfg.samples_per_frame)
        self.close("speech_window", window, tensor("speech_window"), 1e-7)
        faded = crossfade(tensor("fade.out_tail"), tensor("fade.in"), window)
        self.close("fade.result", faded, tensor("fade.result"), 1e-7)


class _CosyVoice3(_HiFTCheck):
    def unvoiced_counts(self, unvoiced: Tensor) -> list[int]:
        """The recording leaves out some of the last frames, whose f0 lacks context; it does not say how many."""
        frames = len(unvoiced)
        return [int(unvoiced[:end].sum()) for end in range(frames - REVOCODE_HELD_BACK_FRAMES, frames + 1)]

    def run(self) -> None:
        tensor, model = self.recording.tensor, self.model
        seed, harmonics = self.recording.meta("noise_seed"), model.cfg.nb_harmonics + 1
        phases = np.random.RandomState(seed).random_sample((1, harmonics))
        phases[:, 0] = 0
        drawn = np.random.RandomState(seed + 1).random_sample((1, self.samples, harmonics))
        noise = self.noise_from_seed(phases, drawn)
        f0 = model.f0(self.mel)
        self.close("f0_final", f0, tensor("f0_final"), F0_HZ)
        self.close("source_final", model.source(f0, [noise])[:, None], tensor("source_final"), SOURCE)
        known = f0[:, : f0.shape[1] - model.f0_predictor.reach.right]
        self.close("f0_nonfinal", known, tensor("f0_nonfinal"), F0_HZ)
        self.close(
            "source_nonfinal", model.source(known, [noise])[:, None], tensor("source_nonfinal"), SOURCE
        )
        self.decode(tensor("source_final"), tensor("wav_final"), "wav_final (recorded source)")
        self.waveforms(noise)

    def waveforms(self, noise: SourceNoise) -> None:
        tensor, model, frames = self.recording.tensor, self.model, self.mel.shape[2]
        wav = model.synthesize(self.mel, torch.tensor([frames]), [noise])
        self.close("wav_final", wav, tensor("wav_final"), SHORT_WAVE)
        silent = model.synthesize(self.mel, torch.tensor([frames]), [self.silence])
        self.close("wav_final_zeronoise", silent, tensor("wav_final_zeronoise"), SHORT_WAVE)
        first, state = revocode_stream(model, self.mel, None, noise, finalize=False)
        self.close("wav_nonfinal", first, tensor("wav_nonfinal"), SHORT_WAVE)
        rest, _ = revocode_stream(model, self.mel[:, :, :0], state, noise, finalize=True)
        self.close(
            "wav_final (in two pieces)", torch.cat([first, rest], dim=1), tensor("wav_final"), SHORT_WAVE
        )
        lens = {"mel_frames": frames, "final": wav.shape[1], "nonfinal": first.shape[1]}
        self.equal("lens", lens, self.recording.meta("lens"))


@contextmanager
def _observed(model: HiFT) -> Iterator[dict[str, Tensor]]:
    """What the convolutions of `model` return inside, under the recordings' names, as (B, C, T)."""
    seen: dict[str, Tensor] = {}

    def note(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            seen[name] = output.squeeze(2)

        return hook

    modules: dict[str, nn.Module] = {"conv_pre": model.conv_pre, "conv_post": model.conv_post}
    for index, stage in enumerate(model.stages):
        modules |= {f"up{index}": stage.up, f"source_down{index}": stage.source_down}
    handles = [module.register_forward_hook(note(name)) for name, module in modules.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
