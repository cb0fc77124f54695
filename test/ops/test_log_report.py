from __future__ import annotations

import io
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from light_tts.cli import main
from light_tts.log_report import ALL, REQUEST, report, report_of

# The deployment guide's, word for word but for the file's name.
GUIDE = """
grep "cost_time" "$1" | \\
  awk '{print $NF}' | \\
  sed 's/ms//' | \\
  sort -n | \\
  awk 'BEGIN{count=0; sum=0} {count++; sum+=$1; arr[NR]=$1}
  END{print "Count:", count;
       print "Avg:", sum/count "ms";
       print "P50:", arr[int(NR*0.5)] "ms";
       print "P90:", arr[int(NR*0.9)] "ms";
       print "P99:", arr[int(NR*0.99)] "ms"}'
"""
STAMP = "2026-11-23 12:00:00,000 INFO"


def _log(folder: Path, requests: int) -> Path:
    random.seed(requests)
    lines = [f"{STAMP} [supervisor] ready"]
    for number in range(requests):
        for stage in ("encode", "llm", "decode"):
            lines.append(
                f"{STAMP} [{stage}-0] request r{number} stage {stage} cost_time {random.expovariate(0.01):.1f}ms"
            )
        lines.append(f"{STAMP} [http-1] r{number} ok, ttfa 0.2 s cost_time {random.uniform(100, 3000):.1f}ms")
        lines.append(f"{STAMP} [supervisor] 3 requests in work")
    log = folder / "light-tts.log"
    log.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return log


@pytest.mark.parametrize("requests", [1, 2, 25, 333])
def test_all_lines_agree_with_the_pipeline_of_the_guide(tmp_path: Path, requests: int) -> None:
    log = _log(tmp_path, requests)
    done = subprocess.run(
        ["bash", "-c", GUIDE, "bash", str(log)],
        capture_output=True,
        text=True,
        check=True,
        env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
    )
    told = {name: value.removesuffix("ms") for name, _, value in map(_parts, done.stdout.splitlines())}
    ours = report_of(log)[ALL]
    assert told["Count"] == str(ours.count) == str(4 * requests)
    assert float(told["Avg"]) == pytest.approx(ours.avg_ms, rel=1e-5)  # awk prints six digits
    assert (float(told["P50"]), float(told["P90"])) == (ours.p50_ms, ours.p90_ms)
    assert float(told["P99"]) == ours.p99_ms


def _parts(line: str) -> tuple[str, str, str]:
    return line.partition(": ")


def test_stages_and_requests_are_told_apart() -> None:
    lines = [
        f"{STAMP} [llm-0] request a stage llm cost_time 100.0ms",
        f"{STAMP} [llm-0] request b stage llm cost_time 300.0ms",
        f"{STAMP} [http-9] request a cost_time 1.5e+03ms",
    ]
    summaries = report(lines)
    assert list(summaries) == ["llm", REQUEST, ALL]
    assert (summaries["llm"].count, summaries["llm"].avg_ms, summaries["llm"].p50_ms) == (2, 200.0, 100.0)
    assert summaries[REQUEST].p99_ms == 1500.0
    assert summaries[ALL].count == 3


def test_a_single_time_is_every_percentile() -> None:
    (summary,) = {*report(["cost_time 7.5ms"]).values()}
    assert (summary.p50_ms, summary.p90_ms, summary.p99_ms) == (7.5, 7.5, 7.5)


def test_lines_that_do_not_end_in_a_time_do_not_count() -> None:
    assert report(["cost_time", "cost_time xms", "cost_time 5ms and more", "a cost_time of 5 s", ""]) == {}


def test_verb_prints_a_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = str(_log(tmp_path, 3))
    assert main(["logs", log]) == 0
    assert "P99" in capsys.readouterr().out
    assert main(["logs", log, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["llm"]["count"] == 3


def test_verb_reads_standard_input_with_bytes_that_are_no_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe\nstage llm cost_time 5ms\n")))
    assert main(["logs", "-", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["llm"]["count"] == 1


def test_verb_says_when_a_log_has_no_times_or_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty.log"
    empty.touch()
    assert main(["logs", str(empty)]) == 2
    assert "cost_time" in capsys.readouterr().err
    assert main(["logs", str(tmp_path / "gone.log")]) == 1
    assert "gone.log" in capsys.readouterr().err
