"""The doctor finds every kind of damage, names it, and never raises or runs anything."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from torch import Tensor

from light_tts.doctor import Diagnosis, Level, diagnose, print_diagnosis, run
from light_tts.doctor.machine import check_machine
from light_tts.doctor.weights import CHUNK, is_finite
from light_tts.models.checkpoint import EMBED_TOKENS, LM_HEAD, PARTS, Part
from test.support.random_model import full_size_manifest, manifest_of, write_random_model

Change = Callable[[dict[str, Tensor]], None]


@pytest.fixture
def copied_dir(model_dir: Path, tmp_path: Path) -> Path:
    target = tmp_path / "model"
    shutil.copytree(model_dir, target, copy_function=shutil.copyfile)
    return target


def _rewrite(model_dir: Path, part: Part, change: Change) -> None:
    weights = torch.load(model_dir / f"{part}.pt", weights_only=True)
    change(weights)
    (model_dir / f"{part}.pt").unlink()
    torch.save(weights, model_dir / f"{part}.pt")


def _errors(diagnosis: Diagnosis) -> dict[str, str]:
    """Part to its errors' text."""
    errors: dict[str, str] = {}
    for finding in diagnosis.findings:
        if finding.level is Level.ERROR:
            text = "\n".join([finding.message, *finding.details])
            errors[finding.part] = errors.get(finding.part, "") + text
    return errors


def _printed(model_dir: Path | None, *, verbose: bool = False) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=200)
    status = run(model_dir, console, verbose=verbose)
    assert isinstance(console.file, io.StringIO)
    return status, console.file.getvalue()


# Healthy


def test_a_healthy_model_has_no_errors_and_every_part_is_mentioned(model_dir: Path) -> None:
    diagnosis = diagnose(model_dir)
    assert _errors(diagnosis) == {}
    assert diagnosis.num_warnings == 0
    parts = {finding.part for finding in diagnosis.findings}
    model = {
        "config",
        "llm",
        "flow",
        "hift",
        "weights",
        "tokenizer",
        "speech tokenizer",
        "speaker encoder",
        "voices",
    }
    assert parts == model | {"machine", "gpu", "libraries"}


def test_the_status_is_0_and_figures_are_printed(model_dir: Path) -> None:
    status, text = _printed(model_dir)
    assert status == 0
    assert "no errors, 0 warnings" in text
    assert "float32" in text
    assert "million parameters" in text
    assert f"torch {torch.__version__}" in text


def test_a_random_model_of_another_size_is_healthy(model_dir: Path, tmp_path: Path) -> None:
    write_random_model(
        tmp_path, manifest_of(model_dir), model_dir, dtype=torch.bfloat16, file_format="safetensors"
    )
    diagnosis = diagnose(tmp_path)
    assert _errors(diagnosis) == {}
    assert "bfloat16" in diagnosis.of("llm")[0].message


def test_without_a_model_the_machine_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("light_tts.doctor.checkup.bundled_model_dir", lambda: None)
    diagnosis = diagnose(None)
    assert diagnosis.healthy
    assert [finding.level for finding in diagnosis.of("model")] == [Level.WARN]
    assert any("CPU cores" in finding.message for finding in diagnosis.of("machine"))


