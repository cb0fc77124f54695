from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
import torch

from light_tts.models.flow.export import INPUTS, export_estimator
from light_tts.models.layers.ragged import Frames
from test.models.flow.estimators import Inputs, evaluate, load_estimator

TOLERANCE = 2e-5  # float32 sums in another order; velocities here reach 9


def test_the_exported_estimator_takes_any_batch_and_length(model_dir: Path, tmp_path: Path) -> None:
    estimator, path = load_estimator(model_dir), tmp_path / "estimator.onnx"
    export_estimator(estimator, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for rows, frames in ((2, 37), (4, 120), (1, 9)):
        inputs = Inputs.random(rows, frames, seed=rows)
        lens = torch.tensor([frames, frames // 2, frames - 1, 5][:rows])
        with torch.no_grad():
            expected, _ = evaluate(estimator, inputs, Frames.whole(lens, frames))
        mask = (torch.arange(frames) < lens[:, None])[:, None].float()
        given = (inputs.x, mask, inputs.mu, inputs.t, inputs.spks, inputs.cond)
        (out,) = session.run(None, {n: v.numpy() for n, v in zip(INPUTS, given, strict=True)})
        for row, length in enumerate(lens.tolist()):
            actual = torch.from_numpy(out[row, :, :length])
            torch.testing.assert_close(actual, expected[row, :, :length], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16])
def test_half_precision_is_exported_as_such(model_dir: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "estimator.onnx"
    export_estimator(load_estimator(model_dir).to(dtype), path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert {value.type for value in (*session.get_inputs(), *session.get_outputs())} == {"tensor(float16)"}
