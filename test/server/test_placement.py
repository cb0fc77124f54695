from __future__ import annotations

from types import SimpleNamespace

import pynvml
import pytest

from light_tts.config import ServerConfig
from light_tts.server import placement
from light_tts.server.placement import GpuMemory, count_gpus, gpu_memory, table


@pytest.fixture
def _four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that knows four GPUs; GPU i uses i bytes of 100."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(placement, "_torch_is_for_cpu", lambda: False)
    for name in ("nvmlInit", "nvmlShutdown"):
        monkeypatch.setattr(pynvml, name, lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 4)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda name: 77)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda gpu: SimpleNamespace(used=gpu, total=100))


@pytest.mark.usefixtures("_four_gpus")
@pytest.mark.parametrize(
    ("visible", "expected"),
    [(None, 4), ("0,1,2", 3), ("2", 1), ("", 0), ("-1", 0), ("1,9,2", 1), ("GPU-8932f937,0", 2)],
)
def test_only_gpus_that_cuda_will_see_count(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: int
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert count_gpus() == expected


@pytest.mark.usefixtures("_four_gpus")
def test_memory_is_of_the_gpus_in_cudas_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1,GPU-x")
    assert gpu_memory(3) == [GpuMemory(0, 3, 100), GpuMemory(1, 1, 100), GpuMemory(2, 77, 100)]
    assert gpu_memory(1)[0].free == 97
    assert gpu_memory(0) == []


def test_without_a_driver_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(placement, "_torch_is_for_cpu", lambda: False)
    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    assert count_gpus() == 0
    assert gpu_memory(2) == []


@pytest.mark.usefixtures("_four_gpus")
def test_a_torch_for_the_cpu_uses_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "_torch_is_for_cpu", lambda: True)
    assert count_gpus() == 0


def test_the_table_has_a_line_per_process() -> None:
    config = ServerConfig(num_gpus=3, decode_process_num=2, decode_max_batch_size=4, decode_paral_num=2)
    assert [line.split()[:3] for line in table(config)[1:]] == [
        ["encode", "0", "cpu"],
        ["llm", "0", "cuda:0"],
        ["decode", "0", "cuda:1"],
        ["decode", "1", "cuda:2"],
    ]
    assert table(config)[-1].endswith("2 batches of 4")