def test_without_a_model_the_bundled_voice_is_checked(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("light_tts.doctor.checkup.bundled_model_dir", lambda: model_dir)
    assert len(diagnose(None).of("flow")) == 2


# Weights


def test_every_key_that_does_not_fit_is_named(copied_dir: Path) -> None:
    def damage(weights: dict[str, Tensor]) -> None:
        weights["conv_post.biass"] = weights.pop("conv_post.bias")
        weights["conv_pre.bias"] = weights["conv_pre.bias"][:-1]

    _rewrite(copied_dir, "hift", damage)
    errors = _errors(diagnose(copied_dir))
    assert errors.keys() == {"hift"}
    assert "1 missing:\n  conv_post.bias" in errors["hift"]
    assert "1 unexpected:\n  conv_post.biass" in errors["hift"]
    assert "1 misshapen:\n  conv_pre.bias: [47], must be [48]" in errors["hift"]


def test_verbose_names_all_keys_and_otherwise_20(copied_dir: Path) -> None:
    def rename_all(weights: dict[str, Tensor]) -> None:
        for name in list(weights):
            weights["module." + name] = weights.pop(name)

    _rewrite(copied_dir, "flow", rename_all)
    count = len(torch.load(copied_dir / "flow.pt", weights_only=True))
    status, short = _printed(copied_dir)
    assert status == 1
    assert short.count("module.") == 20
    assert f"and {count - 20} more" in short
    assert _printed(copied_dir, verbose=True)[1].count("module.") == count


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_found(copied_dir: Path, value: float) -> None:
    def damage(weights: dict[str, Tensor]) -> None:
        weights["input_embedding.weight"][7, 3] = value

    _rewrite(copied_dir, "flow", damage)
    errors = _errors(diagnose(copied_dir))
    assert errors.keys() == {"flow"}
    assert "input_embedding.weight" in errors["flow"]


def test_weight_norm_without_a_direction_is_found(copied_dir: Path) -> None:
    def damage(weights: dict[str, Tensor]) -> None:
        weights["conv_post.parametrizations.weight.original1"][2] = 0.0

    _rewrite(copied_dir, "hift", damage)
    assert "conv_post.weight" in _errors(diagnose(copied_dir))["hift"]


def test_finiteness_is_exact_beyond_a_sum() -> None:
    assert is_finite(torch.full((4,), 3e38))  # whose sum is infinite
    assert is_finite(torch.full((4, 4), 60_000.0, dtype=torch.float16))
    assert is_finite(torch.zeros(3, 0))
    assert is_finite(torch.ones(6, 4).t())
    last_is_nan = torch.zeros(CHUNK + 1)
    last_is_nan[-1] = float("nan")
    assert not is_finite(last_is_nan)


def test_an_untied_head_is_a_warning(copied_dir: Path) -> None:
    def untie(weights: dict[str, Tensor]) -> None:
        weights[LM_HEAD] = weights[EMBED_TOKENS] + 1

    _rewrite(copied_dir, "llm", untie)
    diagnosis = diagnose(copied_dir)
    assert diagnosis.healthy
    warnings = [finding.message for finding in diagnosis.of("llm") if finding.level is Level.WARN]
    assert len(warnings) == 1
    assert "differs" in warnings[0]


def test_a_training_checkpoint_is_called_one(copied_dir: Path) -> None:
    _rewrite(copied_dir, "llm", lambda weights: weights.update(epoch=torch.tensor(3.0)))
    assert "training checkpoint" in _errors(diagnose(copied_dir))["llm"]


def test_damage_of_all_parts_is_told_at_once(copied_dir: Path) -> None:
    for part in PARTS:
        path = copied_dir / f"{part}.pt"
        path.write_bytes(path.read_bytes()[:-5000])
    (copied_dir / "campplus.onnx").unlink()
    assert _errors(diagnose(copied_dir)).keys() == {*PARTS, "speaker encoder"}


def test_a_pickle_with_code_is_reported_and_not_run(copied_dir: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    class RunsCode:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return os.mkdir, (str(marker),)

    (copied_dir / "flow.pt").unlink()
    torch.save({"weight": RunsCode()}, copied_dir / "flow.pt")
    assert "unsafe_file" in _errors(diagnose(copied_dir))["flow"]
    assert not marker.exists()


# Everything else in the directory


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("cosyvoiceN.yaml", "config"),
        ("CosyVoice-BlankEN/config.json", "config"),
        ("llm.pt", "llm"),
        ("flow.pt", "flow"),
        ("hift.pt", "hift"),
        ("campplus.onnx", "speaker encoder"),
        ("speech_tokenizer_vN.onnx", "speech tokenizer"),
    ],
)
@pytest.mark.parametrize("damage", ["missing", "garbage", "empty"])
def test_each_file_that_is_missing_or_damaged_is_named(
    copied_dir: Path, file: str, part: str, damage: str
) -> None:
    version = "2" if (copied_dir / "cosyvoice2.yaml").exists() else "3"
    path = copied_dir / file.replace("N.", f"{version}.")
    path.unlink()
    if damage != "missing":
        path.write_bytes(b"\x93garbage\xff" * 100 if damage == "garbage" else b"")
    errors = _errors(diagnose(copied_dir))
    assert errors.keys() == {part}
    assert path.name in errors[part]


def test_a_missing_tokenizer_is_named(copied_dir: Path) -> None:
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (copied_dir / "CosyVoice-BlankEN" / name).unlink()
    assert "vocab.json" in _errors(diagnose(copied_dir))["tokenizer"]


