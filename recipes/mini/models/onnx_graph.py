"""Write ONNX graphs node by node: no exporter to depend on, and every node is one that is meant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from recipes.mini.models.stored import StoredWeights

_OPSET = 17
_IR_VERSION = 8

Attribute = int | float | str | Sequence[int]


class Graph:
    """Nodes in the order of their making; names of values are handed around as str."""

    def __init__(self, weights: StoredWeights) -> None:
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._made: dict[str, str] = {}  # weights that are there already

    def op(self, kind: str, *inputs: str, **attributes: Attribute) -> str:
        """Add a node; returns the name of its only output."""
        output = f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, value: NDArray[np.generic] | np.generic | Sequence[int] | float) -> str:
        """Lists become int64, floats float32."""
        array = np.asarray(value, np.float32) if isinstance(value, float) else np.asarray(value)
        name = f"constant_{len(self._initializers)}"
        self._initializers.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, name: str, transposed: bool = False) -> str:
        """A stored weight as float32; the runtime unpacks it once, when it loads the file."""
        key = f"{name}{'.T' if transposed else ''}"
        if key not in self._made:
            self._made[key] = self._unpacked(name, transposed)
        return self._made[key]

    def _unpacked(self, name: str, transposed: bool) -> str:
        value = self._weights.values[name].numpy()
        packed = self.constant(value.T if transposed else value)
        if value.dtype == np.float32:
            return packed
        unpacked = self.op("Cast", packed, to=TensorProto.FLOAT)
        if name not in self._weights.scales:
            return unpacked
        scale = self._weights.scales[name].numpy()
        return self.op("Mul", unpacked, self.constant(scale.T if transposed else scale))

    def linear(self, x: str, name: str) -> str:
        """x: (..., inputs)"""
        product = self.op("MatMul", x, self.weight(f"{name}.weight", transposed=True))
        return self.op("Add", product, self.weight(f"{name}.bias"))

    def conv(
        self, x: str, name: str, *, stride: int = 1, padding: int = 0, dilation: int = 1, group: int = 1
    ) -> str:
        return self.op(
            "Conv", x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias"),
            strides=[stride], pads=[padding, padding], dilations=[dilation], group=group,
        )  # fmt: skip

    def layer_norm(self, x: str, name: str) -> str:
        weight, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=1e-5)

    def gelu(self, x: str) -> str:
        half = self.op("Mul", x, self.constant(0.5))
        scaled = self.op("Mul", x, self.constant(0.5**0.5))
        return self.op("Mul", half, self.op("Add", self.op("Erf", scaled), self.constant(1.0)))

    def size(self, x: str, axis: int) -> str:
        """() int64: how long `x` is along `axis`."""
        return self.op("Gather", self.op("Shape", x), self.constant(np.int64(axis)))

    def count(self, length: str) -> str:
        """(length,) int64: 0, 1, 2, ..."""
        return self.op("Range", self.constant(np.int64(0)), length, self.constant(np.int64(1)))

    def to_float(self, x: str) -> str:
        return self.op("Cast", x, to=TensorProto.FLOAT)

    def save(
        self,
        path: Path,
        name: str,
        inputs: Sequence[onnx.ValueInfoProto],
        output: onnx.ValueInfoProto,
        last: str,
    ) -> None:
        """last: the value that `output` names"""
        self._nodes.append(helper.make_node("Identity", [last], [output.name]))
        graph = helper.make_graph(self._nodes, name, list(inputs), [output], self._initializers)
        opsets = [helper.make_opsetid("", _OPSET)]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="light-tts"
        )
        onnx.checker.check_model(model)
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, path)
