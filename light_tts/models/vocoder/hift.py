"""HiFT: mel to waveform by a harmonic source, upsampling residual blocks and an inverse Fourier transform."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from light_tts.errors import InvalidModelConfig
from light_tts.models.config import HiFTConfig
from light_tts.models.vocoder.convolution import PaddedConv1d, channels_last
from light_tts.models.vocoder.f0_predictor import F0Predictor
from light_tts.models.vocoder.harmonic_source import HarmonicSource
from light_tts.models.vocoder.reach import Reach
from light_tts.models.vocoder.source_noise import SourceNoise
from light_tts.models.vocoder.spectral import istft, stft
from light_tts.models.vocoder.stage import Stage

MAX_MAGNITUDE = 100.0


class HiFT(nn.Module):
    """CosyVoice2's vocoder (`cfg.version` 2), or CosyVoice3's causal one (3): same parts, other padding.

    mel (B, in_channels, T) -> f0 (B, T) -> source (B, samples) -> waveform (B, samples) within audio_limit,
    with samples = T * cfg.samples_per_frame. `streaming.py` does the same piece by piece.
    """

    def __init__(self, cfg: HiFTConfig) -> None:
        super().__init__()
        if cfg.istft_n_fft % cfg.istft_hop_len:
            raise InvalidModelConfig(
                f"hift: n_fft {cfg.istft_n_fft} is not a multiple of hop_len {cfg.istft_hop_len}"
            )
        self.cfg = cfg
        causal = self.causal = cfg.version == 3
        width, look_right = cfg.base_channels, cfg.conv_pre_look_right
        self.f0_predictor = F0Predictor(cfg.in_channels, cfg.f0_cond_channels, causal)
        self.m_source = HarmonicSource(cfg)
        self.conv_pre = (
            PaddedConv1d(cfg.in_channels, width, look_right + 1, left=0, right=look_right)
            if causal
            else PaddedConv1d.same(cfg.in_channels, width, 7, causal)
        )
        num_stages = len(cfg.upsample_rates)
        self.stages = tuple(Stage.build(cfg, index) for index in range(num_stages))
        self.ups = nn.ModuleList(stage.up for stage in self.stages)
        self.source_downs = nn.ModuleList(stage.source_down for stage in self.stages)
        self.source_resblocks = nn.ModuleList(stage.source_block for stage in self.stages)
        self.resblocks = nn.ModuleList(block for stage in self.stages for block in stage.blocks)
        self.conv_post = PaddedConv1d.same(width >> num_stages, cfg.istft_n_fft + 2, 7, causal)

        self.front_reach = self.f0_predictor.reach | self.conv_pre.reach
        """Mel frames around a frame on which its f0 and its features depend."""
        self.stage_reaches = self._stage_reaches()
        """Frames that each stage needs of its inputs around the frames whose waveform is wanted."""

    def to_precision(self, dtype: torch.dtype) -> HiFT:
        """Run the decoder's convolutions in `dtype`; all that makes the pitch keeps its own precision."""
        for part in (self.conv_pre, self.ups, self.source_downs, self.source_resblocks, self.resblocks):
            _convolutions_to(part, dtype)
        _convolutions_to(self.conv_post, dtype)
        self.f0_predictor.to(torch.float64 if self.causal else torch.float32)
        self.m_source.to(torch.float32)
        return self

    @property
    def oracle(self) -> HiFT:
        return self

    def warm(self, shapes: Sequence[tuple[int, int]]) -> None:
        """Prepare for whole utterances of these shapes: rows and frames. Nothing to do here."""

    @property
    def features_dtype(self) -> torch.dtype:
        return self.conv_pre.weight.dtype

    def f0(self, mel: Tensor, mel_lens: Tensor | None = None) -> Tensor:
        """(B, in_channels, T) mel to (B, T) float32 Hz; 0 beyond each row's `mel_lens`."""
        valid = None if mel_lens is None else valid_frames(mel_lens, mel)
        f0 = self.f0_predictor(mel, valid).float()
        return f0 if valid is None else f0 * valid

    def source(self, f0: Tensor, noise: Sequence[SourceNoise]) -> Tensor:
        """(B, T) Hz of whole utterances to the (B, samples) float32 source; one noise per row."""
        source, _ = self.m_source(f0, noise)
        return source

    def features(self, mel: Tensor) -> Tensor:
        """The first convolution: (B, in_channels, T) mel to the (B, base_channels, T) of `decode_window`."""
        return self.conv_pre(channels_last(mel.to(self.conv_pre.weight.dtype))).squeeze(2)

    def decode(self, mel: Tensor, source: Tensor) -> Tensor:
        """Whole utterances: mel (B, in_channels, T) and source (B, samples) to waveforms (B, samples)."""
        return self.decode_window(self.features(mel), source, 0, mel.shape[2])

    def synthesize(self, mel: Tensor, mel_lens: Tensor, noise: Sequence[SourceNoise]) -> Tensor:
        """Right-padded utterances to waveforms, each as if it were alone.

        mel: (B, in_channels, T); mel_lens: (B,) int64 on the CPU; noise: one per row
        Returns (B, samples) float32, zero beyond mel_lens * samples_per_frame.
        """
        if bool((mel_lens == mel.shape[2]).all()):
            return self.decode(mel, self.source(self.f0(mel), noise))
        valid = valid_frames(mel_lens, mel)
        mel = mel * valid[:, None]
        features, source = self.features(mel), self.source(self.f0(mel, mel_lens), noise)
        wav = self.decode_window(features, source, 0, mel.shape[2])
        wav = self._mend_ends(wav, features, source, mel_lens.tolist())
        return wav * valid.repeat_interleave(self.cfg.samples_per_frame, dim=1)

    def _mend_ends(self, wav: Tensor, features: Tensor, source: Tensor, lens: Sequence[int]) -> Tensor:
        """Redo the last frames of padded rows with the signal's true end: only these have seen the padding.

        Their windows have one length, so that they run as one batch; rows shorter than it run one by one.
        """
        size = self.reach.left + self.reach.right
        padded = [row for row, length in enumerate(lens) if 0 < length < features.shape[2]]
        long = [row for row in padded if lens[row] >= size]
        groups = [[row] for row in padded if lens[row] < size] + ([long] if long else [])
        rows = list(wav)
        samples = self.cfg.samples_per_frame
        for group in groups:
            window = min(size, lens[group[0]])
            ends = [(row, lens[row] - window, lens[row]) for row in group]
            tails = self.decode_window(
                torch.stack([features[row, :, start:end] for row, start, end in ends]),
                torch.stack([source[row, start * samples : end * samples] for row, start, end in ends]),
                max(0, window - self.reach.right),
                window,
            )
            for tail, (row, _, end) in zip(tails, ends, strict=True):
                after = end * samples
                rows[row] = torch.cat([rows[row][: after - len(tail)], tail, rows[row][after:]])
        return torch.stack(rows)

    def decode_window(self, features: Tensor, source: Tensor, first: int, last: int) -> Tensor:
        """Waveform of the frames first..last-1 of a window.

        It equals that of the whole signal if the window holds `reach` frames around the wanted ones, or
        begins or ends where the signal does.

        features: (B, base_channels, T); source: (B, T * samples_per_frame)
        Returns (B, (last - first) * samples_per_frame) float32.
        """
        cfg, total = self.cfg, features.shape[2]
        columns = prod(cfg.upsample_rates)  # of the spectrum, per mel frame
        spectrum = channels_last(stft(source, cfg.istft_n_fft, cfg.istft_hop_len).to(features.dtype))
        x, start = channels_last(features), 0
        for stage, reach in zip(self.stages, self.stage_reaches, strict=True):
            # Each stage needs less context than the one before: leave behind what has done its part.
            begin, end = max(0, first - reach.left) - start, min(total, last + reach.right) - start
            x = x[..., begin * stage.columns_in : end * stage.columns_in]
            spectrum = spectrum[..., begin * columns : end * columns + 1]
            x = stage.run(x, spectrum)
            start += begin
        x = self.conv_post(F.leaky_relu(x)).squeeze(2).float()
        wav = istft(polar(x), cfg.istft_n_fft, cfg.istft_hop_len)
        wav = wav[:, (first - start) * cfg.samples_per_frame : (last - start) * cfg.samples_per_frame]
        return wav.clamp(-cfg.audio_limit, cfg.audio_limit)

    @property
    def reach(self) -> Reach:
        """Frames of features and source that `decode_window` needs around the wanted ones."""
        return self.stage_reaches[0]

    def _stage_reaches(self) -> tuple[Reach, ...]:
        """Backwards from the waveform, in samples, rounded up to frames at each stage's input."""
        hop_len, half = self.cfg.istft_hop_len, self.cfg.istft_n_fft // 2
        transform = Reach(half, half)
        needed = transform + self.conv_post.reach * hop_len
        reaches = []
        for stage in reversed(self.stages):
            needed, spectrum = stage.reach(needed, hop_len)
            reaches.append((needed | (spectrum + transform)).rounded_up(self.cfg.samples_per_frame))
        return tuple(reversed(reaches))


def polar(x: Tensor) -> Tensor:
    """(B, 2 F, T) log magnitudes and sines of phases to (B, 2 F, T) real and imaginary parts."""
    log_magnitude, phase = x.chunk(2, dim=1)
    magnitude, phase = log_magnitude.exp().clamp(max=MAX_MAGNITUDE), phase.sin()
    return torch.cat([magnitude * phase.cos(), magnitude * phase.sin()], dim=1)


def valid_frames(lens: Tensor, mel: Tensor) -> Tensor:
    """(B, T) bool on the device of `mel` (B, C, T): False on right padding."""
    return torch.arange(mel.shape[2], device=mel.device) < lens.to(mel.device)[:, None]


def _convolutions_to(part: nn.Module, dtype: torch.dtype) -> None:
    """Weights of the convolutions alone: Snake computes in float32 and keeps its own."""
    for module in part.modules():
        if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
            module.to(dtype)
