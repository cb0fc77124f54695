from __future__ import annotations

import torch

from light_tts.models.flow.noise import NOISE_FRAMES, fixed_noise


def test_noise_is_what_seed_0_draws_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(1234)
    before = torch.random.get_rng_state()
    noise = fixed_noise(80, torch.device("cpu"))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(0)
    assert torch.equal(noise, torch.randn([1, 80, NOISE_FRAMES])[0])


def test_noise_made_in_inference_serves_training() -> None:
    with torch.inference_mode():
        noise = fixed_noise(2, torch.device("cpu"))
    weight = torch.ones(2, requires_grad=True)
    (weight[:, None] * noise).sum().backward()
    assert weight.grad is not None
