"""The released models' size: every key and shape of the 0.5B models, and a random one loaded from disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from light_tts.models.checkpoint import LM_HEAD, PARTS, Part, plain_weights
from light_tts.models.config import ModelConfig
from light_tts.models.loader import build, compare, load_models
from light_tts.models.model_yaml import read_model_config
from test.support.random_model import Manifest, full_size_manifest, write_random_model

# What the released checkpoints hold, by module: keys in the file and numbers without the tied head.
RELEASED = {
    2: {"llm": (295, 505_803_812), "flow": (1121, 112_549_360), "hift": (328, 20_821_295)},
    3: {"llm": (293, 506_148_480), "flow": (330, 332_257_120), "hift": (328, 20_779_887)},
}


@pytest.fixture(scope="module", params=[2, 3])
def manifest(request: pytest.FixtureRequest, golden: Path) -> Manifest:
    return full_size_manifest(golden, int(request.param))


@pytest.fixture
def config(manifest: Manifest, golden: Path, tmp_path: Path) -> ModelConfig:
    """Read from a yaml and json on disk, as for a real model directory."""
    empty = replace(manifest, shapes={part: {} for part in PARTS})
    return read_model_config(write_random_model(tmp_path, empty, golden / "cosyvoice2"))


@pytest.mark.parametrize("part", PARTS)
def test_every_key_and_shape_is_that_of_the_released_model(
    manifest: Manifest, config: ModelConfig, part: Part
) -> None:
    stored = {name: torch.empty(shape, device="meta") for name, shape in manifest.shapes[part].items()}
    numbers = sum(value.numel() for name, value in stored.items() if name != LM_HEAD)
    assert (len(stored), numbers) == RELEASED[manifest.version][part]
    module = build(part, config)
    difference = compare(module, plain_weights(part, stored, Path(part)))
    assert difference.lines() == []


@pytest.mark.parametrize("part", PARTS)
def test_weight_norm_spelled_back_gives_the_released_keys(
    manifest: Manifest, config: ModelConfig, part: Part
) -> None:
    """The same comparison from the modules' side: only convolutions of the vocoder have weight norm."""
    ours = {name: tuple(value.shape) for name, value in build(part, config).state_dict().items()}
    released = dict(manifest.shapes[part])
    released.pop(LM_HEAD, None)
    for name in [name for name in ours if name not in released]:
        shape, stem = ours.pop(name), name.removesuffix(".weight")
        ours[f"{stem}.parametrizations.weight.original0"] = (shape[0], *[1] * (len(shape) - 1))
        ours[f"{stem}.parametrizations.weight.original1"] = shape
    assert ours == released


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_random_model_of_full_size_loads_from_disk(
    manifest: Manifest, golden: Path, tmp_path: Path
) -> None:
    source = golden / f"cosyvoice{manifest.version}"
    folder = write_random_model(
        tmp_path / "model", manifest, source, dtype=torch.bfloat16, file_format="safetensors"
    )
    try:
        models = load_models(folder, torch.device("cpu"), torch.bfloat16)
        count = sum(
            p.numel() for m in (models.speech_lm, models.flow) for p in [*m.parameters(), *m.buffers()]
        )
        assert count == sum(RELEASED[manifest.version][part][1] for part in ("llm", "flow"))
    finally:
        for path in folder.glob("*.safetensors"):
            path.unlink()  # a gigabyte and a half that nobody wants to keep
