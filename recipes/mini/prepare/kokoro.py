"""The teacher, Kokoro-82M, as plain modules: phonemes and a style to speech, its pitch and its phones' durations.

Structure and numbers are those of its ONNX export (teacher_weights.dequantise gives the weights); as there, the
source has no noise, so that the same input gives the same speech. Batch 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recipes.mini.errors import RecipeError
from recipes.mini.prepare.kokoro_layers import STYLE_HALF, SnakeBlock, StyledBlock, StyledNorm
from recipes.mini.prepare.kokoro_text import MAX_PHONEMES, NUM_PHONEMES, WIDTH, Bert, TextEncoder

__all__ = [
    "MAX_PHONEMES",
    "NUM_PHONEMES",
    "SAMPLES_PER_F0",
    "SAMPLES_PER_FRAME",
    "Kokoro",
    "Spoken",
    "check_phonemes",
]

SAMPLE_RATE = 24_000
SAMPLES_PER_FRAME = 600  # durations count frames of 40 Hz
SAMPLES_PER_F0 = 300

_FFT, _HOP = 20, 5
_UPSAMPLED = 60  # steps of the generator for each value of the pitch
_HARMONICS = 9
_VOICED_HZ = 10.0


@dataclass(frozen=True, slots=True)
class Spoken:
    """wav: (samples,) float32 at 24 kHz; f0: (samples / SAMPLES_PER_F0,) Hz, below 10 where there is no pitch;
    ends: (phonemes + 2,) int64, the frame of SAMPLES_PER_FRAME at which each phoneme ends, padding included."""

    wav: Tensor
    f0: Tensor
    ends: Tensor


class Kokoro(nn.Module):
    """Weights by the names of teacher_weights.dequantise."""

    def __init__(self) -> None:
        super().__init__()
        self.bert = Bert()
        self.bert_encoder = nn.Linear(768, WIDTH)
        self.text_encoder = TextEncoder()
        self.predictor = _Predictor()
        self.decoder = _Decoder()

    @classmethod
    def load(cls, weights: Mapping[str, Tensor], device: torch.device) -> Kokoro:
        """Raises RecipeError if the weights are not exactly those of the teacher."""
        with torch.device("meta"):
            model = cls()
        try:
            model.load_state_dict(dict(weights), strict=True, assign=True)
        except RuntimeError as error:
            raise RecipeError(f"these are not the teacher's weights: {error}") from error
        return model.to(device).eval().requires_grad_(False)

    def forward(self, phonemes: Tensor, style: Tensor, speed: float = 1.0) -> Spoken:
        """phonemes: (n,) int64 on the CPU, without padding; style: (256,), timbre and prosody

        Raises RecipeError for phonemes out of range: checked here on the CPU, since on a GPU one bad index ends
        every process that uses the card.
        """
        device = style.device
        ids = F.pad(check_phonemes(phonemes), (1, 1))[None].to(device)
        timbre, prosody = style[None].split(STYLE_HALF, dim=1)
        context = self.bert_encoder(self.bert(ids))  # (1, n, width)
        steered = self.predictor.text_encoder(context, prosody)  # (1, n, width + style)
        durations = self.predictor.durations(steered, speed)
        f0, energy = self.predictor.curves(steered[0].repeat_interleave(durations, dim=0)[None], prosody)
        text = self.text_encoder(ids)[0].repeat_interleave(durations, dim=1)[None]  # (1, width, frames)
        wav = self.decoder(text, f0, energy, timbre)
        return Spoken(wav[0], f0[0], durations.cumsum(0))


def check_phonemes(phonemes: Tensor) -> Tensor:
    """The same tensor, if it is on the CPU and its values can be looked up. Raises RecipeError."""
    if phonemes.device.type != "cpu" or phonemes.ndim != 1 or phonemes.dtype != torch.int64:
        raise RecipeError(
            f"phonemes must be a list of int64 on the CPU, are {phonemes.dtype} {phonemes.device}"
        )
    if not 0 < len(phonemes) <= MAX_PHONEMES:
        raise RecipeError(f"{len(phonemes)} phonemes, the teacher takes 1 to {MAX_PHONEMES}")
    low, high = int(phonemes.min()), int(phonemes.max())
    if low < 0 or high >= NUM_PHONEMES:
        raise RecipeError(f"phonemes {low}..{high}, the teacher knows 0..{NUM_PHONEMES - 1}")
    return phonemes


def _styled_lstm() -> nn.LSTM:
    return nn.LSTM(WIDTH + STYLE_HALF, WIDTH // 2, batch_first=True, bidirectional=True)


class _DurationEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers = [(_styled_lstm(), StyledNorm(WIDTH)) for _ in range(3)]
        self.lstms = nn.ModuleList(module for pair in layers for module in pair)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(1, n, width) to (1, n, width + STYLE_HALF): the style stays beside what it steers"""
        beside = style[:, None].expand(-1, x.shape[1], -1)
        x = torch.cat([x, beside], dim=2)
        for lstm, norm in zip(self.lstms[::2], self.lstms[1::2], strict=True):
            x = torch.cat([norm(lstm(x)[0], style), beside], dim=2)
        return x


