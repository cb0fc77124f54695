"""Weights are read as numbers only, whoever wrote the file, and end up under the modules' names."""

from __future__ import annotations

import io
import os
import pickle
import random
import shutil
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn, serialization
from torch.nn.utils import parametrizations

from light_tts.errors import CorruptFile, LightTTSError, ModelNotFound, UnsafeFile, WeightMismatch
from light_tts.models.checkpoint import (
    EMBED_TOKENS,
    LM_HEAD,
    PARTS,
    Part,
    open_checkpoint,
    plain_weights,
    read_weights,
)


def _save(folder: Path, value: object, name: str = "flow.pt") -> Path:
    torch.save(value, folder / name)
    return folder / name


class _RunsCode:
    """Pickles to a call that creates `marker`."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.marker),)


# What is read


@pytest.mark.parametrize("part", PARTS)
def test_the_recorded_weights_are_read_as_they_are_stored(model_dir: Path, part: Part) -> None:
    stored = torch.load(model_dir / f"{part}.pt", weights_only=True)
    weights = read_weights(model_dir, part)
    unchanged = [name for name in weights if name in stored]
    assert len(unchanged) > 10
    for name in unchanged:
        assert torch.equal(weights[name], stored[name])


def test_safetensors_are_preferred_and_give_the_same(model_dir: Path, tmp_path: Path) -> None:
    shutil.copyfile(model_dir / "hift.pt", tmp_path / "hift.pt")
    from_pickle = read_weights(tmp_path, "hift")
    save_file(
        {name: value.contiguous() for name, value in from_pickle.items()}, tmp_path / "hift.safetensors"
    )
    (tmp_path / "hift.pt").unlink()  # mapped: writing into it would change the weights
    (tmp_path / "hift.pt").write_bytes(b"not read any more")
    from_safetensors = read_weights(tmp_path, "hift")
    assert from_safetensors.keys() == from_pickle.keys()
    assert all(torch.equal(from_safetensors[name], from_pickle[name]) for name in from_pickle)


def test_float32_weights_are_mapped_and_not_copied(tmp_path: Path) -> None:
    _save(tmp_path, {"big": torch.zeros(1 << 24)})  # 64 MB
    before = _anonymous_memory()
    weights = read_weights(tmp_path, "flow")
    assert float(weights["big"].sum()) == 0.0
    assert _anonymous_memory() - before < 16 << 20


def _anonymous_memory() -> int:
    """Bytes of this process that are not backed by a file."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("needs /proc")
    line = next(line for line in status.read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def test_parameters_and_ordered_dictionaries_are_accepted(tmp_path: Path) -> None:
    state = nn.Linear(3, 2).state_dict()
    assert isinstance(state, OrderedDict)
    state["extra"] = nn.Parameter(torch.ones(2))
    _save(tmp_path, state)
    weights = read_weights(tmp_path, "flow")
    assert weights.keys() == {"weight", "bias", "extra"}
    assert not any(value.requires_grad for value in weights.values())


def test_a_file_written_without_checksums_is_read(tmp_path: Path) -> None:
    checksums = serialization.get_crc32_options()
    serialization.set_crc32_options(False)
    try:
        _save(tmp_path, {"weight": torch.arange(3.0)})
    finally:
        serialization.set_crc32_options(checksums)
    assert read_weights(tmp_path, "flow")["weight"].tolist() == [0.0, 1.0, 2.0]


# The transformations


def test_the_language_models_unused_head_is_dropped(model_dir: Path) -> None:
    assert LM_HEAD in open_checkpoint(model_dir / "llm.pt")
    assert LM_HEAD not in read_weights(model_dir, "llm")


def test_a_head_of_another_shape_than_the_embedding_is_refused(tmp_path: Path) -> None:
    _save(tmp_path, {LM_HEAD: torch.ones(4, 2), EMBED_TOKENS: torch.ones(3, 2)}, "llm.pt")
    with pytest.raises(WeightMismatch, match="lm_head"):
        read_weights(tmp_path, "llm")


@pytest.mark.parametrize(
    "layer", [nn.Conv1d(3, 4, 5), nn.ConvTranspose1d(3, 4, 5)], ids=["conv", "transposed"]
)
@pytest.mark.parametrize("spelling", ["parametrizations", "old"])
@pytest.mark.parametrize("prefix", ["", "generator."])
def test_weight_norm_is_folded_as_torch_does_it(
    layer: nn.Conv1d | nn.ConvTranspose1d, spelling: str, prefix: str, tmp_path: Path
) -> None:
    with torch.no_grad():
        normed = parametrizations.weight_norm(type(layer)(3, 4, 5))
        normed.parametrizations["weight"].original0.mul_(3.0)
    names = ("parametrizations.weight.original0", "parametrizations.weight.original1")
    new_names = names if spelling == "parametrizations" else ("weight_g", "weight_v")
    state = normed.state_dict()
    for name, new_name in zip(names, new_names, strict=True):
        state[f"{new_name}"] = state.pop(name)
    _save(tmp_path, {f"{prefix}ups.0.{name}": value for name, value in state.items()}, "hift.pt")
    weights = read_weights(tmp_path, "hift")
    assert weights.keys() == {"ups.0.weight", "ups.0.bias"}
    torch.testing.assert_close(weights["ups.0.weight"], normed.weight.detach(), rtol=1e-6, atol=1e-7)


def test_weight_norm_of_half_precision_files_is_folded_in_float32(tmp_path: Path) -> None:
    g, v = torch.rand(4, 1, 1).half(), torch.randn(4, 3, 5).half()
    _save(tmp_path, {"c.weight_g": g, "c.weight_v": v}, "hift.pt")
    expected = v.float() * g.float() / v.float().pow(2).sum((1, 2), keepdim=True).sqrt()
    folded = read_weights(tmp_path, "hift")["c.weight"]
    assert folded.dtype == torch.float32
    torch.testing.assert_close(folded, expected, rtol=1e-6, atol=1e-7)


def test_generator_is_removed_wherever_it_occurs() -> None:
    raw = {"a.generator.generator.b": torch.ones(1), "generator_b": torch.ones(1)}
    assert plain_weights("hift", raw, Path("hift.pt")).keys() == {"a.b", "generator_b"}


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"generator.a.bias": (1,), "a.bias": (1,)}, "same weights"),
        ({"a.weight_g": (4, 1, 1)}, "only one"),
        ({"a.parametrizations.weight.original1": (4, 1, 1)}, "only one"),
        ({"a.weight_g": (4, 1, 1), "a.weight_v": (4, 2, 3), "a.weight": (4, 2, 3)}, "both"),
        ({"a.weight_g": (2, 1, 1), "a.weight_v": (4, 2, 3)}, "do not belong together"),
        ({"a.weight_g": (1, 4, 1), "a.weight_v": (4, 2, 3)}, "do not belong together"),
        ({"a.weight_g": (4,), "a.weight_v": (4,)}, "do not belong together"),
    ],
)
def test_broken_weight_norm_is_named(shapes: dict[str, tuple[int, ...]], message: str) -> None:
    raw = {name: torch.ones(shape) for name, shape in shapes.items()}
    with pytest.raises(WeightMismatch, match=message):
        plain_weights("hift", raw, Path("hift.pt"))


