from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from light_tts.errors import CorruptFile, ModelNotFound, UnsafeFile
from light_tts.models.onnx_session import load_onnx

SIZE = 300
WEIGHTS = np.arange(SIZE, dtype=np.float32)


def adder(path: Path, weights_in: str | None = None, nodes: list[onnx.NodeProto] | None = None) -> Path:
    """Write the model y = x + w; with `weights_in`, w is in another file."""
    weights = numpy_helper.from_array(WEIGHTS, "w")
    if weights_in is not None:
        weights.ClearField("raw_data")
        weights.data_location = TensorProto.EXTERNAL
        for key, value in (("location", weights_in), ("offset", "0"), ("length", str(4 * SIZE))):
            weights.external_data.add(key=key, value=value)
    graph = helper.make_graph(
        nodes or [helper.make_node("Add", ["x", "w"], ["y"])],
        "adder",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [SIZE])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("weights_in", [None, "w.bin"])
def test_a_model_may_keep_its_weights_beside_itself(tmp_path: Path, weights_in: str | None) -> None:
    WEIGHTS.tofile(tmp_path / "w.bin")
    model = load_onnx(adder(tmp_path / "a.onnx", weights_in), 1)
    np.testing.assert_array_equal(model.run(np.ones(SIZE, dtype=np.float32)), WEIGHTS + 1)


@pytest.mark.parametrize("location", ["../w.bin", "sub/../../w.bin", "ABSOLUTE", "link.bin"])
def test_a_model_cannot_read_a_file_outside_its_directory(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    WEIGHTS.tofile(tmp_path / "w.bin")
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    path = adder(folder / "a.onnx", str(tmp_path / "w.bin") if location == "ABSOLUTE" else location)
    with pytest.raises(UnsafeFile, match=r"a\.onnx refers to a file outside"):
        load_onnx(path, 1)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"none\.onnx does not exist"):
        load_onnx(tmp_path / "none.onnx", 1)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.999])
def test_a_truncated_file_is_corrupt(
    tmp_path: Path, golden: Path, keep: float, capfd: pytest.CaptureFixture[str]
) -> None:
    data = (golden / "cosyvoice2/campplus.onnx").read_bytes()
    path = tmp_path / "campplus.onnx"
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(CorruptFile, match=r"campplus\.onnx"):
        load_onnx(path, 1)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("data", [b"no model", b"\x00" * 1000, np.random.default_rng(0).bytes(10_000)])
def test_a_file_that_is_no_model_is_corrupt(
    tmp_path: Path, data: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(data)
    with pytest.raises(CorruptFile, match=r"a\.onnx"):
        load_onnx(path, 1)
    assert capfd.readouterr() == ("", "")


def test_an_operator_of_an_unknown_library_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("Backdoor", ["x", "w"], ["y"], domain="evil.example")
    with pytest.raises(CorruptFile, match="no usable ONNX model"):
        load_onnx(adder(tmp_path / "a.onnx", nodes=[node]), 1)


def test_another_number_of_inputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match="has inputs x, must have 2"):
        load_onnx(adder(tmp_path / "a.onnx"), 2)


def test_a_failing_run_is_a_named_error_without_a_word_on_stderr(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = load_onnx(adder(tmp_path / "a.onnx"), 1)
    with pytest.raises(CorruptFile, match=r"a\.onnx cannot be run"):
        model.run(np.ones(SIZE + 1, dtype=np.float32))
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA is available here"
)
def test_the_cpu_serves_where_cuda_is_not_available(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = load_onnx(adder(tmp_path / "a.onnx"), 1, device="cuda:1")
    assert model.session.get_providers() == ["CPUExecutionProvider"]
    assert "no CUDA support" in caplog.text


def test_cuda_is_asked_for_by_its_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    class FakeSession:
        def __init__(self, *arguments: object, providers: object, **options: object) -> None:
            asked.append(providers)

        def get_inputs(self) -> list[object]:
            return []

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", FakeSession)
    for device in ("cuda", "cuda:1", "cpu"):
        load_onnx(adder(tmp_path / "a.onnx"), 0, device)
    cpu = "CPUExecutionProvider"
    assert asked == [
        [("CUDAExecutionProvider", {"device_id": "0"}), cpu],
        [("CUDAExecutionProvider", {"device_id": "1"}), cpu],
        [cpu],
    ]


def test_loading_and_running_print_nothing(golden: Path) -> None:
    program = (
        "import sys, numpy, pathlib\n"
        "from light_tts.models.onnx_session import load_onnx\n"
        "model = load_onnx(pathlib.Path(sys.argv[1]), 1)\n"
        "model.run(numpy.ones((1, 100, 80), dtype=numpy.float32))\n"
    )
    command = [sys.executable, "-c", program, str(golden / "cosyvoice2/campplus.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=golden.parent.parent)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_library_reports_to_nobody(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    script = f"from light_tts.models.onnx_session import *; load_onnx(Path({str(adder(tmp_path / 'm.onnx'))!r}), 1)"
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    subprocess.run([sys.executable, "-c", script], check=True, env={**environment, "TMPDIR": str(temporary)})
    assert list(temporary.iterdir()) == []  # its telemetry keeps a session there
