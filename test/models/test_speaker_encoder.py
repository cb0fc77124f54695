from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file

from light_tts.errors import CorruptFile, ModelNotFound
from light_tts.models.speaker_encoder import SpeakerEncoder


@pytest.mark.parametrize("version", [2, 3])
def test_the_embedding_equals_the_recording(golden: Path, version: int) -> None:
    recorded = load_file(golden / "fixtures/audio.safetensors")
    encoder = SpeakerEncoder(golden / f"cosyvoice{version}/campplus.onnx", 192)
    embedding = encoder(recorded["fbank80"])
    assert embedding.dtype == torch.float32
    torch.testing.assert_close(embedding[None], recorded[f"v{version}.spk_embedding"], atol=1e-4, rtol=0)


def test_an_embedding_of_another_size_is_refused(golden: Path) -> None:
    encoder = SpeakerEncoder(golden / "cosyvoice2/campplus.onnx", 256)
    with pytest.raises(CorruptFile, match=r"\[1, 192\], not 256 numbers"):
        encoder(torch.randn(100, 80))


def test_an_embedding_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    answer = numpy_helper.from_array(np.full((1, 192), np.nan, dtype=np.float32))
    graph = helper.make_graph(
        [helper.make_node("Constant", [], ["out"], value=answer)],
        "nan",
        [helper.make_tensor_value_info("in", TensorProto.FLOAT, [1, "T", 80])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 192])],
    )
    path = tmp_path / "campplus.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    with pytest.raises(CorruptFile, match="not finite"):
        SpeakerEncoder(path, 192)(torch.randn(100, 80))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"campplus\.onnx"):
        SpeakerEncoder(tmp_path / "campplus.onnx", 192)