# Files that are refused


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_file_is_named(tmp_path: Path, part: Part) -> None:
    with pytest.raises(ModelNotFound, match=rf"{part}\.safetensors nor {part}\.pt"):
        read_weights(tmp_path, part)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    _save(tmp_path, {"weight": torch.ones(2), "evil": _RunsCode(marker)})
    with pytest.raises(UnsafeFile, match=r"flow\.pt asks for \w+\.mkdir"):
        read_weights(tmp_path, "flow")
    assert not marker.exists()
    torch.load(tmp_path / "flow.pt", weights_only=False)  # the file does run code where it is trusted
    assert marker.exists()


def test_a_bare_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "flow.pt").write_bytes(pickle.dumps(_RunsCode(marker)))
    with pytest.raises(CorruptFile, match="not a torch checkpoint"):
        read_weights(tmp_path, "flow")
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [2, 4])
def test_code_inside_a_hand_made_archive_is_refused(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "marker"
    with zipfile.ZipFile(tmp_path / "flow.pt", "w") as archive:
        archive.writestr("flow/data.pkl", pickle.dumps({"a": _RunsCode(marker)}, protocol=protocol))
        archive.writestr("flow/version", "3\n")
    with pytest.raises(UnsafeFile, match=r"flow\.pt asks"):
        read_weights(tmp_path, "flow")
    assert not marker.exists()


def test_torchs_own_allow_list_is_not_enough(tmp_path: Path) -> None:
    """torch would build a bytearray of any size out of a few bytes; a file of tensors has none."""
    _save(tmp_path, {"weight": torch.ones(2), "other": bytearray(8)})
    with pytest.raises(UnsafeFile, match="bytearray"):
        read_weights(tmp_path, "flow")


def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "flow.pt", "w") as archive:
        archive.writestr("flow/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("flow/constants.pkl", pickle.dumps((), protocol=2))
    with pytest.raises(UnsafeFile, match="TorchScript"):
        read_weights(tmp_path, "flow")


def test_the_format_of_old_torch_is_named(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "flow.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(CorruptFile, match=r"torch < 1\.6"):
        read_weights(tmp_path, "flow")


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"\xff" * 5000, b"version https://git-lfs.github.com/spec/v1"]
)
def test_garbage_is_called_corrupt(tmp_path: Path, suffix: str, content: bytes) -> None:
    (tmp_path / f"flow.{suffix}").write_bytes(content)
    with pytest.raises(CorruptFile, match=rf"flow\.{suffix}"):
        read_weights(tmp_path, "flow")


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_truncated_file_is_called_corrupt(tmp_path: Path, suffix: str, share: float) -> None:
    weights = {f"layer.{index}": torch.randn(100) for index in range(50)}
    path = tmp_path / f"flow.{suffix}"
    if suffix == "pt":
        torch.save(weights, path)
    else:
        save_file(weights, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(CorruptFile, match=rf"flow\.{suffix}"):
        read_weights(tmp_path, "flow")


def test_compressed_and_overlapping_archives_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "flow.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("flow/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("flow/data/0", b"\x00" * (1 << 20))
    with pytest.raises(CorruptFile, match="compressed"):
        read_weights(tmp_path, "flow")


def test_a_tensor_larger_than_its_numbers_is_refused(tmp_path: Path) -> None:
    _save(tmp_path, {"weight": torch.ones(1).expand(1 << 40)})
    with pytest.raises(CorruptFile, match="not as many numbers"):
        read_weights(tmp_path, "flow")


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ([torch.ones(1)], CorruptFile, "holds a list"),
        (torch.ones(1), CorruptFile, "holds a Tensor"),
        ({"epoch": 3, "weight": torch.ones(1)}, WeightMismatch, "training checkpoint .*epoch"),
        ({"step": 3, "weight": torch.ones(1)}, WeightMismatch, "training checkpoint .*step"),
        ({"model": {"weight": torch.ones(1)}}, WeightMismatch, "'model' is a dict"),
        ({"weight": [1.0, 2.0]}, WeightMismatch, "'weight' is a list"),
        ({"weight": torch.ones(2, dtype=torch.int8)}, WeightMismatch, "int8"),
    ],
)
def test_a_file_of_something_else_says_what_it_holds(
    tmp_path: Path, value: object, error: type[Exception], message: str
) -> None:
    _save(tmp_path, value)
    with pytest.raises(error, match=message):
        read_weights(tmp_path, "flow")


def test_random_damage_never_ends_in_an_unnamed_error(golden: Path, tmp_path: Path) -> None:
    source = io.BytesIO()
    small = {name: value for name, value in _first(read_weights(golden / "cosyvoice3", "flow"), 8).items()}
    torch.save(small, source)
    pristine, chance = source.getvalue(), random.Random(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(pristine)
        for _ in range(chance.choice([1, 3, 30])):
            # The directory at the end and the pickle at the start matter more than the numbers between.
            near = chance.choice([0, len(damaged) - 2000])
            damaged[min(near + chance.randrange(2000), len(damaged) - 1)] = chance.randrange(256)
        (tmp_path / "flow.pt").unlink(missing_ok=True)
        (tmp_path / "flow.pt").write_bytes(damaged)
        try:
            read_weights(tmp_path, "flow")
        except LightTTSError:
            refused += 1
    assert refused > 50


def _first(weights: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    return {name: weights[name].clone() for name in sorted(weights)[:count]}
