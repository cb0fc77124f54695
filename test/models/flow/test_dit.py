from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from light_tts.models.config import DiTConfig
from light_tts.models.flow.dit import DiT, DiTBlock
from light_tts.models.flow.estimator_state import Carry
from light_tts.models.layers.attention import Rotation
from light_tts.models.layers.ragged import Frames
from test.models.flow.estimators import CHUNK, Inputs, evaluate, load_estimator, recording_of, whole
from test.parity.recording import Recording

TOLERANCE = 2e-5  # the reference's own float32 noise is 2e-5 (tolerance.json, flow.est.out)
RELEASED = DiTConfig(dim=1024, depth=22, heads=16, dim_head=64, ff_mult=2)


@pytest.fixture(scope="module")
def dit(golden: Path) -> DiT:
    estimator = load_estimator(golden / "cosyvoice3")
    assert isinstance(estimator, DiT)
    return estimator


@pytest.fixture(scope="module")
def recording(golden: Path) -> Recording:
    return recording_of(golden / "cosyvoice3")


@pytest.mark.parametrize(("name", "chunk"), [("est.out", 0), ("est.out_stream", CHUNK)])
def test_matches_the_recorded_reference(dit: DiT, recording: Recording, name: str, chunk: int) -> None:
    out = whole(dit, Inputs.recorded(recording), chunk)
    torch.testing.assert_close(out, recording.tensor(name), atol=TOLERANCE, rtol=0)


def test_released_size_has_the_released_keys_and_shapes(golden: Path) -> None:
    with torch.device("meta"):
        shapes = {key: list(value.shape) for key, value in DiT(RELEASED).state_dict().items()}
    manifest = json.loads((golden / "manifest_cosyvoice3.json").read_text())
    prefix = "decoder.estimator."
    listed = manifest["modules"]["flow"]["state_dict"]
    assert shapes == {
        key.removeprefix(prefix): value["shape"] for key, value in listed.items() if key.startswith(prefix)
    }


def test_gradients_reach_every_weight_and_input() -> None:
    torch.manual_seed(0)
    dit = DiT(DiTConfig(dim=16, depth=2, heads=2, dim_head=8, ff_mult=2))
    inputs = Inputs.random(2, 20)
    for value in (inputs.x, inputs.mu, inputs.spks, inputs.cond):
        value.requires_grad_()
    out, _ = evaluate(dit, inputs, Frames.whole(torch.tensor([20, 13]), 20))
    out.square().mean().backward()
    gradients = [parameter.grad for parameter in dit.parameters()]
    gradients += [value.grad for value in (inputs.x, inputs.mu, inputs.spks, inputs.cond)]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close(golden: Path, recording: Recording, dtype: torch.dtype) -> None:
    dit = load_estimator(golden / "cosyvoice3").to(dtype)
    expected = recording.tensor("est.out")
    out = whole(dit, Inputs.recorded(recording).to(dtype))
    assert out.dtype == dtype
    error = (out.float() - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert error < 0.03


def test_rotary_frequencies_stay_exact_in_half_precision(golden: Path) -> None:
    exact = load_estimator(golden / "cosyvoice3").state_dict()["rotary_embed.inv_freq"]
    lowered = load_estimator(golden / "cosyvoice3").bfloat16().half()
    assert torch.equal(lowered.state_dict()["rotary_embed.inv_freq"], exact)
    assert lowered.state_dict()["proj_out.weight"].dtype == torch.float16


def test_positions_are_told_by_the_first_head_alone(dit: DiT) -> None:
    """Rotating keys and queries by the same angle changes nothing, so only distances matter."""
    block = dit.transformer_blocks[0]
    assert isinstance(block, DiTBlock)
    x = torch.randn(1, 9, 48, generator=torch.Generator().manual_seed(0))
    frequencies = dit.rotary_embed.inv_freq

    def heads(first_position: int) -> tuple[Tensor, Tensor]:
        positions = first_position + torch.arange(9)[None]
        rotation = Rotation.at(positions, frequencies, torch.float32)
        carry = Carry(Frames.whole(torch.tensor([9]), 9), None, keep=True)
        out = block.attn(x, None, carry, rotation)
        state = carry.next_state()
        assert state is not None
        return out, state.past[:, 0, 0]

    (out, keys), (shifted_out, shifted_keys) = heads(0), heads(40)
    torch.testing.assert_close(out, shifted_out, atol=TOLERANCE, rtol=0)
    assert (keys[:, 0] - shifted_keys[:, 0]).abs().max() > 0.1
    assert torch.equal(keys[:, 1:], shifted_keys[:, 1:])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_equals_cpu(golden: Path, recording: Recording) -> None:
    dit = load_estimator(golden / "cosyvoice3").cuda()
    inputs = Inputs.recorded(recording)
    frames = Frames.whole(torch.tensor([117, 80]), 117, CHUNK)
    moved = Inputs(*(value.cuda() for value in (inputs.x, inputs.mu, inputs.t, inputs.spks, inputs.cond)))
    out, _ = evaluate(dit, moved, frames)
    torch.testing.assert_close(out[0].cpu(), recording.tensor("est.out_stream")[0], atol=1e-2, rtol=0)  # TF32
