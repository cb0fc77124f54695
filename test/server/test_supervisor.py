from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from light_tts.messages import Drain, PeerLost, PeerReady, Stage
from light_tts.server.run_dir import http_workers
from light_tts.server.state import ChildStatus
from test.server.running_server import Server, processes_of, running_server, wait_for


def test_every_process_gets_ready_and_the_llm_learns_of_each_decode_process(tmp_path: Path) -> None:
    with running_server(tmp_path, decode_process_num=2, encode_process_num=2, cpu_threads=3) as server:
        server.wait_ready()
        state = server.state()
        names = [(child.stage, child.index) for child in state.children]
        assert names == [
            (Stage.ENCODE, 0),
            (Stage.ENCODE, 1),
            (Stage.LLM, 0),
            (Stage.DECODE, 0),
            (Stage.DECODE, 1),
        ]
        assert state.supervisor_pid == server.process.pid
        assert state.children[0].info == {"device": "fake", "threads": "3"}
        told = {str(PeerReady(Stage.DECODE, 0)), str(PeerReady(Stage.DECODE, 1))}
        wait_for("PeerReady", lambda: set(server.messages("llm-0")) == told)
        assert server.stop()[0] == 0
        server.assert_nothing_is_left()


def test_a_child_that_dies_is_replaced_and_everybody_is_told(tmp_path: Path) -> None:
    with running_server(tmp_path, http=True, httpserver_workers=2, decode_process_num=2) as server:
        server.wait_ready()
        first = server.child(Stage.DECODE, 1).pid
        os.kill(first, signal.SIGKILL)
        child = server.wait_replaced(Stage.DECODE, 1)
        assert child.pid != first
        lost, ready = str(PeerLost(Stage.DECODE, 1, first)), str(PeerReady(Stage.DECODE, 1))
        wait_for("llm told", lambda: server.messages("llm-0")[-2:] == [lost, ready])
        wait_for("workers told", lambda: server.worker_messages() == [[lost], [lost]])
        _, log = server.stop(signal.SIGINT)
        assert f"decode-1 (pid {first}) has ended: killed by SIGKILL" in log


@pytest.mark.soak
def test_a_replaced_llm_learns_again_of_the_decode_processes(tmp_path: Path) -> None:
    with running_server(tmp_path, decode_process_num=2) as server:
        server.wait_ready()
        wait_for("PeerReady", lambda: len(server.messages("llm-0")) == 2)
        server.order(Stage.LLM, 0, "die")
        server.wait_replaced(Stage.LLM, 0)
        wait_for("PeerReady again", lambda: len(server.messages("llm-0")) == 4)
        assert set(server.messages("llm-0")[2:]) == {str(PeerReady(Stage.DECODE, i)) for i in (0, 1)}


def test_a_child_that_hangs_is_killed_and_replaced(tmp_path: Path) -> None:
    with running_server(tmp_path, hang_timeout_s=1.5) as server:
        server.wait_ready()
        first = server.child(Stage.ENCODE).pid
        server.order(Stage.ENCODE, 0, "hang")
        assert server.wait_replaced(Stage.ENCODE, 0).pid != first
        assert not psutil.pid_exists(first)
        _, log = server.stop()
        assert "encode-0 hangs: no sign of life for" in log
    # the others told of themselves all the while
    assert log.count("has ended") == 1


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ("fail", "model_not_found: no llm.pt here"),
        ("crash", "internal_error: RuntimeError: not foreseen"),
        ("exit", "exit status 9"),
    ],
)
def test_a_child_that_cannot_start_ends_the_start_with_its_reason(
    tmp_path: Path, order: str, reason: str
) -> None:
    with running_server(tmp_path, orders={"llm-0": order}) as server:
        _, log = server.process.communicate(timeout=30)
        assert server.process.returncode == 1
        assert f"llm-0 on cpu cannot start: {reason}" in log
        server.assert_nothing_is_left()


@pytest.mark.soak
def test_a_child_that_takes_too_long_to_start_ends_the_start(tmp_path: Path) -> None:
    with running_server(tmp_path, orders={"decode-0": "sleep"}, start_timeout_s=2) as server:
        _, log = server.process.communicate(timeout=30)
        assert server.process.returncode == 1
        assert "decode-0 is not ready after 2 s (--start_timeout_s)" in log
        server.assert_nothing_is_left()