def test_a_tokenizer_with_more_tokens_than_the_embedding_has_rows_is_found(copied_dir: Path) -> None:
    path = copied_dir / "CosyVoice-BlankEN/tokenizer.json"
    text = path.read_text("utf-8")
    assert '"!":0,' in text.replace(" ", "")
    path.write_text(text.replace('"!": 0,', '"!": 0, "impossible": 700000,'), "utf-8")
    assert "rows" in _errors(diagnose(copied_dir))["tokenizer"]


def test_swapped_onnx_files_are_found(copied_dir: Path) -> None:
    tokenizer = next(copied_dir.glob("speech_tokenizer*.onnx"))
    shutil.copyfile(copied_dir / "campplus.onnx", copied_dir / "other.onnx")
    shutil.copyfile(tokenizer, copied_dir / "campplus.onnx")
    (copied_dir / "other.onnx").replace(tokenizer)
    assert _errors(diagnose(copied_dir)).keys() == {"speech tokenizer", "speaker encoder"}


def test_every_voice_of_the_model_is_tried(copied_dir: Path, golden: Path) -> None:
    shutil.copyfile(golden / "fixtures/prompt_24k.wav", copied_dir / "bob.wav")
    voices = [{"name": name, "wav": f"{name}.wav", "text": "Hello."} for name in ("bob", "gone")]
    (copied_dir / "prompts.json").write_text(json.dumps(voices), "utf-8")
    torch.save({"anna": {"embedding": torch.randn(1, 192)}}, copied_dir / "spk2info.pt")
    diagnosis = diagnose(copied_dir)
    assert _errors(diagnosis).keys() == {"voices"}
    assert "gone" in _errors(diagnosis)["voices"]
    assert diagnosis.of("voices")[-1].message == "2 can be used: bob, anna"


@pytest.mark.parametrize(
    ("name", "content"),
    [("prompts.json", b"{"), ("prompts.json", b'[{"name": "x"}]'), ("spk2info.pt", b"junk")],
)
def test_an_unusable_list_of_voices_is_an_error(copied_dir: Path, name: str, content: bytes) -> None:
    (copied_dir / name).write_bytes(content)
    assert name in _errors(diagnose(copied_dir))["voices"]


def test_a_speaker_of_the_wrong_size_is_an_error(copied_dir: Path) -> None:
    torch.save({"anna": {"embedding": torch.randn(1, 17)}}, copied_dir / "spk2info.pt")
    assert "anna" in _errors(diagnose(copied_dir))["voices"]


def test_a_path_that_is_no_directory_is_named(tmp_path: Path) -> None:
    status, text = _printed(tmp_path / "nowhere")
    assert status == 1
    assert "nowhere is not a directory" in text


def test_names_from_a_file_are_not_read_as_markup() -> None:
    console = Console(file=io.StringIO(), width=200)
    diagnosis = Diagnosis()
    diagnosis.error("llm", "1 unexpected", ("[/bold] [link=x]",))
    print_diagnosis(diagnosis, console)
    assert isinstance(console.file, io.StringIO)
    assert "[/bold] [link=x]" in console.file.getvalue()


# The machine


@pytest.mark.parametrize(
    ("architectures", "level"), [(["sm_80", "sm_90"], Level.OK), (["sm_80"], Level.WARN)]
)
def test_a_gpu_is_shown_and_must_be_one_that_torch_has_code_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, architectures: list[str], level: Level
) -> None:
    gpu = SimpleNamespace(name="Test GPU", total_memory=80e9, major=9, minor=0)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpu)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: architectures)
    diagnosis = Diagnosis()
    check_machine(diagnosis, tmp_path)
    (finding,) = diagnosis.of("gpu")
    assert finding.level is level
    assert "Test GPU, 80 GB, capability 9.0" in finding.message


def test_a_cuda_build_without_a_gpu_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    diagnosis = Diagnosis()
    check_machine(diagnosis, tmp_path)
    assert [finding.level for finding in diagnosis.of("gpu")] == [Level.WARN]


# Full size

MILLIONS = {2: 639.2, 3: 859.2}


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("version", [2, 3])
def test_a_model_of_full_size_is_checked_where_it_lies(golden: Path, tmp_path: Path, version: int) -> None:
    manifest = full_size_manifest(golden, version)
    folder = write_random_model(tmp_path, manifest, golden / f"cosyvoice{version}", dtype=torch.float16)
    try:
        status, text = _printed(folder)
        assert status == 0, text
        assert f"{MILLIONS[version]} million parameters" in text
    finally:
        for path in folder.glob("*.pt"):
            path.unlink()
