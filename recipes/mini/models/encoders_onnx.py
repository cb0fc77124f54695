"""The two encoders as ONNX files with the inputs and outputs of the released ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from recipes.mini.models import speaker, tokenizer
from recipes.mini.models.onnx_graph import Graph
from recipes.mini.models.speaker import SpeakerShape
from recipes.mini.models.stored import StoredWeights
from recipes.mini.models.tokenizer import TokenizerShape


def export_tokenizer(shape: TokenizerShape, weights: StoredWeights, path: Path) -> None:
    """Write `speech_tokenizer_v2.onnx`: feats (1, 128, T) float32, feats_length (1,) int32 -> indices (1, T') int32."""
    g = Graph(weights)
    mask = _frame_mask(g)
    x = _masked(g, _levelled(g, mask), mask)
    x = g.gelu(g.conv(x, "conv1", stride=2, padding=1))
    mask = _every_second(g, mask)
    x = g.gelu(g.conv(_masked(g, x, mask), "conv2", stride=2, padding=1))
    mask = _every_second(g, mask)
    x = g.op("Transpose", x, perm=[0, 2, 1])
    length = g.size(x, 1)
    bias = _attention_bias(g, mask, length)
    angles = _angles(g, length, shape.width // shape.heads)
    for number in range(shape.blocks):
        x = _token_block(g, f"blocks.{number}", shape, x, mask, bias, angles)
    hidden = g.op("Tanh", g.linear(g.layer_norm(x, "norm"), "project"))
    hidden = g.op("Mul", hidden, g.constant(tokenizer.SATURATION))
    digits = g.op("Cast", g.op("Round", hidden), to=TensorProto.INT32)
    places = (tokenizer.LEVELS ** np.arange(tokenizer.DIGITS)).astype(np.int32)
    digits = g.op("Mul", g.op("Add", digits, g.constant(np.int32(1))), g.constant(places))
    codes = g.op("ReduceSum", digits, g.constant([-1]), keepdims=0)
    inputs = [
        helper.make_tensor_value_info("feats", TensorProto.FLOAT, [1, tokenizer.NUM_MELS, "T"]),
        helper.make_tensor_value_info("feats_length", TensorProto.INT32, [1]),
    ]
    indices = helper.make_tensor_value_info("indices", TensorProto.INT32, [1, "tokens"])
    g.save(path, "speech_tokenizer", inputs, indices, codes)


def export_speaker(shape: SpeakerShape, weights: StoredWeights, path: Path) -> None:
    """Write `campplus.onnx`: input (B, T, 80) float32 -> output (B, 192) float32. weights: `speaker.folded` ones."""
    g = Graph(weights)
    x = g.op("Transpose", "input", perm=[0, 2, 1])
    x = g.op("Relu", g.conv(x, "stem.conv", padding=2))
    outputs = []
    for number in range(shape.blocks):
        x = _speaker_block(g, f"blocks.{number}", shape.width, 1 + number, x)
        outputs.append(x)
    x = g.op("Relu", g.conv(g.op("Concat", *outputs, axis=1), "gather"))
    scores = g.conv(g.op("Tanh", g.conv(x, "attend")), "weigh")
    shares = g.op("Softmax", scores, axis=2)
    mean = g.op("ReduceSum", g.op("Mul", x, shares), g.constant([2]), keepdims=1)
    offset = g.op("Sub", x, mean)
    variance = g.op("Mul", g.op("Mul", offset, offset), shares)
    variance = g.op("ReduceSum", variance, g.constant([2]), keepdims=1)
    deviation = g.op("Sqrt", g.op("Max", variance, g.constant(speaker.VARIANCE_FLOOR)))
    pooled = g.op("Squeeze", g.op("Concat", mean, deviation, axis=1), g.constant([2]))
    normed = g.op("Add", g.op("Mul", pooled, g.weight("norm.weight")), g.weight("norm.bias"))
    embedding = g.linear(normed, "project")
    length = g.op("ReduceL2", embedding, axes=[1], keepdims=1)
    unit = g.op("Div", embedding, g.op("Max", length, g.constant(speaker.LENGTH_FLOOR)))
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["B", "T", speaker.NUM_MELS])]
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["B", speaker.EMBED_DIM])
    g.save(path, "speaker_encoder", inputs, output, unit)


def _frame_mask(g: Graph) -> str:
    """(1, T) float32"""
    position = g.op("Cast", g.count(g.size("feats", 2)), to=TensorProto.INT32)
    length = g.op("Unsqueeze", "feats_length", g.constant([1]))
    return g.to_float(g.op("Less", g.op("Unsqueeze", position, g.constant([0])), length))


def _masked(g: Graph, x: str, mask: str) -> str:
    return g.op("Mul", x, g.op("Unsqueeze", mask, g.constant([1])))


