"""The check that is run by hand on a GPU works: here with a tiny model on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(300)
def test_the_check_runs_to_its_end_and_finds_fast_equal_to_slow(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "test.gpu.llm_check",
        "--device",
        "cpu",
        "--tiny",
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(
        [*command, "--parts", "equal", "engine"], check=True, capture_output=True, text=True
    )
    jobs = json.loads((tmp_path / "llm.json").read_text())["jobs"]
    for kind in ("float32", "float32+int8"):
        found = jobs[f"equal:{kind}"]["equal"]
        assert found["equal_runs"] == found["runs"]
    assert found["logits_error"] < 2e-2
    assert "FAIL" not in done.stdout
    assert jobs["engine"]["float32"]["tokens_per_s_3"] > 0
