from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from light_tts.errors import InvalidInput
from light_tts.threads import calm_thread_waits, single_threaded, use_threads


@single_threaded()
def failing() -> None:
    assert torch.get_num_threads() == 1
    raise RuntimeError


def test_one_thread_inside_and_as_many_as_before_outside() -> None:
    torch.set_num_threads(2)
    try:
        with pytest.raises(RuntimeError):
            failing()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
)
def test_the_users_own_setting_wins(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], expected: str | None
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    calm_thread_waits()
    assert os.environ.get("GOMP_SPINCOUNT") == expected


def test_the_command_sets_it_before_torch_is_loaded() -> None:
    code = "import sys, light_tts.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("number", [0, -3, 10**20])
def test_an_impossible_number_of_threads_is_refused(number: int) -> None:
    with pytest.raises(InvalidInput, match=rf"threads is {number}, allowed is \[1, 1024\]"):
        use_threads(number)
