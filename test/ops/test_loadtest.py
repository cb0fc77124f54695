from __future__ import annotations

import asyncio
import base64
import json
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from light_tts.loadtest.client import Level, Outcome, Plan, Shape, measure
from light_tts.loadtest.figures import Percentiles, figures_of
from light_tts.loadtest.report import as_json, write_plot
from test.benchmark import PROMPT_WAV, main
from test.ops.stub_server import Stub

WAV = b"RIFF....not really"


def _measure(plan: Plan, *, stream: bool = True, concurrency: int = 1, requests: int = 1) -> Level:
    done: list[int] = []
    level = asyncio.run(
        measure(plan, stream=stream, concurrency=concurrency, requests=requests, done=lambda: done.append(1))
    )
    assert len(done) == requests
    return level


def test_json_request_has_the_shape_of_the_guide(stub: Stub) -> None:
    plan = Plan(stub.url, ("这是一个性能测试",), WAV, "请用自然的声音朗读", fields={"top_k": "5"})
    level = _measure(plan, stream=False)
    assert level.outcomes[0].fault is None
    assert stub.types == ["application/json"]
    assert stub.requests == [
        {
            "tts_text": "这是一个性能测试",
            "prompt_text": "请用自然的声音朗读",
            "prompt_wav": base64.b64encode(WAV).decode(),
            "stream": False,
            "seed": 0,
            "top_k": 5,
        }
    ]


def test_multipart_request_has_the_shape_of_upstreams_clients(stub: Stub) -> None:
    level = _measure(Plan(stub.url, ("你好",), WAV, "原文", shape=Shape.MULTIPART))
    assert level.outcomes[0].fault is None
    assert stub.types == ["multipart/form-data"]
    (fields,) = stub.requests
    assert (fields["tts_text"], fields["prompt_text"], fields["stream"]) == ("你好", "原文", "true")
    assert fields["prompt_wav"] == WAV


@pytest.mark.parametrize("shape", [*Shape])
def test_a_named_voice_takes_the_place_of_the_recording(stub: Stub, shape: Shape) -> None:
    _measure(Plan(stub.url, ("你好",), voice="anna", shape=shape))
    assert stub.requests[0]["voice"] == "anna"
    assert not {"prompt_wav", "prompt_text"} & stub.requests[0].keys()


def test_as_many_requests_are_in_flight_as_there_are_clients(stub: Stub) -> None:
    stub.gap_s = 0.05
    level = _measure(Plan(stub.url, ("a", "b")), concurrency=4, requests=8)
    assert stub.most_at_once == 4
    assert level.wall_s < 8 * 3 * stub.gap_s
    assert sorted(str(fields["tts_text"]) for fields in stub.requests) == ["a"] * 4 + ["b"] * 4


def test_an_answer_slower_than_its_playback_runs_dry(stub: Stub) -> None:
    stub.gap_s = 0.5  # of 0.25 s each
    (slow,) = _measure(Plan(stub.url, ("a",))).outcomes
    assert slow.underrun_s == pytest.approx(0.75, abs=0.2)
    assert not slow.continuous
    assert slow.ttfa_s is not None
    assert slow.ttfa_s < 0.3 < slow.latency_s
    assert slow.audio_s == pytest.approx(1.0)


def test_an_answer_as_fast_as_its_playback_does_not(stub: Stub) -> None:
    stub.gap_s = 0.1
    (outcome,) = _measure(Plan(stub.url, ("a",))).outcomes
    assert outcome.continuous
    assert outcome.underrun_s == 0.0


def test_refusals_empty_answers_and_half_samples_are_faults(stub: Stub) -> None:
    plan = Plan(stub.url, ("a",))
    stub.pieces = []
    assert _measure(plan).outcomes[0].fault == "200, but no audio"
    stub.pieces = [b"\0\0\0"]
    assert "whole number of samples" in str(_measure(plan).outcomes[0].fault)
    stub.status = 503
    assert _measure(plan).outcomes[0].fault == "503 no such luck"


