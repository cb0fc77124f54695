"""A copy of the scripts beside a stub `run.sh`, with a stub `python` that prints what it is asked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = [
    "scripts/deploy.sh",
    "scripts/start-2workers.sh",
    "scripts/start-3workers.sh",
    "scripts/lib/serve.sh",
    "scripts/lib/setup.sh",
]
# `python -c ...` are the scripts' own checks.
FAKE_PYTHON = """#!/usr/bin/env bash
[[ $1 != -c ]] || exit "${FAKE_IMPORT:-0}"
printf '<%s>' "$@"
printf ' gpus=%s path=%s\\n' "$CUDA_VISIBLE_DEVICES" "$PYTHONPATH"
"""
# Stands for Gunicorn with the server in it; `run.sh` in its command line is what deploy.sh looks for.
FAKE_RUN = """#!/usr/bin/env bash
echo "stub run.sh: WORKERS=$WORKERS GPUS=$CUDA_VISIBLE_DEVICES"
[[ -z ${FAKE_FAILS:-} ]] || { echo "the port is taken"; exit 7; }
exec "$REAL_PYTHON" "$STUB_SERVER" "$PORT" "${FAKE_HEALTHY_AFTER:-0}" run.sh
"""


class Project:
    def __init__(self, folder: Path, port: int) -> None:
        self.root = folder / "a project"  # with a space, as folders of users have
        self.bin = folder / "bin"
        self.pid_file = folder / "run" / "light-tts.pid"
        self.port = port
        for name in COPIED:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.root / name)
        self.bin.mkdir()
        self.write("run.sh", FAKE_RUN, executable=True)
        (self.bin / "python").write_text(FAKE_PYTHON, encoding="utf-8")
        (self.bin / "python").chmod(0o755)

    def write(self, name: str, text: str, *, executable: bool = False) -> Path:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        if executable:
            file.chmod(0o755)
        return file

    def environment(self, **variables: str) -> dict[str, str]:
        return {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "HOME": str(self.root),
            "PORT": str(self.port),
            "LIGHT_TTS_PID_FILE": str(self.pid_file),
            "REAL_PYTHON": sys.executable,
            "STUB_SERVER": str(Path(__file__).parent / "stub_server.py"),
            **variables,
        }

    def run(
        self, script: str, *arguments: str, cwd: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(self.root / script), *arguments],
            env=self.environment(**variables),
            cwd=cwd or self.root,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
