#!/usr/bin/env python3
"""Live view of the machine and the server; `scripts/monitor.py --help`."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

VENV_PYTHON = Path(__file__).resolve().parents[1] / ".venv/bin/python"


def main() -> int:
    if find_spec("light_tts") is None and VENV_PYTHON.exists():
        os.execv(VENV_PYTHON, [str(VENV_PYTHON), *sys.argv])
    from light_tts.monitor.command import main as command

    return command()


if __name__ == "__main__":
    sys.exit(main())
