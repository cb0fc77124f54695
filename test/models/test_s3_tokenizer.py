from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from light_tts.models.s3_tokenizer import S3Tokenizer, S3TokenizerConfig


@pytest.fixture(scope="module")
def recorded(golden: Path) -> dict[str, Tensor]:
    return load_file(golden / "fixtures/s3tokenizer_v2.safetensors")


@pytest.fixture(scope="module")
def tokenizer(golden: Path) -> S3Tokenizer:
    known: dict[str, Any] = json.loads((golden / "fixtures/s3tokenizer_v2.json").read_text("utf-8"))["config"]
    names = S3TokenizerConfig.__dataclass_fields__
    with torch.device("meta"):
        model = S3Tokenizer(S3TokenizerConfig(**{name: known[name] for name in names}))
    weights = torch.load(golden / "fixtures/s3tokenizer_v2.pt", weights_only=True)
    model.load_state_dict(weights, assign=True, strict=True)
    return model.eval()


def test_codes_and_hidden_states_equal_the_recording(
    tokenizer: S3Tokenizer, recorded: dict[str, Tensor]
) -> None:
    with torch.inference_mode():
        hidden, lengths = tokenizer.encoder(recorded["mel"], torch.tensor([recorded["mel"].shape[-1]]))
        torch.testing.assert_close(hidden, recorded["hidden"], atol=1e-4, rtol=0)
        torch.testing.assert_close(
            tokenizer.quantizer.before_rounding(hidden), recorded["fsq_pre_round"], atol=1e-4, rtol=0
        )
        assert torch.equal(tokenizer.quantizer(hidden), recorded["code"].long())
    assert lengths.tolist() == [recorded["code"].shape[-1]]


@pytest.mark.parametrize("frames", [[40, 37, 4], [1, 2, 3], [5, 40, 39]])
def test_a_padded_row_equals_the_row_alone(tokenizer: S3Tokenizer, frames: list[int]) -> None:
    torch.manual_seed(0)
    batch = torch.randn(len(frames), 128, max(frames))  # the padding is noise, not zeros
    with torch.inference_mode():
        hidden, lengths = tokenizer.encoder(batch, torch.tensor(frames))
        for row, num in enumerate(frames):
            alone, length = tokenizer.encoder(batch[row : row + 1, :, :num], torch.tensor([num]))
            assert int(lengths[row]) == int(length) == alone.shape[1] == (num + 3) // 4
            torch.testing.assert_close(hidden[row, : alone.shape[1]], alone[0], atol=1e-5, rtol=0)


def test_the_first_number_is_the_least_significant_digit(tokenizer: S3Tokenizer) -> None:
    codebook = tokenizer.quantizer._codebook.project_down
    target = torch.tensor([2.0, 0, 0, 0, 0, 0, 0, -2.0])
    hidden = torch.linalg.lstsq(codebook.weight, (target - codebook.bias)[:, None]).solution[:, 0]
    with torch.inference_mode():
        code = int(tokenizer.quantizer(hidden))
    assert code == 2 + sum(3**place for place in range(1, 7)) + 0 * 3**7


def test_the_released_size_has_the_released_keys(golden: Path) -> None:
    manifest = json.loads((golden / "manifest_s3tokenizer_v2.json").read_text("utf-8"))
    config = manifest["config"]
    names = S3TokenizerConfig.__dataclass_fields__
    assert S3TokenizerConfig() == S3TokenizerConfig(**{name: config[name] for name in names})
    with torch.device("meta"):
        state = S3Tokenizer(S3TokenizerConfig()).state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    assert shapes == {name: tuple(value["shape"]) for name, value in manifest["state_dict"].items()}


def test_it_can_be_trained(tokenizer: S3Tokenizer) -> None:
    torch.manual_seed(0)
    with torch.enable_grad():
        hidden, _ = tokenizer.encoder(torch.randn(2, 128, 40), torch.tensor([40, 31]))
        tokenizer.quantizer.before_rounding(hidden).square().mean().backward()
    assert all(parameter.grad is not None for parameter in tokenizer.parameters())
    tokenizer.zero_grad()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_runs_in_half_precision(
    tokenizer: S3Tokenizer, recorded: dict[str, Tensor], dtype: torch.dtype
) -> None:
    half = copy.deepcopy(tokenizer).to(dtype)
    with torch.inference_mode():
        codes, _ = half(recorded["mel"].to(dtype), torch.tensor([recorded["mel"].shape[-1]]))
    same = float((codes == recorded["code"]).float().mean())
    assert same > 0.7
