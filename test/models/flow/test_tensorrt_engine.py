"""All around TensorRT but TensorRT itself: onnxruntime stands for the engine, which has the same inputs and output."""

from __future__ import annotations

import threading
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import Tensor

from light_tts.models.flow.export import INPUTS, export_estimator
from light_tts.models.flow.flow_state import FlowInput, FlowPrompt
from light_tts.models.flow.guarded_flow import GuardedFlow
from light_tts.models.flow.tensorrt_engine import EngineEstimator, cached_plan, plan_name
from light_tts.models.flow.token_to_mel import Flow
from light_tts.models.loader import load_flow
from light_tts.models.model_yaml import read_model_config
from test.decode.harness import make_prompt


class OnnxEngine:
    """broken: gives NaN"""

    def __init__(self, path: Path) -> None:
        self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.broken, self.calls = False, 0

    def __call__(self, *inputs: Tensor) -> Tensor:
        self.calls += 1
        given = {n: v.float().contiguous().numpy() for n, v in zip(INPUTS, inputs, strict=True)}
        out = torch.from_numpy(self._session.run(None, given)[0])
        return out * torch.nan if self.broken else out


@pytest.fixture
def flow(model_dir: Path) -> Flow:
    return load_flow(model_dir, read_model_config(model_dir).flow, torch.device("cpu"), torch.float32)


@pytest.fixture
def engine(flow: Flow, tmp_path: Path) -> OnnxEngine:
    path = tmp_path / "estimator.onnx"
    export_estimator(flow.decoder.estimator, path)
    return OnnxEngine(path)


def inputs() -> list[FlowInput]:
    prompts: list[FlowPrompt] = [make_prompt(37), make_prompt(10, 1)]
    return [FlowInput(torch.arange(n), prompt) for n, prompt in zip((60, 33), prompts, strict=True)]


@torch.inference_mode()
def test_whole_utterances_go_through_the_engine_and_equal_torch(flow: Flow, engine: OnnxEngine) -> None:
    guarded = GuardedFlow(flow, EngineEstimator(flow.decoder.estimator, engine), flow, lambda: None)
    for actual, expected in zip(guarded(inputs()), flow(inputs()), strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)
    assert engine.calls == flow.cfg.num_steps


@torch.inference_mode()
def test_streaming_masks_and_what_is_too_short_stay_with_torch(flow: Flow, engine: OnnxEngine) -> None:
    estimator = EngineEstimator(flow.decoder.estimator, engine)
    guarded = GuardedFlow(flow, estimator, flow, lambda: None)
    short = [FlowInput(torch.tensor([5]), FlowPrompt.without_recording(torch.ones(192)))]
    for streaming, given in ((True, inputs()), (False, short)):
        for actual, expected in zip(guarded(given, streaming), flow(given, streaming), strict=True):
            torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)
    assert engine.calls == 0


@torch.inference_mode()
def test_what_is_no_number_is_computed_again_and_counted(flow: Flow, engine: OnnxEngine) -> None:
    counted: list[int] = []
    estimator = EngineEstimator(flow.decoder.estimator, engine)
    guarded = GuardedFlow(flow, estimator, flow, lambda: counted.append(1))
    engine.broken = True
    for actual, expected in zip(guarded(inputs()), flow(inputs()), strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)
    assert len(counted) == 2


def test_one_of_several_builds_and_the_others_take_it(tmp_path: Path) -> None:
    built, results = [], []

    def build() -> bytes:
        built.append(1)
        return b"plan"

    path = tmp_path / "engines" / "estimator.plan"
    threads = [threading.Thread(target=lambda: results.append(cached_plan(path, build))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [b"plan"] * 5
    assert len(built) == 1


def test_a_build_that_fails_leaves_no_plan(tmp_path: Path) -> None:
    def build() -> bytes:
        raise RuntimeError("no memory")

    path = tmp_path / "estimator.plan"
    with pytest.raises(RuntimeError):
        cached_plan(path, build)
    assert not path.exists()
    assert cached_plan(path, lambda: b"later") == b"later"


def test_other_weights_gpus_and_versions_are_other_plans() -> None:
    names = {
        plan_name(*kind) for kind in ((b"a", "H 1", "10.1"), (b"b", "H 1", "10.1"), (b"a", "H 2", "10.1"))
    }
    assert len(names | {plan_name(b"a", "H 1", "10.2")}) == 4
    assert "/" not in plan_name(b"a", "Quadro RTX 6000/8000", "10.1")
    assert not any(" " in name for name in names)
