"""The teacher's modules with random weights: shapes, durations, halves of the style, checked indices."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from recipes.mini.errors import RecipeError
from recipes.mini.prepare.kokoro import (
    MAX_PHONEMES,
    SAMPLES_PER_F0,
    SAMPLES_PER_FRAME,
    Kokoro,
    Spoken,
    check_phonemes,
)
from recipes.mini.prepare.kokoro_layers import AdaptiveNorm, SnakeBlock, StyledBlock, snake

PHONEMES = torch.tensor([50, 16, 120])


@pytest.fixture(scope="module")
def teacher() -> Kokoro:
    """Of full size, but with durations of one or two frames."""
    with torch.device("meta"):
        model = Kokoro()
    noise = torch.randn(2**20, generator=torch.Generator().manual_seed(0))
    weights = {}
    for name, value in model.state_dict().items():
        fan_in = max(1, value[0].numel()) if value.ndim > 1 else 1
        tiled = noise.repeat(-(-value.numel() // len(noise)))[
            : value.numel()
        ]  # 80 million draws take seconds
        weights[name] = tiled.view(value.shape) * (0.4 / fan_in**0.5)
        if name.endswith(("LayerNorm.weight", "norm.weight")) or ".alpha" in name or name.endswith("gamma"):
            weights[name] = torch.ones(value.shape)
    weights["predictor.duration_proj.linear_layer.bias"] -= 3.5
    weights["predictor.F0_proj.bias"] += 150
    return Kokoro.load(weights, torch.device("cpu"))


def speak(teacher: Kokoro, style: Tensor, speed: float = 1.0) -> Spoken:
    with torch.inference_mode():
        return teacher(PHONEMES, style, speed)


def test_speech_pitch_and_durations_fit_together(teacher: Kokoro) -> None:
    spoken = speak(teacher, torch.randn(256, generator=torch.Generator().manual_seed(1)))
    assert len(spoken.ends) == len(PHONEMES) + 2
    assert (spoken.ends.diff() >= 1).all()
    frames = int(spoken.ends[-1])
    assert spoken.wav.shape == (frames * SAMPLES_PER_FRAME,)
    assert spoken.f0.shape == (frames * SAMPLES_PER_FRAME // SAMPLES_PER_F0,)
    assert spoken.wav.isfinite().all()
    assert spoken.wav.std() > 0


def test_timbre_half_leaves_durations_and_pitch_alone(teacher: Kokoro) -> None:
    generator = torch.Generator().manual_seed(2)
    style = torch.randn(256, generator=generator)
    other = style.clone()
    other[:128] = torch.randn(128, generator=generator)
    first, second = speak(teacher, style), speak(teacher, other)
    assert torch.equal(first.ends, second.ends)
    assert torch.equal(first.f0, second.f0)
    assert not torch.allclose(first.wav, second.wav)
    other[128:] = torch.randn(128, generator=generator)
    assert not torch.equal(first.f0[:10], speak(teacher, other).f0[:10])


def test_slow_speech_is_longer(teacher: Kokoro) -> None:
    style = torch.zeros(256)
    assert speak(teacher, style, 0.5).ends[-1] > speak(teacher, style, 2.0).ends[-1]


@pytest.mark.parametrize(
    "phonemes",
    [
        torch.tensor([178]),
        torch.tensor([-1]),
        torch.tensor([], dtype=torch.int64),
        torch.zeros(MAX_PHONEMES + 1, dtype=torch.int64),
        torch.tensor([1.0]),
        torch.tensor([[1]]),
    ],
)
def test_phonemes_out_of_range_are_refused_before_any_look_up(phonemes: Tensor) -> None:
    with pytest.raises(RecipeError, match="phonemes"):
        check_phonemes(phonemes)


def test_other_weights_are_refused(teacher: Kokoro) -> None:
    weights = dict(teacher.state_dict())
    weights.pop("bert_encoder.bias")
    with pytest.raises(RecipeError, match="bert_encoder"):
        Kokoro.load(weights, torch.device("cpu"))


def test_adaptive_norm_is_a_scaled_and_moved_instance_norm() -> None:
    norm = AdaptiveNorm(3)
    x, style = torch.randn(1, 3, 50), torch.randn(1, 128)
    scale, offset = norm.fc(style)[0].view(2, 3, 1)
    plain = (x - x.mean(2, keepdim=True)) / (x.var(2, correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(norm(x, style), plain * (1 + scale) + offset)


def test_blocks_keep_or_double_the_frames() -> None:
    x, style = torch.randn(1, 6, 11), torch.randn(1, 128)
    assert StyledBlock(6, 6)(x, style).shape == (1, 6, 11)
    assert StyledBlock(6, 4, doubles=True)(x, style).shape == (1, 4, 22)
    assert SnakeBlock(6, 7)(x, style).shape == (1, 6, 11)


def test_snake_adds_a_squared_sine() -> None:
    x, alpha = torch.randn(1, 2, 9), torch.tensor([0.5, 2.0]).view(1, 2, 1)
    torch.testing.assert_close(snake(x, alpha), x + torch.sin(alpha * x) ** 2 / alpha)