class _Predictor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.text_encoder = _DurationEncoder()
        self.lstm = _styled_lstm()
        self.duration_proj = nn.ModuleDict({"linear_layer": nn.Linear(WIDTH, 50)})
        self.shared = _styled_lstm()
        for name in ("F0", "N"):
            blocks = (
                StyledBlock(WIDTH, WIDTH),
                StyledBlock(WIDTH, WIDTH // 2, doubles=True),
                StyledBlock(WIDTH // 2, WIDTH // 2),
            )
            self.add_module(name, nn.ModuleList(blocks))
            self.add_module(f"{name}_proj", nn.Conv1d(WIDTH // 2, 1, 1))

    def durations(self, steered: Tensor, speed: float) -> Tensor:
        """(n,) frames of each phoneme, at least 1"""
        chances = self.duration_proj["linear_layer"](self.lstm(steered)[0]).sigmoid()
        return (chances.sum(2)[0] / speed).round().clamp(min=1).long()

    def curves(self, steered: Tensor, style: Tensor) -> tuple[Tensor, Tensor]:
        """steered: (1, frames, width + style); returns f0 in Hz and energy, (1, 2 * frames)"""
        shared = self.shared(steered)[0].transpose(1, 2)
        curves = []
        for name in ("F0", "N"):
            x = shared
            for block in self.get_submodule(name).children():
                x = block(x, style)
            curves.append(self.get_submodule(f"{name}_proj")(x)[:, 0])
        return curves[0], curves[1]


class _Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.F0_conv = nn.Conv1d(1, 1, 3, stride=2, padding=1)
        self.N_conv = nn.Conv1d(1, 1, 3, stride=2, padding=1)
        self.asr_res = nn.Sequential(nn.Conv1d(WIDTH, 64, 1))
        self.encode = StyledBlock(WIDTH + 2, 1024)
        width = 1024 + 64 + 2
        self.decode = nn.ModuleList([StyledBlock(width, 1024) for _ in range(3)])
        self.decode.append(StyledBlock(width, WIDTH, doubles=True))
        self.generator = _Generator()

    def forward(self, text: Tensor, f0: Tensor, energy: Tensor, style: Tensor) -> Tensor:
        """text: (1, width, frames); f0, energy: (1, 2 * frames); returns (1, frames * SAMPLES_PER_FRAME)"""
        curves = torch.cat([self.F0_conv(f0[:, None]), self.N_conv(energy[:, None])], dim=1)
        x = self.encode(torch.cat([text, curves], dim=1), style)
        beside = torch.cat([self.asr_res(text), curves], dim=1)
        for block in self.decode:
            x = block(torch.cat([x, beside], dim=1), style)
        return self.generator(x, f0, style)


class _Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.m_source = nn.ModuleDict({"l_linear": nn.Linear(_HARMONICS, 1)})
        self.ups = nn.ModuleList(
            [
                nn.ConvTranspose1d(512, 256, 20, stride=10, padding=5),
                nn.ConvTranspose1d(256, 128, 12, stride=6, padding=3),
            ]
        )
        self.noise_convs = nn.ModuleList(
            [nn.Conv1d(_FFT + 2, 256, 12, stride=6, padding=3), nn.Conv1d(_FFT + 2, 128, 1)]
        )
        self.noise_res = nn.ModuleList([SnakeBlock(256, 7), SnakeBlock(128, 11)])
        self.resblocks = nn.ModuleList(
            SnakeBlock(width, kernel) for width in (256, 128) for kernel in (3, 7, 11)
        )
        self.conv_post = nn.Conv1d(128, _FFT + 2, 7, padding=3)
        self.inverse_basis = nn.Parameter(torch.empty(_FFT + 2, 1, _FFT))
        self.window_sum = nn.Parameter(torch.empty(_FFT))  # of the first samples, which are trimmed away

    def forward(self, x: Tensor, f0: Tensor, style: Tensor) -> Tensor:
        spectrum = self._source_spectrum(f0)
        for stage, (upsample, noise_conv, noise_res) in enumerate(
            zip(self.ups, self.noise_convs, self.noise_res, strict=True)
        ):
            x = upsample(F.leaky_relu(x, 0.1))
            if stage == 1:
                x = F.pad(x, (1, 0), mode="reflect")
            x = x + noise_res(noise_conv(spectrum), style)
            x = (
                sum(
                    (block(x, style) for block in self.resblocks[3 * stage : 3 * stage + 3]),
                    start=x.new_zeros(()),
                )
                / 3
            )
        return self._to_wave(self.conv_post(F.leaky_relu(x, 0.01)))

    def _source_spectrum(self, f0: Tensor) -> Tensor:
        """Magnitudes and phases (1, _FFT + 2, 60 * len(f0) + 1) of a harmonic excitation."""
        harmonics = torch.arange(1, _HARMONICS + 1, device=f0.device, dtype=f0.dtype)
        # The export counts phases at the middle of each pitch value and interpolates them linearly.
        cycles = (f0[:, None] * harmonics[:, None] / SAMPLE_RATE) % 1
        phase = cycles.cumsum(2) * (2 * math.pi * SAMPLES_PER_F0)
        phase = F.interpolate(phase, scale_factor=float(SAMPLES_PER_F0), mode="linear")
        voiced = (f0 > _VOICED_HZ).repeat_interleave(SAMPLES_PER_F0, dim=1)
        waves = 0.1 * phase.sin() * voiced[:, None]
        source = torch.tanh(self.m_source["l_linear"](waves.transpose(1, 2)))[..., 0]
        window = torch.hann_window(_FFT, device=f0.device)
        # Phases of bins that hold nothing are those of rounding errors: they differ between FFT libraries.
        bins = torch.stft(
            source, _FFT, _HOP, window=window, center=True, pad_mode="reflect", return_complex=True
        )
        return torch.cat([bins.abs(), bins.angle()], dim=1)

    def _to_wave(self, x: Tensor) -> Tensor:
        size, angle = x[:, : _FFT // 2 + 1].exp(), x[:, _FFT // 2 + 1 :].sin()
        parts = torch.cat([size * angle.cos(), size * angle.sin()], dim=1)
        wave = F.conv_transpose1d(parts, self.inverse_basis, stride=_HOP)[:, 0]
        return wave[:, _FFT // 2 : -(_FFT // 2)] * (_FFT / _HOP)
