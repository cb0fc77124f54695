"""Modules are filled exactly or not at all, quickly, and without a second copy of the weights."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from light_tts.errors import InvalidInput, ModelNotFound, WeightMismatch
from light_tts.models.checkpoint import PARTS, Part, read_weights
from light_tts.models.loader import (
    build,
    compare,
    device_of,
    dtype_of,
    load_flow,
    load_models,
    load_speech_lm,
    load_vocoder,
)
from light_tts.models.model_yaml import read_model_config
from test.support.random_model import manifest_of, write_random_model

CPU = torch.device("cpu")


@pytest.fixture
def copied_dir(model_dir: Path, tmp_path: Path) -> Path:
    """A model directory whose files may be damaged."""
    target = tmp_path / "model"
    shutil.copytree(model_dir, target, copy_function=shutil.copyfile)
    return target


def _rewrite(model_dir: Path, part: Part, change: Callable[[dict[str, Tensor]], None]) -> None:
    weights = torch.load(model_dir / f"{part}.pt", weights_only=True)
    change(weights)
    (model_dir / f"{part}.pt").unlink()
    torch.save(weights, model_dir / f"{part}.pt")


def test_every_weight_of_the_file_is_in_the_modules(model_dir: Path) -> None:
    models = load_models(model_dir, CPU, torch.float32)
    modules: dict[Part, nn.Module] = {"llm": models.speech_lm, "flow": models.flow, "hift": models.vocoder}
    for part, module in modules.items():
        state, weights = module.state_dict(), read_weights(model_dir, part)
        assert state.keys() == weights.keys()
        for name, value in weights.items():
            torch.testing.assert_close(state[name].float(), value, rtol=0, atol=0)


def test_loaded_modules_are_for_inference(model_dir: Path) -> None:
    models = load_models(model_dir, CPU, torch.float32)
    for module in (models.speech_lm, models.flow, models.vocoder):
        assert not any(parameter.requires_grad for parameter in module.parameters())
        assert not any(part.training for part in module.modules())
        tensors = [*module.parameters(), *module.buffers()]
        assert all(tensor.device == CPU for tensor in tensors)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_models_run_in_the_asked_dtype_and_pitch_stays_exact(model_dir: Path, dtype: torch.dtype) -> None:
    models = load_models(model_dir, CPU, dtype)
    for module in (models.speech_lm, models.flow):
        assert {parameter.dtype for parameter in module.parameters()} == {dtype}
        assert {buffer.dtype for buffer in module.buffers()} <= {torch.float32}
    assert models.vocoder.conv_pre.weight.dtype == dtype
    exact = torch.float64 if models.config.version == 3 else torch.float32
    assert {parameter.dtype for parameter in models.vocoder.f0_predictor.parameters()} == {exact}


def test_half_precision_files_load_in_float32(model_dir: Path, tmp_path: Path) -> None:
    write_random_model(tmp_path, manifest_of(model_dir), model_dir, dtype=torch.float16)
    models = load_models(tmp_path, CPU, torch.float32)
    for module in (models.speech_lm, models.flow):
        tensors = [*module.parameters(), *module.buffers()]
        assert {tensor.dtype for tensor in tensors} == {torch.float32}
    assert models.vocoder.conv_pre.weight.dtype == torch.float32


@pytest.mark.parametrize("part", ["llm", "flow"])
def test_float32_weights_stay_mapped_from_the_file(model_dir: Path, part: Part) -> None:
    """A copy would have its own memory; a mapped tensor lies where the file is mapped."""
    config = read_model_config(model_dir)
    module: nn.Module
    if part == "llm":
        module = load_speech_lm(model_dir, config.llm, CPU, torch.float32)
    else:
        module = load_flow(model_dir, config.flow, CPU, torch.float32)
    ranges = _mapped_ranges(model_dir / f"{part}.pt")
    for name, parameter in module.named_parameters():
        assert any(start <= parameter.data_ptr() < end for start, end in ranges), name


def test_weights_in_another_dtype_let_go_of_the_file(model_dir: Path, tmp_path: Path) -> None:
    config = read_model_config(model_dir)
    shutil.copy(model_dir / "flow.pt", tmp_path)  # other tests of this process may hold the model's own
    flow = load_flow(tmp_path, config.flow, CPU, torch.bfloat16)
    assert flow.dtype == torch.bfloat16
    assert _mapped_ranges(tmp_path / "flow.pt") == []


def _mapped_ranges(path: Path) -> list[tuple[int, int]]:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("needs /proc")
    lines = [line.split() for line in maps.read_text().splitlines() if line.endswith(str(path.resolve()))]
    return [(int(line[0].split("-")[0], 16), int(line[0].split("-")[1], 16)) for line in lines]


def test_loading_is_quick(model_dir: Path) -> None:
    start = time.perf_counter()
    load_models(model_dir, CPU, torch.float32)
    assert time.perf_counter() - start < 2.0  # 0.2 s on an idle core


def test_loading_imports_nothing_but_what_importing_the_loader_did(model_dir: Path) -> None:
    """Building on the meta device would pull in sympy: 70 MB and seconds for every process."""
    script = (
        "import sys, torch; from pathlib import Path; from light_tts.models.loader import load_models\n"
        "before = set(sys.modules)\n"
        f"load_models(Path({str(model_dir.resolve())!r}), torch.device('cpu'), torch.float32)\n"
        "print(len(set(sys.modules) - before))"
    )
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 50


def test_an_exported_model_of_plain_safetensors_loads_the_same(model_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(model_dir, tmp_path, copy_function=shutil.copyfile, dirs_exist_ok=True)
    for part in PARTS:
        weights = {name: value.contiguous() for name, value in read_weights(model_dir, part).items()}
        save_file(weights, tmp_path / f"{part}.safetensors")
        (tmp_path / f"{part}.pt").unlink()
    exported, original = (load_models(path, CPU, torch.float32) for path in (tmp_path, model_dir))
    torch.testing.assert_close(exported.flow.state_dict(), original.flow.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(exported.vocoder.state_dict(), original.vocoder.state_dict(), rtol=0, atol=0)


# Weights that do not fit


def test_missing_unexpected_and_misshapen_keys_are_listed(copied_dir: Path) -> None:
    def damage(weights: dict[str, Tensor]) -> None:
        weights["speech_embedding.wait"] = weights.pop("speech_embedding.weight")
        weights["llm_decoder.weight"] = weights["llm_decoder.weight"][:-1]

    _rewrite(copied_dir, "llm", damage)
    config = read_model_config(copied_dir)
    with pytest.raises(WeightMismatch) as caught:
        load_speech_lm(copied_dir, config.llm, CPU, torch.float32)
    message = str(caught.value)
    rows = config.llm.speech_token_size + config.llm.num_extra_ids
    assert "llm.pt does not fit" in message
    assert "1 missing:\n  speech_embedding.weight" in message
    assert "1 unexpected:\n  speech_embedding.wait" in message
    assert f"1 misshapen:\n  llm_decoder.weight: [{rows - 1}, 32], must be [{rows}, 32]" in message


def test_the_list_of_keys_is_cut_but_counted(copied_dir: Path) -> None:
    def rename_all(weights: dict[str, Tensor]) -> None:
        for name in list(weights):
            weights["module." + name] = weights.pop(name)

    _rewrite(copied_dir, "flow", rename_all)
    with pytest.raises(WeightMismatch) as caught:
        load_flow(copied_dir, read_model_config(copied_dir).flow, CPU, torch.float32)
    message = str(caught.value)
    assert "missing:" in message
    assert "unexpected:" in message
    assert " more" in message
    assert message.count("\n") == 2 * 12


@pytest.mark.parametrize(("part", "other"), [("llm", "flow"), ("flow", "hift"), ("hift", "llm")])
def test_swapped_files_are_refused(copied_dir: Path, part: Part, other: Part) -> None:
    (copied_dir / f"{part}.pt").unlink()
    shutil.copyfile(copied_dir / f"{other}.pt", copied_dir / f"{part}.pt")
    with pytest.raises(WeightMismatch, match=rf"{part}\.pt does not fit"):
        load_models(copied_dir, CPU, torch.float32)


def test_weights_of_the_other_version_are_refused(golden: Path, copied_dir: Path) -> None:
    other = "cosyvoice3" if (copied_dir / "cosyvoice2.yaml").exists() else "cosyvoice2"
    (copied_dir / "hift.pt").unlink()
    shutil.copyfile(golden / other / "hift.pt", copied_dir / "hift.pt")
    config = read_model_config(copied_dir)
    with pytest.raises(WeightMismatch, match=r"misshapen:"):
        load_vocoder(copied_dir, config.hift, CPU, torch.float32)


@pytest.mark.parametrize("part", PARTS)
def test_each_missing_file_is_named(copied_dir: Path, part: Part) -> None:
    (copied_dir / f"{part}.pt").unlink()
    with pytest.raises(ModelNotFound, match=rf"{part}\.pt"):
        load_models(copied_dir, CPU, torch.float32)


def test_build_and_compare_use_no_memory(model_dir: Path) -> None:
    config = read_model_config(model_dir)
    for part in PARTS:
        module = build(part, config)
        assert all(parameter.is_meta for parameter in module.parameters())
        assert not compare(module, read_weights(model_dir, part))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_models_load_onto_a_gpu(model_dir: Path) -> None:
    models = load_models(model_dir, torch.device("cuda"), torch.bfloat16)
    for module in (models.speech_lm, models.flow, models.vocoder):
        assert all(tensor.is_cuda for tensor in [*module.parameters(), *module.buffers()])


@pytest.mark.parametrize("name", ["", "foo", "meta", "cpu:1", "cuda:", "cuda:999", "CPU"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"device is '{name}'"):
        device_of(name)


def test_an_unknown_number_type_is_refused() -> None:
    with pytest.raises(InvalidInput, match="dtype is 'int8', allowed are auto, float32, bfloat16, float16"):
        dtype_of("int8")
    assert dtype_of("auto") == torch.float32
    assert device_of("cpu") == torch.device("cpu")
