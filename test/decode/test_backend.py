from __future__ import annotations

import logging

import pytest

from light_tts.decode.backend import announce, choose_flow_backend


@pytest.mark.parametrize(
    ("load_trt", "device", "installed", "reason"),
    [
        (False, "cuda:0", True, "load_trt is False"),
        (True, "cpu", True, "runs on cpu"),
        (True, "cuda:1", False, "not installed"),
        (True, "cuda:0", True, "no engine"),
    ],
)
def test_torch_runs_and_the_reason_is_given(
    load_trt: bool, device: str, installed: bool, reason: str
) -> None:
    backend = choose_flow_backend(load_trt, device, tensorrt_installed=installed)
    assert backend.name == "torch"
    assert reason in backend.reason


def test_the_choice_is_said_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        announce(choose_flow_backend(True, "cpu"))
    assert [record.getMessage() for record in caplog.records] == [
        "flow estimator runs on torch: TensorRT needs a GPU, this process runs on cpu"
    ]