@pytest.mark.soak
def test_a_child_that_cannot_start_again_is_tried_again_and_the_state_says_so(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        server.wait_ready()
        server.order(Stage.DECODE, 0, "fail")
        os.kill(server.child(Stage.DECODE).pid, signal.SIGKILL)
        wait_for("second try", lambda: server.child(Stage.DECODE).restarts >= 2)
        assert not server.state().serves
        (server.fake_dir / "decode-0").unlink()
        server.wait_replaced(Stage.DECODE, 0)
        assert server.state().serves


def test_sigterm_waits_for_what_is_accepted(tmp_path: Path) -> None:
    with running_server(tmp_path, http=True, orders={"decode-0": "busy"}) as server:
        server.wait_ready()
        wait_for("busy", lambda: server.child(Stage.DECODE).running == 1)
        server.process.send_signal(signal.SIGTERM)
        wait_for("draining", lambda: server.state().draining)
        wait_for("workers told", lambda: server.worker_messages() == [[str(Drain())]])
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(2)
        assert (
            server.get().status_code == 200
        )  # who asks now is told why not, and is not refused by the kernel
        server.order(Stage.DECODE, 0, "idle")
        server.process.communicate(timeout=15)
        assert server.process.returncode == 0
        server.assert_nothing_is_left()


@pytest.mark.soak
def test_sigterm_lets_an_answer_that_is_being_sent_finish(tmp_path: Path) -> None:
    with running_server(tmp_path, http=True) as server, ThreadPoolExecutor(1) as pool:
        server.wait_ready()
        answer = pool.submit(server.get, "/slow")
        time.sleep(0.3)
        assert server.stop()[0] == 0
        assert answer.result().status_code == 200


@pytest.mark.soak
def test_draining_ends_after_its_time(tmp_path: Path) -> None:
    with running_server(tmp_path, orders={"decode-0": "busy"}, drain_timeout_s=1.5) as server:
        server.wait_ready()
        start = time.monotonic()
        assert server.stop()[0] == 0
        assert 1.4 < time.monotonic() - start < 10
        server.assert_nothing_is_left()


def test_sigint_stops_at_once(tmp_path: Path) -> None:
    with running_server(tmp_path, http=True, orders={"decode-0": "busy"}) as server:
        server.wait_ready()
        start = time.monotonic()
        assert server.stop(signal.SIGINT)[0] == 0
        assert time.monotonic() - start < 5
        server.assert_nothing_is_left()


@pytest.mark.soak
def test_a_second_signal_kills_what_does_not_stop(tmp_path: Path) -> None:
    with running_server(tmp_path, orders={"decode-0": "stubborn"}) as server:
        server.wait_ready()
        wait_for("stubborn", lambda: server.child(Stage.DECODE).running == 1)
        server.process.send_signal(signal.SIGTERM)
        wait_for("draining", lambda: server.state().draining)
        time.sleep(0.6)
        start = time.monotonic()
        assert server.stop(signal.SIGTERM)[0] == 0
        assert time.monotonic() - start < 4
        server.assert_nothing_is_left()


def test_a_killed_supervisor_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    with running_server(tmp_path, http=True, httpserver_workers=2, decode_process_num=2) as server:
        server.wait_ready()
        assert len(processes_of(server.run_dir)) == 1 + 4 + 3
        server.process.kill()
        server.process.communicate()
        server.assert_nothing_is_left()


@pytest.mark.soak
def test_a_dead_http_worker_is_replaced_and_its_socket_goes(tmp_path: Path) -> None:
    with running_server(tmp_path, http=True) as server:
        server.wait_ready()
        (first,) = http_workers(server.run_dir)
        os.kill(first, signal.SIGKILL)
        wait_for("another worker", lambda: len(http_workers(server.run_dir).keys() - {first}) == 1)
        wait_for("first is gone", lambda: first not in http_workers(server.run_dir))
        assert not (server.run_dir / f"http-{first}.ready").exists()
        assert int(server.get().text) != first
        assert 'light_tts_restarts_total{stage="http"} 1.0' in _metrics_of(server)


@pytest.mark.soak
def test_a_dead_gunicorn_is_replaced(tmp_path: Path) -> None:
    with running_server(tmp_path, http=True) as server:
        server.wait_ready()
        (worker,) = http_workers(server.run_dir)
        master = psutil.Process(worker).ppid()
        os.kill(master, signal.SIGKILL)
        wait_for("another worker", lambda: any(pid != worker for pid in http_workers(server.run_dir)))
        wait_for("it answers", lambda: bool(list(server.run_dir.glob("http-*.ready"))))
        wait_for("first is gone", lambda: worker not in http_workers(server.run_dir))
        assert int(server.get().text) != worker


@pytest.mark.soak
def test_a_port_that_is_taken_meanwhile_ends_the_start(tmp_path: Path) -> None:
    with running_server(tmp_path / "one", http=True) as one:
        one.wait_ready()
        with running_server(tmp_path / "two", http=True, port=one.port, worker_timeout_s=5) as two:
            _, log = two.process.communicate(timeout=40)
            assert two.process.returncode == 1
            assert "Gunicorn ended before an HTTP worker was ready" in log
            two.assert_nothing_is_left()


def test_it_ends_with_the_process_that_it_serves(tmp_path: Path) -> None:
    with (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as owner,
        running_server(tmp_path, owner=owner.pid) as server,
    ):
        server.wait_ready()
        owner.communicate(b"\n")
        server.process.communicate(timeout=15)
        assert server.process.returncode == 0
        server.assert_nothing_is_left()


def _metrics_of(server: Server) -> str:
    code = "from light_tts.observe import *; print(exposition(metrics())[0].decode())"
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(server.run_dir / "metrics")}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.soak
def test_restarts_and_queues_are_metrics(tmp_path: Path) -> None:
    with running_server(tmp_path, orders={"decode-0": "busy"}) as server:
        server.wait_ready()
        os.kill(server.child(Stage.ENCODE).pid, signal.SIGKILL)
        server.wait_replaced(Stage.ENCODE, 0)
        wait_for("busy", lambda: server.child(Stage.DECODE).running == 1)
        time.sleep(0.6)
        lines = _metrics_of(server).splitlines()
    assert 'light_tts_restarts_total{stage="encode"} 1.0' in lines
    assert 'light_tts_restarts_total{stage="llm"} 0.0' in lines
    assert 'light_tts_running{stage="decode"} 1.0' in lines
    assert 'light_tts_queue_size{stage="llm"} 0.0' in lines
    assert 'light_tts_backend_info{index="0",key="device",stage="llm",value="fake"} 1.0' in lines


