"""What cannot be served is said within seconds, with its reason, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from test.soak.harness import ROOT, free_port, processes_of, running_server, shared_memory

pytestmark = [pytest.mark.soak, pytest.mark.timeout(120)]

SECONDS = 15.0
IN_CHILD_S = 45.0  # where a process finds out that has to load libraries first
MODEL = ROOT / "test/golden/cosyvoice2"


@dataclass(frozen=True, slots=True)
class Failure:
    status: int
    log: str
    took_s: float


@dataclass(frozen=True, slots=True)
class Place:
    """tmp: where the server puts what it names itself; run_dir: of processes that name it"""

    tmp: Path
    model_dir: Path
    port: int

    def start(self, *flags: str, limit_s: float = SECONDS) -> Failure:
        """Raises TimeoutExpired where it does not give up, AssertionError where it leaves anything."""
        command = [sys.executable, "-m", "light_tts.server.api_server", "--port", str(self.port), *flags]
        environment = {**os.environ, "TMPDIR": str(self.tmp), "OMP_NUM_THREADS": "1"}
        memory = shared_memory()
        start = time.monotonic()
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            log, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.communicate(timeout=30)
            raise
        took_s = time.monotonic() - start
        assert not processes_of(self.tmp), log
        assert not list(self.tmp.iterdir()), log
        assert not [name for name in shared_memory() - memory if str(process.pid) in name]
        return Failure(process.returncode, log, took_s)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    tmp = (
        Path("/tmp") / f"soak-{os.getpid()}-{time.monotonic_ns()}"
    )  # pytest's folders are too long for sockets
    tmp.mkdir()
    model_dir = tmp_path / "model"
    shutil.copytree(MODEL, model_dir, copy_function=shutil.copyfile)
    yield Place(tmp, model_dir, free_port())
    shutil.rmtree(tmp)


def _said(failure: Failure) -> str:
    """The last word, which may have several lines."""
    return failure.log[failure.log.rindex("light-tts: ") :]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--port", "0"], "port is 0"),
        (["--port", "http"], "port is 'http'"),
        (["--decode_process_num", "0"], "decode_process_num is 0"),
        (["--decode_process_num", "two"], "decode_process_num is 'two'"),
        (["--load_trt", "perhaps"], "load_trt is 'perhaps'"),
        (["--mode", "int4kv"], "triton_int8kv"),
        (["--gpu_memory_fraction", "1.5"], "gpu_memory_fraction is 1.5"),
        (["--max_req_total_len", "70000"], "max_total_token_num"),
        (["--decode_proces_num", "2"], "decode_process_num"),
        (["--preset", "fast"], "throughput"),
        (["--host", "no.such.host.invalid"], "no.such.host.invalid"),
        (["--config", "/no/such/file.yaml"], "/no/such/file.yaml"),
        (["--model_dir", "/no/such/model"], "/no/such/model"),
        (["--run_dir", "/tmp/" + "x" * 120], "--run_dir"),
        (["--num_gpus", "1", "--llm_gpu", "3"], "llm_gpu names GPU 3"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_a_bad_flag_is_named(place: Place, flags: list[str], named: str) -> None:
    failure = place.start(*flags)
    assert failure.status in (1, 2), failure
    assert named in _said(failure)
    assert "Traceback" not in failure.log


def test_a_taken_port_is_named(place: Place) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", place.port))
        other.listen()
        failure = place.start()
    assert failure.status == 2
    assert failure.took_s < SECONDS
    assert "port_taken" in _said(failure)
    assert str(place.port) in _said(failure)


def test_an_unknown_option_of_a_file_is_named(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "production.yaml"
    file.write_text("decode_proces_num: 2\n", "utf-8")
    failure = place.start("--config", str(file))
    assert failure.status == 2
    assert "did you mean decode_process_num" in _said(failure)


def test_too_little_memory_is_said(place: Place) -> None:
    failure = place.start("--max_total_token_num", str(2**31 - 1))
    assert failure.status == 1
    assert "not_enough_memory" in _said(failure)


def test_a_run_dir_in_use_is_left_alone(place: Place) -> None:
    with running_server("--model_dir", str(MODEL)) as server:
        failure = place.start("--run_dir", str(server.run_dir))
        assert failure.status == 2
        assert "in use" in _said(failure)
        assert server.readiness() == 200


@pytest.mark.parametrize(
    "name",
    [
        "cosyvoice2.yaml",
        "llm.pt",
        "flow.pt",
        "hift.pt",
        "campplus.onnx",
        "speech_tokenizer_v2.onnx",
        "CosyVoice-BlankEN/config.json",
    ],
)
def test_a_missing_file_is_named(place: Place, name: str) -> None:
    (place.model_dir / name).unlink()
    _assert_named(place.start("--model_dir", str(place.model_dir)), name)


@pytest.mark.parametrize("name", ["llm.pt", "flow.pt", "cosyvoice2.yaml", "CosyVoice-BlankEN/tokenizer.json"])
def test_a_truncated_file_is_named(place: Place, name: str) -> None:
    _halve(place.model_dir / name)
    _assert_named(place.start("--model_dir", str(place.model_dir)), name)


def test_a_truncated_onnx_file_is_named_by_the_process_that_reads_it(place: Place) -> None:
    _halve(place.model_dir / "speech_tokenizer_v2.onnx")
    failure = place.start("--model_dir", str(place.model_dir), limit_s=IN_CHILD_S)
    _assert_named(failure, "speech_tokenizer_v2.onnx")


def test_a_weight_of_another_shape_is_named_by_the_process_that_reads_it(place: Place) -> None:
    weights = torch.load(place.model_dir / "flow.pt", weights_only=True)
    weights[next(iter(weights))] = torch.zeros(3, 5, 7)
    torch.save(weights, place.model_dir / "flow.pt")
    _assert_named(place.start("--model_dir", str(place.model_dir), limit_s=IN_CHILD_S), "flow.pt")


def _assert_named(failure: Failure, name: str) -> None:
    assert failure.status == 1, failure.log
    assert name.rpartition("/")[2] in _said(failure), failure.log
    assert "Traceback" not in failure.log


def _halve(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
