from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from light_tts.errors import InvalidInput
from light_tts.messages import Stage
from light_tts.server.run_dir import http_workers, owner_of
from light_tts.server.state import read_state
from light_tts.server.wsgi import wrapper_config
from test.server.running_server import ROOT, free_port, processes_of, wait_for


@dataclass(slots=True)
class PlainGunicorn:
    process: subprocess.Popen[str]
    folder: Path
    port: int

    @property
    def run_dir(self) -> Path:
        (found,) = self.folder.glob("light-tts-*")
        return found

    def answers(self) -> bool:
        assert self.process.poll() is None, self.process.communicate()[1]
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/", timeout=5).status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def plain_gunicorn(fake_dir: Path, *options: str, arguments: str = "") -> Iterator[PlainGunicorn]:
    """As run.sh starts it, with fake processes below."""
    folder, port = Path(tempfile.mkdtemp(prefix="light-tts-test-")), free_port()
    command = [sys.executable, "-m", "gunicorn", "-w", "2", "-k", "uvicorn_worker.UvicornWorker"]
    command += ["-b", f"127.0.0.1:{port}", "--no-control-socket", *options, "test.server.fake_wsgi:app"]
    environment = {
        **os.environ,
        "TMPDIR": str(folder),
        "FAKE_DIR": str(fake_dir),
        "LIGHT_TTS_ARGS": f"--model_dir test/golden/cosyvoice2 --num_gpus 0 {arguments}",
    }
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        yield PlainGunicorn(process, folder, port)
    finally:
        if process.poll() is None:
            process.kill()
        sys.stderr.write(process.communicate()[1])
        for left in processes_of(folder):
            left.kill()
        shutil.rmtree(folder, ignore_errors=True)


def pipelines(folder: Path) -> int:
    return sum("light_tts.server.supervisor" in process.cmdline() for process in processes_of(folder))


@pytest.mark.parametrize(
    "options",
    [pytest.param(["--preload"], id="preload"), pytest.param([], id="no preload", marks=pytest.mark.soak)],
)
def test_one_pipeline_serves_all_workers_and_ends_with_gunicorn(tmp_path: Path, options: list[str]) -> None:
    with plain_gunicorn(tmp_path, *options) as gunicorn:
        wait_for("it answers", gunicorn.answers)
        run_dir = gunicorn.run_dir
        wait_for("both workers", lambda: len(http_workers(run_dir)) == 2)
        assert pipelines(gunicorn.folder) == 1
        gunicorn.process.send_signal(signal.SIGTERM)
        gunicorn.process.communicate(timeout=20)
        assert gunicorn.process.returncode == 0
        wait_for("no process", lambda: not processes_of(gunicorn.folder), 10)
        wait_for("no file", lambda: not list(gunicorn.folder.glob("light-tts-*")), 10)


@pytest.mark.soak
def test_a_killed_pipeline_is_started_again_and_workers_are_told(tmp_path: Path) -> None:
    with plain_gunicorn(tmp_path, "--preload") as gunicorn:
        wait_for("it answers", gunicorn.answers)
        run_dir = gunicorn.run_dir
        wait_for("both workers", lambda: len(http_workers(run_dir)) == 2)
        first = owner_of(run_dir)
        assert first is not None
        os.kill(first, signal.SIGKILL)
        wait_for("another one", lambda: owner_of(run_dir) not in (None, first))

        def ready() -> bool:
            state = read_state(run_dir)
            return state is not None and state.supervisor_pid != first and state.all_ready

        wait_for("ready again", ready)
        logs = [tmp_path / f"http-{pid}.messages" for pid in http_workers(run_dir)]
        lost = [f"stage={stage!r}" for stage in (Stage.ENCODE, Stage.LLM, Stage.DECODE)]
        wait_for("workers told", lambda: all(text in log.read_text("ascii") for log in logs for text in lost))


@pytest.mark.soak
@pytest.mark.parametrize("options", [["--preload"], []], ids=["preload", "no preload"])
def test_a_killed_gunicorn_takes_everything_with_it(tmp_path: Path, options: list[str]) -> None:
    with plain_gunicorn(tmp_path, *options) as gunicorn:
        wait_for("it answers", gunicorn.answers)
        gunicorn.process.kill()
        wait_for("no process", lambda: not processes_of(gunicorn.folder), 15)
        wait_for("no file", lambda: not list(gunicorn.folder.glob("light-tts-*")), 10)


def test_a_pipeline_that_cannot_start_ends_gunicorn_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "llm-0").write_text("fail", "ascii")
    with plain_gunicorn(tmp_path, "--preload") as gunicorn:
        _, log = gunicorn.process.communicate(timeout=30)
        assert gunicorn.process.returncode == 1
        assert "llm-0 on cpu cannot start: model_not_found: no llm.pt here" in log
        assert "light-tts: start_failed: the pipeline ended before it was ready" in log
        assert "Traceback" not in log


def test_without_options_the_guides_are_taken_and_the_bundled_voice_if_there_is_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    config = wrapper_config({})
    assert (config.decode_process_num, config.decode_max_batch_size, config.gpt_paral_num) == (3, 3, 150)
    assert config.model_dir is None
    assert [record.getMessage() for record in caplog.records] == [
        "pretrained_models/CosyVoice2-0.5B-latest does not exist: the bundled voice speaks"
    ]
    (tmp_path / "pretrained_models/CosyVoice2-0.5B-latest").mkdir(parents=True)
    assert wrapper_config({}).model_dir == Path("pretrained_models/CosyVoice2-0.5B-latest")


def test_flags_in_the_environment_win_over_the_file_of_the_deployment_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    file = tmp_path / "config/production.yaml"
    file.write_text(
        "model_dir: /m\ndecode_process_num: 2\nmode: [triton_int8kv]\nlog_level: WARNING\n", "utf-8"
    )
    config = wrapper_config({"LIGHT_TTS_ARGS": "--decode_process_num 1"})
    assert (config.model_dir, config.decode_process_num, config.mode) == (Path("/m"), 1, ("triton_int8kv",))
    assert wrapper_config({"WEB_CONCURRENCY": "6"}).httpserver_workers == 6  # how many Gunicorn really starts
    file.write_text("decode_proces_num: 2\n", "utf-8")
    with pytest.raises(InvalidInput, match="did you mean decode_process_num"):
        wrapper_config({})
