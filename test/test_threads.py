from __future__ import annotations

import os
import subprocess
import sys
import threading

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


def test_threads_that_are_inside_together_leave_the_number_as_it_was() -> None:
    first_inside, second_inside, first_left = threading.Event(), threading.Event(), threading.Event()
    seen: dict[str, int] = {}

    def first() -> None:
        with single_threaded():
            first_inside.set()
            second_inside.wait(10)
        first_left.set()

    def second() -> None:
        first_inside.wait(10)
        with single_threaded():
            second_inside.set()
            first_left.wait(10)
            seen["inside"] = torch.get_num_threads()
        seen["after"] = torch.get_num_threads()

    torch.set_num_threads(3)
    try:
        threads = [threading.Thread(target=target) for target in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        fresh = threading.Thread(target=lambda: seen.update(fresh=torch.get_num_threads()))
        fresh.start()
        fresh.join(10)
        assert torch.get_num_threads() == 3
        assert seen == {"inside": 1, "after": 3, "fresh": 3}
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
