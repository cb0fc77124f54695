"""The guide's way of running the server, from deployment to its end, with the real server on a tiny model."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from test.ops.project import ROOT, Project

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]
DEPLOY = "scripts/deploy.sh"
PYTHON_BIN = str(Path(sys.executable).parent)


class LiveProject(Project):
    """With the real `run.sh`, and the real Python first on the PATH."""

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(folder, port)
        for name in ("run.sh", "wsgi_wrapper.py"):
            shutil.copy(ROOT / name, self.root / name)

    def environment(self, **variables: str) -> dict[str, str]:
        path = f"{PYTHON_BIN}:{os.environ['PATH']}"
        return {
            **super().environment(),
            "PATH": path,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            **variables,
        }


@pytest.fixture
def project(tmp_path: Path, free_port: int) -> Iterator[LiveProject]:
    made = LiveProject(tmp_path, free_port)
    yield made
    with suppress(OSError, ValueError):
        os.kill(int(made.pid_file.read_text("ascii")), signal.SIGKILL)


def _run(project: Project, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=project.environment(), cwd=project.root, capture_output=True, text=True, check=False
    )


def test_the_guides_deployment_from_start_to_end(project: LiveProject, golden: Path) -> None:
    done = project.run(DEPLOY, str(golden / "cosyvoice2"), "2", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    url, pid = f"http://127.0.0.1:{project.port}", int(project.pid_file.read_text("ascii"))
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    stages = [
        stage for process in processes for stage in process.cmdline() if stage in ("encode", "llm", "decode")
    ]
    assert sorted(stages) == ["decode", "decode", "encode", "llm"]

    body = {
        "tts_text": "这是一个性能测试",
        "prompt_text": "请用自然的声音朗读",
        "prompt_wav": base64.b64encode((golden / "fixtures/prompt_24k.wav").read_bytes()).decode(),
        "max_token_text_ratio": 4,
    }
    for _ in range(3):
        answer = httpx.post(f"{url}/inference_zero_shot", json=body, timeout=60, trust_env=False)
        assert answer.status_code == 200, answer.text
        assert len(answer.content) > 24_000 // 5

    queues = _run(project, "bash", "-c", f"curl -s --noproxy '*' {url}/metrics | grep queue")
    assert "light_tts_queue_size" in queues.stdout
    seen = _run(project, sys.executable, str(ROOT / "scripts/monitor.py"), "--once", "--json", "--url", url)
    assert json.loads(seen.stdout)["server"]["requests"]["ok"] == 3

    log = project.root / "logs/light-tts.log"
    report = json.loads(_run(project, f"{PYTHON_BIN}/light-tts", "logs", str(log), "--json").stdout)
    assert report["http"]["count"] == 3
    assert {"encode", "llm", "decode"} <= report.keys()

    assert project.run(DEPLOY, "--status").returncode == 0
    _reload(project, pid, url)
    stopped = project.run(DEPLOY, "--stop")
    assert stopped.returncode == 0, stopped.stderr
    assert "killing" not in stopped.stderr
    assert not psutil.wait_procs(processes, timeout=10)[1]


def _reload(project: Project, pid: int, url: str) -> None:
    """`systemctl reload`: new HTTP workers, the same models."""
    before = {process.pid for process in psutil.Process(pid).children()}
    os.kill(pid, signal.SIGHUP)
    deadline = time.monotonic() + 30
    while True:
        now = {process.pid for process in psutil.Process(pid).children()}
        if len(now - before) >= 2 and len(now & before) == 1:  # the pipeline stayed
            break
        assert time.monotonic() < deadline, (before, now)
        time.sleep(0.2)
    answer = httpx.post(f"{url}/inference_zero_shot", data={"tts_text": " "}, timeout=10, trust_env=False)
    assert answer.json()["error"]["code"] == "empty_text"


def test_a_model_that_is_not_complete_is_told(project: LiveProject, golden: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(golden / "cosyvoice2", broken)
    (broken / "flow.pt").unlink()
    done = project.run(DEPLOY, str(broken), "1", "1")
    assert done.returncode == 1
    assert "flow.pt" in done.stderr
    assert not project.pid_file.exists()
