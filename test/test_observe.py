from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from light_tts.observe import exposition, log_stage, metrics, reap, request_scope, set_up_logging

NAMES = """
    light_tts_requests_total light_tts_request_latency_seconds light_tts_ttfa_seconds light_tts_rtf
    light_tts_audio_seconds_total light_tts_underrun_seconds light_tts_continuity_ok_total light_tts_queue_size
    light_tts_queue_oldest_seconds light_tts_running light_tts_batch_size light_tts_kv_tokens
    light_tts_voice_cache_total light_tts_restarts_total light_tts_gpu_memory_bytes light_tts_backend_info
    light_tts_stage_seconds lightllm_request_count lightllm_request_success lightllm_request_failure
    lightllm_request_duration lightllm_request_latency lightllm_queue_size lightllm_batch_current_size
""".split()


@pytest.fixture
def _plain_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(False)
    root.handlers[:], root.level = handlers, level


@pytest.mark.usefixtures("_plain_logging")
def test_a_line_says_when_how_bad_where_which_request_and_what(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("INFO", process="decode-1")
    logger = logging.getLogger("light_tts.test")
    with request_scope("ab12/7.0"):
        logger.info("spoken")
    logger.debug("too much")
    logger.warning("alone")
    lines = capsys.readouterr().err.splitlines()
    assert [re.sub(r"^[-\d]+ [\d:,]+ ", "", line) for line in lines] == [
        "INFO [decode-1] ab12/7.0 spoken",
        "WARNING [decode-1] alone",
    ]


@pytest.mark.usefixtures("_plain_logging")
def test_setting_up_again_does_not_double_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("INFO", process="a")
    set_up_logging("INFO", process="b")
    logging.getLogger("light_tts.test").info("once")
    assert capsys.readouterr().err.count("once") == 1


@pytest.mark.usefixtures("_plain_logging")
def test_requests_served_at_once_keep_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("INFO", process="http-1")

    async def serve(name: str) -> None:
        with request_scope(name):
            await asyncio.sleep(0.01)
            logging.getLogger("light_tts.test").info("done %s", name)

    async def serve_both() -> None:
        await asyncio.gather(serve("one"), serve("two"))

    asyncio.run(serve_both())
    lines = sorted(line.partition("] ")[2] for line in capsys.readouterr().err.splitlines())
    assert lines == ["one done one", "two done two"]


@pytest.mark.usefixtures("_plain_logging")
def test_the_guides_log_analysis_finds_the_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("INFO", process="encode-0")
    logger = logging.getLogger("light_tts.test")
    log_stage(logger, "a/1.0", "encode", 0.01234)
    with request_scope("a/1.0"):
        log_stage(logger, "a/1.0", "encode", 1.5)
    log = capsys.readouterr().err
    assert log.count("a/1.0") == 2
    command = "grep cost_time | awk '{print $NF}' | sed 's/ms//' | sort -n"
    done = subprocess.run(["bash", "-c", command], input=log, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["12.3", "1500.0"]


def test_every_promised_metric_has_its_name() -> None:
    text = exposition(metrics())[0].decode()
    families = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    missing = {name for name in NAMES if name not in families and f"{name}_total" not in families}
    assert not missing
    assert sum(name.startswith("light_tts_audio_") for name in families) >= 6
    assert any("queue" in name for name in families)  # the guide greps for it


def test_metrics_of_one_process_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    first, second = metrics(), metrics()
    first.requests.labels("ok").inc(3)
    assert b'light_tts_requests_total{outcome="ok"} 3.0' in exposition(first)[0]
    assert b'outcome="ok"' not in exposition(second)[0]


def _run_with_metrics(folder: Path, code: str) -> str:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    code = f"import os\nfrom pathlib import Path\nfrom light_tts.observe import *\nm = metrics()\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_processes_add_up_and_the_dead_keep_their_counts_but_not_their_gauges(tmp_path: Path) -> None:
    pid = _run_with_metrics(
        tmp_path,
        "m.requests.labels('ok').inc(2); m.ttfa.observe(0.1); m.kv_tokens.labels('used').set(7)\nprint(os.getpid())",
    )
    _run_with_metrics(tmp_path, "m.requests.labels('ok').inc(3); m.ttfa.observe(0.2)")
    show = "print(exposition(m)[0].decode())"
    before = _run_with_metrics(tmp_path, show).splitlines()
    assert 'light_tts_requests_total{outcome="ok"} 5.0' in before
    assert "light_tts_ttfa_seconds_count 2.0" in before
    assert 'light_tts_kv_tokens{state="used"} 7.0' in before
    after = _run_with_metrics(
        tmp_path, f"reap(Path({str(tmp_path)!r}), lambda pid: pid != {pid.strip()}); {show}"
    ).splitlines()
    assert 'light_tts_requests_total{outcome="ok"} 5.0' in after
    assert not [line for line in after if line.startswith('light_tts_kv_tokens{state="used"}')]


def _kill_after(folder: Path, code: str) -> int:
    """Pid of a process that has run the code and was killed."""
    pid = _run_with_metrics(folder, f"{code}; print(os.getpid(), flush=True)")
    return int(pid)


def _counts(text: str) -> dict[str, float]:
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines if "_bucket" in name or "_total" in name}


def test_restarts_neither_fill_the_folder_nor_lose_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "m.requests.labels('ok').inc(2); m.ttfa.observe(0.0625); m.ttfa.observe(7)"
    code += "; m.kv_tokens.labels('used').set(7)"
    seen: list[dict[str, float]] = []
    for restart in range(1, 6):
        pid = _kill_after(tmp_path, code)
        reap(tmp_path, lambda asked, dead=pid: asked != dead)  # type: ignore[misc]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["counter_ended.db", "histogram_ended.db"]
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
        text = exposition(metrics())[0].decode()
        assert f'light_tts_requests_total{{outcome="ok"}} {2.0 * restart}' in text
        assert f'light_tts_ttfa_seconds_bucket{{le="0.1"}} {1.0 * restart}' in text
        assert f'light_tts_ttfa_seconds_bucket{{le="+Inf"}} {2.0 * restart}' in text
        assert f"light_tts_ttfa_seconds_sum {7.0625 * restart}" in text
        assert "light_tts_kv_tokens{" not in text
        seen.append(_counts(text))
    for before, after in pairwise(seen):
        assert all(after[name] >= value for name, value in before.items())


def test_counts_of_the_living_are_left_alone(tmp_path: Path) -> None:
    pid = _kill_after(tmp_path, "m.requests.labels('ok').inc()")
    before = sorted(tmp_path.iterdir())
    reap(tmp_path, lambda asked: asked == pid)
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_that_its_process_had_no_time_to_fill_spoils_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _kill_after(tmp_path, "m.requests.labels('ok').inc()")
    (tmp_path / "counter_99.db").touch()
    (tmp_path / "histogram_99.db").write_bytes(struct.pack("i", 200) + b"\x7f" * 200)
    reap(tmp_path, lambda _: False)
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    assert b'light_tts_requests_total{outcome="ok"} 1.0' in exposition(metrics())[0]


def test_nothing_is_added_up_while_the_page_is_read(tmp_path: Path) -> None:
    _kill_after(tmp_path, "m.requests.labels('ok').inc()")
    before = sorted(tmp_path.iterdir())
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)
    reap(tmp_path, lambda _: False)
    assert sorted(tmp_path.iterdir()) == before
    os.close(handle)
    reap(tmp_path, lambda _: False)
    assert sorted(tmp_path.iterdir()) != before
