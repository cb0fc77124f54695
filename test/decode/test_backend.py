from __future__ import annotations

import logging

import pytest

from light_tts.decode.backend import announce, choose_flow_backend


@pytest.mark.parametrize(
    ("load_trt", "device", "installed", "name", "reason"),
    [
        (False, "cuda:0", True, "graphs", "load_trt is False"),
        (True, "cpu", True, "torch", "runs on cpu"),
        (True, "cuda:1", False, "graphs", "not installed"),
        (True, "cuda:0", True, "tensorrt", "is installed"),
    ],
)
def test_a_gpu_runs_graphs_or_tensorrt_and_the_reason_is_given(
    load_trt: bool, device: str, installed: bool, name: str, reason: str
) -> None:
    backend = choose_flow_backend(load_trt, device, tensorrt_installed=installed)
    assert backend.name == name
    assert reason in backend.reason


def test_full_precision_is_computed_by_torch() -> None:
    for wanted in (False, True):
        backend = choose_flow_backend(wanted, "cuda:0", tensorrt_installed=True, dtype="float32")
        assert backend.name == "torch"


def test_the_choice_is_said_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        announce(choose_flow_backend(True, "cpu"))
    assert [record.getMessage() for record in caplog.records] == [
        "flow estimator runs on torch: TensorRT needs a GPU, this process runs on cpu"
    ]