def _levelled(g: Graph, mask: str) -> str:
    absent = g.op("Sub", g.constant(1.0), g.op("Unsqueeze", mask, g.constant([1])))
    inside = g.op("Add", "feats", g.op("Mul", absent, g.constant(tokenizer.OUTSIDE)))
    loudest = g.op("ReduceMax", inside, axes=[1, 2], keepdims=1)
    return g.op("Add", "feats", g.op("Sub", g.constant(tokenizer.LOUDEST), loudest))


def _every_second(g: Graph, mask: str) -> str:
    return g.op("Slice", mask, g.constant([0]), g.constant([2**31]), g.constant([1]), g.constant([2]))


def _attention_bias(g: Graph, mask: str, length: str) -> str:
    """(1, 1, T', T')"""
    position = g.count(length)
    rows = g.op("Unsqueeze", position, g.constant([1]))
    distance = g.op("Abs", g.op("Sub", rows, position))
    far = g.to_float(g.op("Greater", distance, g.constant(np.int64(tokenizer.WINDOW))))
    absent = g.op("Unsqueeze", g.op("Sub", g.constant(1.0), mask), g.constant([1]))
    outside = g.op("Mul", g.op("Max", absent, far), g.constant(tokenizer.OUTSIDE))
    return g.op("Unsqueeze", outside, g.constant([1]))


def _angles(g: Graph, length: str, head_dim: int) -> tuple[str, str]:
    """cos and sin of (T', head_dim / 2)"""
    position = g.op("Unsqueeze", g.to_float(g.count(length)), g.constant([1]))
    angles = g.op("Mul", position, g.constant(tokenizer.rotary_rates(head_dim).numpy()))
    return g.op("Cos", angles), g.op("Sin", angles)


def _token_block(
    g: Graph, name: str, shape: TokenizerShape, x: str, mask: str, bias: str, angles: tuple[str, str]
) -> str:
    attended = _attention(g, name, shape, g.layer_norm(x, f"{name}.attention_norm"), bias, angles)
    x = g.op("Add", x, attended)
    local = g.op("Mul", g.layer_norm(x, f"{name}.conv_norm"), g.op("Unsqueeze", mask, g.constant([2])))
    local = g.op("Transpose", local, perm=[0, 2, 1])
    local = g.op("Transpose", g.conv(local, f"{name}.conv", padding=3, group=shape.width), perm=[0, 2, 1])
    local = g.op("Mul", local, g.op("Sigmoid", local))
    x = g.op("Add", x, g.linear(local, f"{name}.conv_out"))
    inner = g.gelu(g.linear(g.layer_norm(x, f"{name}.inner_norm"), f"{name}.inner"))
    return g.op("Add", x, g.linear(inner, f"{name}.inner_out"))


def _attention(g: Graph, name: str, shape: TokenizerShape, x: str, bias: str, angles: tuple[str, str]) -> str:
    head_dim = shape.width // shape.heads
    together = g.linear(x, f"{name}.query_key_value")
    together = g.op("Reshape", together, g.constant([0, 0, 3, shape.heads, head_dim]))
    query, key, value = (
        g.op("Transpose", g.op("Gather", together, g.constant(np.int64(part)), axis=2), perm=[0, 2, 1, 3])
        for part in range(3)
    )
    query, key = (_rotated(g, part, head_dim, angles) for part in (query, key))
    scores = g.op("MatMul", query, g.op("Transpose", key, perm=[0, 1, 3, 2]))
    scores = g.op("Add", g.op("Mul", scores, g.constant(head_dim**-0.5)), bias)
    attended = g.op("MatMul", g.op("Softmax", scores, axis=-1), value)
    attended = g.op(
        "Reshape", g.op("Transpose", attended, perm=[0, 2, 1, 3]), g.constant([0, 0, shape.width])
    )
    return g.linear(attended, f"{name}.attention_out")


def _rotated(g: Graph, x: str, head_dim: int, angles: tuple[str, str]) -> str:
    cos, sin = angles
    half = head_dim // 2
    first = g.op("Slice", x, g.constant([0]), g.constant([half]), g.constant([-1]))
    second = g.op("Slice", x, g.constant([half]), g.constant([head_dim]), g.constant([-1]))
    turned = (
        g.op("Sub", g.op("Mul", first, cos), g.op("Mul", second, sin)),
        g.op("Add", g.op("Mul", second, cos), g.op("Mul", first, sin)),
    )
    return g.op("Concat", *turned, axis=-1)


def _speaker_block(g: Graph, name: str, width: int, dilation: int, x: str) -> str:
    y = g.conv(x, f"{name}.depthwise", padding=2 * dilation, dilation=dilation, group=width)
    y = g.op("Relu", g.conv(y, f"{name}.pointwise.conv"))
    mean = g.op("ReduceMean", y, axes=[2], keepdims=0)
    gate = g.linear(g.op("Relu", g.linear(mean, f"{name}.squeeze")), f"{name}.excite")
    gate = g.op("Unsqueeze", g.op("Sigmoid", gate), g.constant([2]))
    return g.op("Add", x, g.op("Mul", y, gate))