def test_a_server_that_is_not_there_is_a_fault(free_port: int) -> None:
    (outcome,) = _measure(Plan(f"http://127.0.0.1:{free_port}", ("a",))).outcomes
    assert outcome.fault is not None
    assert outcome.fault.startswith("ConnectError")


def test_percentiles_are_measured_values() -> None:
    values = Percentiles.of([float(number) for number in range(100, 0, -1)])
    assert values == Percentiles(50.5, 50.0, 90.0, 99.0, 1.0, 100.0)
    assert Percentiles.of([]) is None
    one = Percentiles.of([3.0])
    assert one is not None
    assert one.p50 == one.p99 == 3.0


def test_figures_leave_failures_out_and_count_them() -> None:
    good = Outcome(2.0, 0.5, 4.0, 0.0, True)
    dry = Outcome(6.0, 0.7, 4.0, 1.5, False)
    bad = Outcome(0.1, None, 0.0, 0.0, True, "503 busy")
    figures = figures_of(Level(True, 3, 8.0, (good, dry, bad, bad)))
    assert (figures.requests, figures.failures, figures.faults) == (4, 2, {"503 busy": 2})
    assert (figures.requests_per_s, figures.audio_s_per_s) == (0.25, 1.0)
    assert (figures.underruns, figures.underrun_s) == (1, 1.5)
    assert figures.rtf is not None
    assert (figures.rtf.min, figures.rtf.max) == (0.5, 1.5)
    assert figures_of(Level(True, 1, 1.0, (bad,))).latency_s is None


def test_benchmark_runs_all_levels_and_writes_json(
    stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "figures.json"
    arguments = ["--url", stub.url, "--requests", "4", "--concurrency", "1,2", "--warmup", "1"]
    assert main([*arguments, "--json", str(target)]) == 0
    document = json.loads(target.read_text("utf-8"))
    levels = [(level["stream"], level["concurrency"]) for level in document["levels"]]
    assert levels == [(True, 1), (True, 2), (False, 1), (False, 2)]
    assert all(level["failures"] == 0 and level["requests"] == 4 for level in document["levels"])
    assert len(stub.requests) == 4 * (4 + 1)
    assert base64.b64decode(str(stub.requests[0]["prompt_wav"])) == PROMPT_WAV.read_bytes()
    assert "audio-s/s" in capsys.readouterr().out


def test_benchmark_fails_when_requests_fail(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.status = 429
    assert main(["--url", stub.url, "--requests", "2", "--concurrency", "1", "--mode", "stream"]) == 1
    assert "2x 429 no such luck" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [["--mode", "both"], ["--concurrency", "x"], ["--requests", "0"]])
def test_benchmark_refuses_wrong_usage(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 2


def test_benchmark_draws_its_figures(stub: Stub, tmp_path: Path) -> None:
    target = tmp_path / "figures.png"
    arguments = ["--url", stub.url, "--requests", "4", "--concurrency", "1,2", "--warmup", "0"]
    assert main([*arguments, "--png", str(target)]) == 0
    picture = matplotlib.image.imread(target)  # decodes it: a broken file raises
    assert picture.shape[:2] == (480, 1440)
    assert target.stat().st_size > 40_000  # the empty frames alone have 27,000
    assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 100


def test_a_plot_of_nothing_but_failures_is_drawn_all_the_same(tmp_path: Path) -> None:
    bad = figures_of(Level(True, 1, 1.0, (Outcome(0.1, None, 0.0, 0.0, True, "503 busy"),)))
    target = tmp_path / "figures"
    write_plot([bad], target)
    assert target.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_without_matplotlib_benchmark_says_so_before_it_measures(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as where it is not installed
    with pytest.raises(SystemExit) as ended:
        main(["--url", stub.url, "--png", str(tmp_path / "figures.png")])
    assert ended.value.code == 2
    assert "pip install -c constraints.txt matplotlib" in capsys.readouterr().err
    assert not stub.requests


def test_json_holds_what_failed(stub: Stub) -> None:
    figures = [figures_of(_measure(Plan(stub.url, ("a",)), stream=stream)) for stream in (True, False)]
    assert json.loads(as_json(figures, {}))["levels"][0]["failures"] == 0