def test_metrics_of_replaced_processes_are_kept_in_few_files(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        server.wait_ready()
        stages = (Stage.ENCODE, Stage.LLM, Stage.DECODE)
        for restart in (1, 2):
            killed = [server.child(stage).pid for stage in stages]
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            for stage in stages:
                server.wait_replaced(stage, 0, restart)
            names = " ".join(path.name for path in (server.run_dir / "metrics").iterdir())
            assert not [pid for pid in killed if f"_{pid}.db" in names]
            assert f'light_tts_voice_cache_total{{result="hit"}} {3.0 * (restart + 1)}' in _metrics_of(server)
        assert len(names.split()) <= 2 + 4 * (3 + 1)  # the sums of the dead, and four of each living process


@pytest.mark.soak
def test_a_child_that_is_being_started_is_not_ready_in_the_state(tmp_path: Path) -> None:
    with running_server(tmp_path, orders={"llm-0": "sleep"}) as server:
        wait_for("state", lambda: (server.run_dir / "state.json").exists())
        wait_for("decode", lambda: server.child(Stage.DECODE).status is ChildStatus.READY)
        assert server.child(Stage.LLM).status is ChildStatus.STARTING
        assert not server.state().all_ready
        start = time.monotonic()
        assert server.stop()[0] == 0  # without waiting for the model
        assert time.monotonic() - start < 4
        server.assert_nothing_is_left()
