from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file

from light_tts.errors import CorruptFile, ModelNotFound, PromptTooLong
from light_tts.models.speech_tokenizer import SpeechTokenizer


def fixed_answer(path: Path, answer: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Path:
    """A model that gives `answer` whatever it hears; its names are unlike the released ones."""
    constant = helper.make_node("Constant", [], ["out"], value=numpy_helper.from_array(answer))
    kind = helper.np_dtype_to_tensor_dtype(answer.dtype)
    graph = helper.make_graph(
        [constant],
        "fixed",
        [
            helper.make_tensor_value_info("a", TensorProto.FLOAT, [1, 128, "T"]),
            helper.make_tensor_value_info("b", TensorProto.INT32, [1]),
        ],
        [helper.make_tensor_value_info("out", kind, answer.shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("version", [2, 3])
def test_tokens_equal_the_recording(golden: Path, version: int) -> None:
    recorded = load_file(golden / "fixtures/audio.safetensors")
    path = golden / f"cosyvoice{version}/speech_tokenizer_v{version}.onnx"
    tokens = SpeechTokenizer(path, 2187)(recorded["whisper128"][0])
    assert tokens.dtype == torch.int64
    assert torch.equal(tokens, recorded[f"v{version}.speech_token"][0].long())


@pytest.mark.parametrize("frames", [1, 49, 50, 51, 52, 3000])
def test_four_frames_are_one_token(golden: Path, frames: int) -> None:
    tokenizer = SpeechTokenizer(golden / "cosyvoice2/speech_tokenizer_v2.onnx", 2187)
    assert tokenizer(torch.randn(128, frames)).shape == (-(-frames // 4),)


def test_more_than_30_s_are_refused(golden: Path) -> None:
    tokenizer = SpeechTokenizer(golden / "cosyvoice2/speech_tokenizer_v2.onnx", 2187)
    with pytest.raises(PromptTooLong, match=r"30\.0 s, limit 30 s"):
        tokenizer(torch.zeros(128, 3001))


def test_int64_answers_and_other_names_are_accepted(tmp_path: Path) -> None:
    path = fixed_answer(tmp_path / "t.onnx", np.arange(3, dtype=np.int64)[None])
    assert SpeechTokenizer(path, 3)(torch.zeros(128, 12)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("token", [-1, 3])
def test_a_token_that_the_other_models_do_not_know_is_refused(tmp_path: Path, token: int) -> None:
    path = fixed_answer(tmp_path / "t.onnx", np.array([[0, token, 2]], dtype=np.int32))
    with pytest.raises(CorruptFile, match=rf"speech token {token}; the model directory knows 0 to 2"):
        SpeechTokenizer(path, 3)(torch.zeros(128, 12))


@pytest.mark.parametrize("answer", [np.zeros((1, 4), dtype=np.int32), np.zeros((1, 3), dtype=np.float32)])
def test_an_answer_of_another_length_or_type_is_refused(
    tmp_path: Path, answer: np.ndarray[tuple[int, ...], np.dtype[np.generic]]
) -> None:
    path = fixed_answer(tmp_path / "t.onnx", answer)
    with pytest.raises(CorruptFile, match="for 12 frames, not 3 integers"):
        SpeechTokenizer(path, 3)(torch.zeros(128, 12))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"t\.onnx"):
        SpeechTokenizer(tmp_path / "t.onnx", 3)
