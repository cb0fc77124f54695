from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from light_tts.models.config import UNetConfig
from light_tts.models.flow.unet import ConditionalUNet
from light_tts.models.layers.ragged import Frames
from test.models.flow.estimators import CHUNK, Inputs, evaluate, load_estimator, recording_of, whole
from test.parity.recording import Recording

TOLERANCE = 2e-5  # the reference's own float32 noise is 8e-6 (tolerance.json, flow.est.out)
RELEASED = UNetConfig(320, 80, 256, 64, n_blocks=4, num_mid_blocks=12, num_heads=8)


@pytest.fixture(scope="module")
def unet(golden: Path) -> ConditionalUNet:
    estimator = load_estimator(golden / "cosyvoice2")
    assert isinstance(estimator, ConditionalUNet)
    return estimator


@pytest.fixture(scope="module")
def recording(golden: Path) -> Recording:
    return recording_of(golden / "cosyvoice2")


@pytest.mark.parametrize(("name", "chunk"), [("est.out", 0), ("est.out_stream", CHUNK)])
def test_matches_the_recorded_reference(
    unet: ConditionalUNet, recording: Recording, name: str, chunk: int
) -> None:
    out = whole(unet, Inputs.recorded(recording), chunk)
    torch.testing.assert_close(out, recording.tensor(name), atol=TOLERANCE, rtol=0)


def test_released_size_has_the_released_keys_and_shapes(golden: Path) -> None:
    with torch.device("meta"):
        shapes = {key: list(value.shape) for key, value in ConditionalUNet(RELEASED).state_dict().items()}
    manifest = json.loads((golden / "manifest_cosyvoice2.json").read_text())
    prefix = "decoder.estimator."
    listed = manifest["modules"]["flow"]["state_dict"]
    assert shapes == {
        key.removeprefix(prefix): value["shape"] for key, value in listed.items() if key.startswith(prefix)
    }


def test_gradients_reach_every_weight_and_input() -> None:
    torch.manual_seed(0)
    unet = ConditionalUNet(UNetConfig(320, 80, 16, 8, n_blocks=1, num_mid_blocks=1, num_heads=2))
    inputs = Inputs.random(2, 20)
    for value in (inputs.x, inputs.mu, inputs.spks, inputs.cond):
        value.requires_grad_()
    out, _ = evaluate(unet, inputs, Frames.whole(torch.tensor([20, 13]), 20))
    out.square().mean().backward()
    gradients = [parameter.grad for parameter in unet.parameters()]
    gradients += [value.grad for value in (inputs.x, inputs.mu, inputs.spks, inputs.cond)]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close(golden: Path, recording: Recording, dtype: torch.dtype) -> None:
    unet = load_estimator(golden / "cosyvoice2").to(dtype)
    expected = recording.tensor("est.out")
    out = whole(unet, Inputs.recorded(recording).to(dtype))
    assert out.dtype == dtype
    error = (out.float() - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert error < 0.03


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_equals_cpu(golden: Path, recording: Recording) -> None:
    unet = load_estimator(golden / "cosyvoice2").cuda()
    inputs = Inputs.recorded(recording)
    frames = Frames.whole(torch.tensor([117, 80]), 117, CHUNK)
    moved = Inputs(*(value.cuda() for value in (inputs.x, inputs.mu, inputs.t, inputs.spks, inputs.cond)))
    out, _ = evaluate(unet, moved, frames)
    torch.testing.assert_close(out[0].cpu(), recording.tensor("est.out_stream")[0], atol=1e-2, rtol=0)  # TF32
