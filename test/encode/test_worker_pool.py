from __future__ import annotations

import logging
import threading
import time

import pytest

from light_tts.encode.worker_pool import PoolLoad, WorkerPool


def wait_until_idle(pool: WorkerPool) -> None:
    deadline = time.monotonic() + 10
    while (load := pool.load()).running or load.queued:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def waiting(event: threading.Event) -> None:
    event.wait(10)


def test_one_thread_works_in_the_order_of_the_jobs() -> None:
    pool = WorkerPool(1, "test")
    done: list[int] = []
    for number in range(100):
        pool.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    wait_until_idle(pool)
    pool.close()
    assert done == [*range(100)]


def test_as_many_jobs_run_at_once_as_there_are_threads_and_the_load_tells_the_rest() -> None:
    pool = WorkerPool(3, "test")
    together, go_on = threading.Barrier(4), threading.Event()

    def job() -> None:
        together.wait(10)
        go_on.wait(10)

    for _ in range(3):
        pool.submit(job)
    together.wait(10)
    assert pool.load().queued == 0
    pool.submit(lambda: None)
    time.sleep(0.02)
    load = pool.load()
    assert (load.queued, load.running) == (1, 3)
    assert load.oldest_s >= 0.02
    assert load.stuck_s >= 0.02
    go_on.set()
    wait_until_idle(pool)
    assert pool.load() == PoolLoad(0, 0.0, 0, 0.0)
    pool.close()


def test_a_pool_with_a_free_thread_is_not_stuck() -> None:
    pool, go_on = WorkerPool(2, "test"), threading.Event()
    pool.submit(lambda: waiting(go_on))
    time.sleep(0.02)
    assert pool.load().stuck_s == 0.0
    go_on.set()
    pool.close()


def test_a_failing_job_costs_no_thread(caplog: pytest.LogCaptureFixture) -> None:
    pool, done = WorkerPool(1, "test"), threading.Event()

    def failing() -> None:
        raise RuntimeError("on purpose")

    with caplog.at_level(logging.ERROR):
        pool.submit(failing)
        pool.submit(done.set)
        assert done.wait(10)
    assert "on purpose" in caplog.text
    pool.close()


def test_closing_drops_what_waits_and_ends_the_threads() -> None:
    pool, started, go_on = WorkerPool(1, "test-closing"), threading.Event(), threading.Event()
    done: list[str] = []

    def running() -> None:
        started.set()
        go_on.wait(10)
        done.append("running")

    pool.submit(running)
    pool.submit(lambda: done.append("waiting"))
    assert started.wait(10)
    threading.Timer(0.05, go_on.set).start()
    pool.close()
    pool.submit(lambda: done.append("late"))
    assert done == ["running"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("test-closing")]
