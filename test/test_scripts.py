"""The two commands of the README, run in a copy of the project with a Python that notes what it is asked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
SCRIPTS = ["quickstart.sh", "scripts/check", "scripts/lib/setup.sh", ".ci/run"]
TOOLS = ["bash", "env", "cat", "cp", "dirname", "grep", "mkdir", "rm", "sed", "tee", "uname"]
CPU_TORCH = "torch==2.13.0+cpu" if sys.platform == "linux" else "torch==2.13.0"

# Stands for Python and, copied into .venv, for pip. FAKE_* variables say how it behaves.
FAKE_PYTHON = """#!/usr/bin/env bash
case "$*" in
  *"version_info < (3, 11)"*) exit "${FAKE_TOO_OLD:-0}" ;;
  *ensurepip*) exit "${FAKE_NO_VENV:-0}" ;;
  "-m venv "*) mkdir -p .venv/bin && cp "$0" .venv/bin/python && echo '#!/bin/sh' > .venv/bin/light-tts ;;
  "-m pip install "*)
    echo "$*" >> pip-calls
    [[ "$*" != *"${FAKE_PIP_FAILS:-nothing}"* ]] || { echo "$FAKE_PIP_SAYS"; exit 1; } ;;
  *hashlib*) cat | cksum ;;
  -V) echo "Python 3.11.0" ;;
esac
"""


class Project:
    """A copy of what the scripts read, and a PATH with the fake Python and a few tools only."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a project"  # with a space, as folders of users have
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        for name in [*SCRIPTS, "pyproject.toml", "constraints.txt"]:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.root / name)
        for tool in [*TOOLS, "cksum"]:
            found = shutil.which(tool)
            assert found, tool
            (self.bin / tool).symlink_to(found)
        self.add_command("python3.11", FAKE_PYTHON)

    def add_command(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text, encoding="utf-8")
        (self.bin / name).chmod(0o755)

    def run(self, script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.bin), **variables}
        command = ["bash", str(self.root / script), *arguments]
        return subprocess.run(
            command, env=environment, cwd=self.bin, capture_output=True, text=True, timeout=60, check=False
        )

    def pip_calls(self) -> list[str]:
        """What pip was asked to install since the last call of this method."""
        calls = self.root / "pip-calls"
        lines = calls.read_text("utf-8").splitlines() if calls.exists() else []
        calls.unlink(missing_ok=True)
        return lines


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


no_real_gpu = pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="the scripts see this machine's GPU")


