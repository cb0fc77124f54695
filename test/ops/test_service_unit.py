from __future__ import annotations

import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest

from test.ops.project import ROOT

UNIT = ROOT / "deploy/light-tts.service"


def _unit() -> ConfigParser:
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT, "utf-8")
    return parser


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_finds_no_fault(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text("utf-8").replace("/opt/light-tts", str(ROOT)), encoding="utf-8")
    command = ["systemd-analyze", "verify", "--man=no", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    ours = [line for line in (done.stdout + done.stderr).splitlines() if UNIT.name in line]
    assert not ours
    assert done.returncode == 0


def test_paths_are_those_of_the_guide() -> None:
    service = _unit()["Service"]
    assert service["ExecStart"] == "/opt/light-tts/scripts/deploy.sh"
    assert service["WorkingDirectory"] == "/opt/light-tts"
    assert (service["User"], service["Group"]) == ("tts", "tts")
    assert service["StandardError"] == "append:/var/log/light-tts/error.log"


def test_main_process_is_the_one_of_the_pid_file_that_deploy_writes() -> None:
    service = _unit()["Service"]
    assert service["Type"] == "forking"
    assert f"LIGHT_TTS_PID_FILE={service['PIDFile']}" in UNIT.read_text("utf-8")
    assert service["PIDFile"].startswith(f"/run/{service['RuntimeDirectory']}/")


def test_systemd_waits_longer_than_the_scripts_do() -> None:
    service = _unit()["Service"]
    assert int(service["TimeoutStartSec"]) > 600  # LIGHT_TTS_START_TIMEOUT_S
    assert int(service["TimeoutStopSec"]) > 30  # --drain_timeout_s
    assert service["KillMode"] == "mixed"  # else the children would not drain
