from __future__ import annotations

import select
import threading
from collections.abc import Callable

from light_tts.decode.workers import WorkerPool


def test_results_wake_the_main_thread_and_come_once() -> None:
    pool: WorkerPool[int, int] = WorkerPool(2, lambda: lambda job: 10 * job)
    assert not select.select([pool.wake_fd], [], [], 0)[0]
    for job in range(5):
        pool.submit(job)
    found: list[int] = []
    while len(found) < 5:
        assert select.select([pool.wake_fd], [], [], 10)[0]
        found += pool.results()
    assert sorted(found) == [0, 10, 20, 30, 40]
    assert not select.select([pool.wake_fd], [], [], 0)[0]
    assert pool.close(10)


def test_as_many_jobs_run_at_once_as_there_are_threads_each_with_its_own_runner() -> None:
    meeting, runners = threading.Barrier(3), []

    def make() -> Callable[[int], int]:
        runners.append(threading.current_thread())

        def run(job: int) -> int:
            meeting.wait(10)  # all three or none
            return job

        return run

    pool: WorkerPool[int, int] = WorkerPool(3, make)
    for job in range(3):
        pool.submit(job)
    found: list[int] = []
    while len(found) < 3:
        assert select.select([pool.wake_fd], [], [], 10)[0]
        found += pool.results()
    assert pool.close(10)
    assert len(set(runners)) == 3


def test_closing_does_not_wait_for_ever() -> None:
    release = threading.Event()
    pool: WorkerPool[int, bool] = WorkerPool(1, lambda: lambda job: release.wait(10))
    pool.submit(1)
    assert not pool.close(0.01)
    release.set()
    assert pool.close(10)