@pytest.mark.parametrize("script", SCRIPTS)
def test_shell_scripts_pass_shellcheck(script: str) -> None:
    shellcheck = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run([shellcheck, "-x", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", ["quickstart.sh", "scripts/check", ".ci/run"])
def test_commands_are_executable(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)


@pytest.mark.parametrize(("script", "option"), [("quickstart.sh", "--setup"), ("scripts/check", "--soak")])
def test_help_names_the_options_and_installs_nothing(project: Project, script: str, option: str) -> None:
    done = project.run(script, "--help")
    assert done.returncode == 0
    assert option in done.stdout
    assert not (project.root / ".venv").exists()


def test_check_refuses_an_unknown_argument(project: Project) -> None:
    done = project.run("scripts/check", "--sook")
    assert done.returncode == 2
    assert "--sook" in done.stderr
    assert not (project.root / ".venv").exists()


def test_setup_takes_no_further_argument(project: Project) -> None:
    done = project.run("quickstart.sh", "--setup", "--soak")
    assert done.returncode == 2
    assert project.pip_calls() == []


def test_unknown_torch_build_is_refused(project: Project) -> None:
    done = project.run("quickstart.sh", "--setup", LIGHT_TTS_TORCH="tpu")
    assert done.returncode == 1
    assert "LIGHT_TTS_TORCH is 'tpu'" in done.stderr


def test_a_python_that_is_too_old_is_named_as_the_fault(project: Project) -> None:
    done = project.run("quickstart.sh", "--setup", FAKE_TOO_OLD="1")
    assert done.returncode == 1
    assert "Python 3.11 or newer" in done.stderr


def test_a_python_without_venv_is_named_as_the_fault(project: Project) -> None:
    done = project.run("quickstart.sh", "--setup", FAKE_NO_VENV="1")
    assert done.returncode == 1
    assert "has no venv module" in done.stderr


@no_real_gpu
def test_setup_installs_the_cpu_build_without_a_gpu_and_then_nothing(project: Project) -> None:
    assert project.run("quickstart.sh", "--setup").returncode == 0
    calls = project.pip_calls()
    assert len(calls) == 2
    assert "setuptools==" in calls[0]
    assert calls[1].endswith(f"{CPU_TORCH} -e .")
    again = project.run("quickstart.sh", "--setup")
    assert again.returncode == 0
    assert "up to date" in again.stdout
    assert project.pip_calls() == []


def test_setup_installs_the_gpu_build_where_a_gpu_is(project: Project) -> None:
    project.add_command("nvidia-smi", "#!/usr/bin/env bash\necho 'GPU 0: a card (UUID: 0)'\n")
    assert project.run("quickstart.sh", "--setup").returncode == 0
    assert "torch==2.13.0,!=2.13.0+cpu " in project.pip_calls()[1]


@no_real_gpu
def test_a_driver_without_a_gpu_counts_as_no_gpu(project: Project) -> None:
    project.add_command("nvidia-smi", "#!/usr/bin/env bash\necho 'No devices were found'\n")
    assert project.run("quickstart.sh", "--setup").returncode == 0
    assert f"{CPU_TORCH} " in project.pip_calls()[1]


@no_real_gpu
def test_a_chosen_gpu_build_is_kept_by_later_runs(project: Project) -> None:
    assert project.run("quickstart.sh", "--setup", LIGHT_TTS_TORCH="gpu").returncode == 0
    project.pip_calls()
    assert project.run("quickstart.sh", "--setup").returncode == 0
    assert project.pip_calls() == []
    assert project.run("quickstart.sh", "--setup", LIGHT_TTS_TORCH="cpu").returncode == 0
    assert f"{CPU_TORCH} " in project.pip_calls()[1]


def test_changed_constraints_are_installed(project: Project) -> None:
    project.run("quickstart.sh", "--setup")
    project.pip_calls()
    with (project.root / "constraints.txt").open("a", encoding="utf-8") as constraints:
        constraints.write("six==1.17.0\n")
    assert project.run("quickstart.sh", "--setup").returncode == 0
    assert len(project.pip_calls()) == 2


@no_real_gpu
def test_a_missing_cpu_build_is_explained_and_the_next_run_starts_afresh(project: Project) -> None:
    says = f"ERROR: No matching distribution found for {CPU_TORCH}"
    done = project.run("quickstart.sh", "--setup", FAKE_PIP_FAILS="torch", FAKE_PIP_SAYS=says)
    assert done.returncode == 1
    if sys.platform == "linux":
        assert "PIP_EXTRA_INDEX_URL" in done.stderr
        assert "LIGHT_TTS_TORCH=gpu" in done.stderr
    again = project.run("quickstart.sh", "--setup")
    assert again.returncode == 0
    assert "did not finish" in again.stdout


def test_a_failed_installation_shows_what_pip_said(project: Project) -> None:
    done = project.run("scripts/check", FAKE_PIP_FAILS="torch", FAKE_PIP_SAYS="ERROR: no such luck")
    assert done.returncode == 1
    assert "ERROR: no such luck" in done.stderr


def test_an_environment_without_a_python_is_made_anew(project: Project) -> None:
    (project.root / ".venv").mkdir()
    done = project.run("quickstart.sh", "--setup")
    assert done.returncode == 0
    assert "removing .venv: it has no Python" in done.stdout


def test_a_moved_project_gets_a_new_environment(project: Project) -> None:
    project.run("quickstart.sh", "--setup")
    project.root = project.root.rename(project.root.parent / "elsewhere")
    done = project.run("quickstart.sh", "--setup")
    assert done.returncode == 0
    assert "it was made for" in done.stdout


def test_quickstart_says_what_is_missing(project: Project) -> None:
    done = project.run("quickstart.sh")
    assert done.returncode == 1
    assert "--model_dir DIR" in done.stderr


def _server_arguments(project: Project, *arguments: str) -> str:
    """What quickstart.sh asks Python for, after an installation; Python prints it and ends."""
    project.run("quickstart.sh", "--setup")
    python = project.root / ".venv/bin/python"
    ask = 'case "$*" in *api_server*) printf "<%s>" "$@"; exit ;; esac\n'
    python.write_text(FAKE_PYTHON.replace("case", ask + "case", 1), encoding="utf-8")
    return project.run("quickstart.sh", *arguments).stdout


def test_quickstart_starts_the_server_on_the_bundled_voice(project: Project) -> None:
    voice = project.root / "light_tts/voices/first"
    voice.mkdir(parents=True)
    (voice / "cosyvoice2.yaml").touch()
    assert _server_arguments(project).endswith("<-m><light_tts.server.api_server>")


def test_quickstart_passes_flags_on_to_the_server(project: Project) -> None:
    told = _server_arguments(project, "--model_dir", "a dir", "--port", "9000")
    assert told.endswith("<-m><light_tts.server.api_server><--model_dir><a dir><--port><9000>")
    told = _server_arguments(project, "--model_dir=a dir")
    assert told.endswith("<-m><light_tts.server.api_server><--model_dir=a dir>")


def test_quickstart_shows_a_command_to_try_once_the_server_answers(project: Project) -> None:
    project.add_command("curl", '#!/usr/bin/env bash\n[[ "$*" == *http://127.0.0.1:9000/readiness* ]]\n')
    sleep = shutil.which("sleep")
    assert sleep
    (project.bin / "sleep").symlink_to(sleep)
    project.run("quickstart.sh", "--setup")
    python = project.root / ".venv/bin/python"
    serve = 'case "$*" in *api_server*) sleep 1; exit ;; esac\n'
    python.write_text(FAKE_PYTHON.replace("case", serve + "case", 1), encoding="utf-8")
    told = project.run("quickstart.sh", "--model_dir", "x", "--port=9000", "--host", "0.0.0.0").stdout
    assert "curl http://127.0.0.1:9000/inference_zero_shot" in told


def test_every_constraint_is_an_exact_pin() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(line.count("==") == 1 and " " not in line for line in pins)
    names = {line.split("==")[0].lower().replace("_", "-") for line in pins}
    assert {"torch", "setuptools", "pytest", "ruff", "mypy"} <= names


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_a_fresh_copy_installs_itself_and_the_second_run_is_quick(tmp_path: Path) -> None:
    copy = tmp_path / "a copy"
    skip = shutil.ignore_patterns(".*", "golden", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, copy, ignore=skip)
    flavour = "gpu" if torch.version.cuda else "cpu"  # what this machine's pip could find before
    environment = {**os.environ, "LIGHT_TTS_TORCH": flavour}
    command = ["./quickstart.sh", "--setup"]
    first = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stdout + first.stderr
    imports = [
        ".venv/bin/python",
        "-c",
        "import torch, light_tts; print(torch.__version__, light_tts.__file__)",
    ]
    shown = subprocess.run(imports, cwd=copy, capture_output=True, text=True, check=True).stdout
    assert shown.startswith("2.13.0")
    assert str(copy) in shown
    start = time.monotonic()
    subprocess.run(command, cwd=copy, env=environment, check=True, capture_output=True)
    assert time.monotonic() - start < 3  # one second on an idle machine
