"""The start scripts, with a Python that prints what it is asked."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from test.ops.project import ROOT, Project

no_real_gpu = pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="the scripts see this machine's GPU")

# The deployment guide's command lines, without the model
GUIDE = {
    "scripts/start-2workers.sh": """
  --host 0.0.0.0 --port 8080 --encode_process_num 1 --encode_paral_num 4 --decode_process_num 2 --decode_paral_num 2
  --decode_max_batch_size 4 --gpt_paral_num 100 --gpt_paral_step_num 200 --max_total_token_num 65536
  --max_req_total_len 32768 --batch_max_tokens 8192 --router_max_wait_tokens 8 --cache_capacity 200 --load_trt True
  --mode triton_flashdecoding --httpserver_workers 3""",
    "scripts/start-3workers.sh": """
  --host 0.0.0.0 --port 8080 --encode_process_num 1 --encode_paral_num 6 --decode_process_num 3 --decode_paral_num 2
  --decode_max_batch_size 3 --gpt_paral_num 150 --gpt_paral_step_num 300 --max_total_token_num 98304
  --max_req_total_len 32768 --batch_max_tokens 12288 --router_max_wait_tokens 6 --cache_capacity 300 --load_trt True
  --mode triton_flashdecoding,triton_int8kv --httpserver_workers 4 --log_stats_interval 10""",
}
both = pytest.mark.parametrize("script", [*GUIDE])


@pytest.fixture
def project(tmp_path: Path, free_port: int) -> Project:
    return Project(tmp_path, free_port)


def _asked(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stderr
    return re.findall(r"<([^>]*)>", done.stdout)


@both
def test_command_line_is_that_of_the_guide(project: Project, script: str) -> None:
    (project.root / "pretrained_models/CosyVoice2-0.5B-latest").mkdir(parents=True)
    asked = _asked(project.run(script))
    assert asked[:2] == ["-m", "light_tts.server.api_server"]
    assert asked[2:4] == ["--model_dir", "./pretrained_models/CosyVoice2-0.5B-latest"]
    assert asked[4:] == GUIDE[script].split()


@both
def test_environment_is_that_of_the_guide(project: Project, script: str) -> None:
    assert f" gpus=0,1,2 path={project.root}\n" in project.run(script).stdout
    told = project.run(script, CUDA_VISIBLE_DEVICES="5", PYTHONPATH="/mine").stdout
    assert f" gpus=5 path=/mine:{project.root}\n" in told


@both
def test_a_missing_default_model_means_the_bundled_voice_and_a_warning(project: Project, script: str) -> None:
    done = project.run(script)
    assert "--model_dir" not in _asked(done)
    assert "using the bundled voice" in done.stderr


@both
def test_model_can_be_an_argument_or_a_variable(project: Project, script: str, tmp_path: Path) -> None:
    (tmp_path / "my model").mkdir()
    for done in (
        project.run(script, "my model", cwd=tmp_path),
        project.run(script, MODEL_DIR="my model", cwd=tmp_path),
        project.run(script, str(tmp_path / "my model"), MODEL_DIR="/nowhere"),
    ):
        assert _asked(done)[2:4] == ["--model_dir", str(tmp_path / "my model")]


@both
def test_a_model_that_was_asked_for_must_exist(project: Project, script: str) -> None:
    done = project.run(script, "/nowhere/at all")
    assert done.returncode == 1
    assert "/nowhere/at all does not exist" in done.stderr
    assert done.stdout == ""


@both
def test_further_flags_come_last_so_that_they_win(project: Project, script: str) -> None:
    assert _asked(project.run(script, "--port", "9000"))[-2:] == ["--port", "9000"]


@both
@no_real_gpu
def test_a_machine_without_gpus_is_told(project: Project, script: str) -> None:
    assert "running on the CPU" in project.run(script).stderr


def test_too_few_gpus_are_told(project: Project) -> None:
    smi = project.bin / "nvidia-smi"
    smi.write_text("#!/usr/bin/env bash\necho 'GPU 0: a card (UUID: 0)'\n", encoding="utf-8")
    smi.chmod(0o755)
    assert "fewer GPUs (1) than Decode workers (3)" in project.run("scripts/start-3workers.sh").stderr


@both
def test_a_server_that_cannot_be_imported_is_told(project: Project, script: str) -> None:
    done = project.run(script, FAKE_IMPORT="1")
    assert done.returncode == 1
    assert "quickstart.sh --setup" in done.stderr


@both
def test_help_tells_the_usage(project: Project, script: str) -> None:
    done = project.run(script, "--help")
    assert done.returncode == 0
    assert "MODEL_DIR" in done.stdout


@pytest.mark.parametrize("script", [*GUIDE, "scripts/deploy.sh", "scripts/lib/serve.sh"])
def test_scripts_pass_shellcheck(script: str) -> None:
    shellcheck = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run([shellcheck, "-x", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", [*GUIDE, "scripts/deploy.sh"])
def test_scripts_are_executable(script: str) -> None:
    assert (ROOT / script).stat().st_mode & 0o111
