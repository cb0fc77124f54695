"""The parity run itself must notice whatever is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from test.parity import __main__ as parity
from test.parity.report import Report


@pytest.fixture
def folder(golden: Path, tmp_path: Path) -> Path:
    """A copy of the recordings that may be spoilt; the model directories are links until then."""
    (tmp_path / "fixtures").mkdir()
    for path in (golden / "fixtures").iterdir():
        (tmp_path / "fixtures" / path.name).symlink_to(path)
    for version in (2, 3):
        (tmp_path / f"cosyvoice{version}").mkdir()
        for path in (golden / f"cosyvoice{version}").iterdir():
            (tmp_path / f"cosyvoice{version}" / path.name).symlink_to(path)
    return tmp_path


def failures(folder: Path, monkeypatch: pytest.MonkeyPatch, stage: str) -> Report:
    """Run one stage only; what the others cover is then missing, and not looked at."""
    monkeypatch.setattr(parity, "STAGES", (stage,))
    with torch.inference_mode():
        return parity.run(folder)


def own_copy(path: Path) -> Path:
    """Replace a link by a copy."""
    target = path.resolve()
    path.unlink()
    shutil.copy(target, path)
    return path


def spoil_weight(folder: Path) -> None:
    path = own_copy(folder / "cosyvoice2" / "hift.pt")
    weights = torch.load(path, weights_only=True)
    name = next(
        key for key in weights if key.endswith("resblocks.3.convs1.1.parametrizations.weight.original1")
    )
    weights[name] = weights[name] * 1.01
    torch.save(weights, path)


def spoil_tensor(folder: Path) -> None:
    path = own_copy(folder / "fixtures" / "cv3_hift.safetensors")
    tensors = load_file(path)
    tensors["wav_final"][0, 4000] += 0.01
    save_file(tensors, path)


def spoil_meta(folder: Path) -> None:
    path = own_copy(folder / "fixtures" / "cv2_hift.json")
    document = json.loads(path.read_text("utf-8"))
    document["meta"]["noise_seed"] += 1
    path.write_text(json.dumps(document), encoding="utf-8")


def spoil_shape_list(folder: Path) -> None:
    path = own_copy(folder / "fixtures" / "cv2_hift.json")
    document = json.loads(path.read_text("utf-8"))
    document["tensors"]["f0"] = ["float32", [1, 19]]
    path.write_text(json.dumps(document), encoding="utf-8")


def add_tensor(folder: Path) -> None:
    path = own_copy(folder / "fixtures" / "cv2_hift.safetensors")
    save_file(load_file(path) | {"new_case": torch.zeros(3)}, path)


def add_leaf(folder: Path) -> None:
    path = own_copy(folder / "fixtures" / "cv3_hift.json")
    document = json.loads(path.read_text("utf-8"))
    document["meta"]["new_number"] = 5
    path.write_text(json.dumps(document), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "recording"),
    [
        (spoil_weight, "cv2_hift"),
        (spoil_tensor, "cv3_hift"),
        (spoil_meta, "cv2_hift"),
        (spoil_shape_list, "cv2_hift"),
        (add_tensor, "cv2_hift"),
        (add_leaf, "cv3_hift"),
    ],
)
def test_a_spoilt_number_or_an_unknown_case_fails(
    folder: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None], recording: str
) -> None:
    spoil(folder)
    failed = {row.case.split()[0].split(".")[0] for row in failures(folder, monkeypatch, "hift").failures}
    healthy = {"cv2_hift", "cv3_hift"} - {recording}
    assert any(case.startswith(recording[:3]) for case in failed)
    assert not any(case in healthy for case in failed)


def test_a_recording_that_no_stage_knows_fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "fixtures" / "cv4_new.json").write_text("{}", encoding="utf-8")
    report = failures(folder, monkeypatch, "hift")
    assert ("cv4_new", "not covered by any check") in {(row.case, row.difference) for row in report.failures}


def test_a_broken_model_fails_its_stage_and_not_the_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_copy(folder / "cosyvoice2" / "hift.pt").write_bytes(b"broken")
    report = failures(folder, monkeypatch, "hift")
    assert any(row.case == "hift" and "hift.pt" in row.difference for row in report.failures)


def test_nothing_to_check_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["check-parity", str(tmp_path)])
    assert parity.main() == 2
    (tmp_path / "fixtures").mkdir()
    assert parity.main() == 1
