"""The evaluation speaks every sentence in every way, and its table says what was measured and what was not."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from light_tts.audio import Audio
from recipes.mini import bars
from recipes.mini import evaluate as evaluate_module
from recipes.mini.bars import Bar, Row, Side, table
from recipes.mini.clips import ClipCheck, check_clip, read_clip
from recipes.mini.corpus import TOKEN
from recipes.mini.errors import RecipeError
from recipes.mini.evaluate import Evaluator, evaluate
from recipes.mini.export import untrained, write_model
from recipes.mini.recordings import RECORDINGS, VoicePlan
from recipes.mini.scores import clip_rows, score_rows, speed_rows
from recipes.mini.settings import SAMPLE_RATE, Settings
from recipes.mini.trials import (
    CROSS,
    OTHER,
    OWN,
    SEEDS,
    VOICE,
    Clip,
    Spoken,
    Trial,
    read_tests,
    speak,
    tone_trial,
    voice_trials,
)
from recipes.mini.trials import (
    test_trials as trials_of_tests,
)
from recipes.mini.voices import make_voices
from test.recipes.test_export import VOCABULARY, onnx_writers

RATE = SAMPLE_RATE
TEST = {
    "id": "zh01", "lang": "zh", "text": "你好。", "prompt_wav": "p.wav", "prompt_text": "你好",
    "cross_prompt_wav": "c.wav", "cross_prompt_text": "hello",
    "other_prompt_wav": "o.wav", "other_prompt_text": "hello",
}  # fmt: skip
SCORER = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1]); details = sys.argv[sys.argv.index("--details") + 1]
rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
scores = [{"wav": r["wav"], "err": 1, "ref": 8, "perr": 1, "hyp": "hm", "sim": 0.7, "ovrl": 3.0} for r in rows]
pathlib.Path(details).write_text("".join(json.dumps(s) + "\\n" for s in scores))
sys.exit(1)  # a limit was missed: no failure
"""


def noise(seconds: float, level: float = 0.1) -> NDArray[np.float32]:
    return (level * np.random.default_rng(0).standard_normal(round(seconds * RATE))).astype(np.float32)


def clip(name: str, language: str = "en", **scores: float) -> Clip:
    plain = Clip(name, Path(f"trial/{name}.wav"), "text", language, 0.1, 0.15)
    return dataclasses.replace(plain, **{"words": 10, "errors": 0, **scores})  # type: ignore[arg-type]


def spoken(
    column: str, clips: list[Clip], *, streamed: bool = False, missing: list[str] | None = None
) -> Spoken:
    return Spoken(Trial(column, streamed, 0, []), clips, missing or [])


def by_bar(rows: list[Row]) -> dict[Bar, Row]:
    return {row.bar: row for row in rows}


# --- clips


@pytest.mark.parametrize(
    ("seconds", "verdicts"),
    [(1.7, (False, False, False)), (4.0, (True, False, False)), (0.5, (False, True, False))],
)
def test_length_is_compared_with_what_the_text_needs(
    seconds: float, verdicts: tuple[bool, bool, bool]
) -> None:
    check = check_clip(noise(seconds), RATE, num_symbols=10, language="en")
    assert (check.is_runaway, check.is_early_stop, check.is_silence) == verdicts


def test_silence_is_found_in_the_middle_and_in_all() -> None:
    assert check_clip(noise(2.0, 1e-4), RATE, 10, "en").is_silence
    hole = np.concatenate([noise(0.5), np.zeros(round(1.6 * RATE), np.float32), noise(0.5)])
    assert check_clip(hole, RATE, 10, "en").is_silence
    pause = np.concatenate([noise(0.5), np.zeros(round(0.8 * RATE), np.float32), noise(0.5)])
    assert not check_clip(pause, RATE, 10, "en").is_silence


@pytest.mark.parametrize("samples", [np.zeros(0, np.float32), np.zeros(RATE, np.float32), noise(0.1)])
def test_a_clip_that_no_prompt_could_be_is_read_all_the_same(
    samples: NDArray[np.float32], tmp_path: Path
) -> None:
    Audio(samples, RATE).save(tmp_path / "clip.wav")
    audio = read_clip(tmp_path / "clip.wav")
    assert len(audio.samples) == len(samples)
    check = check_clip(audio.samples, audio.sample_rate_hz, 10, "zh")
    assert check.is_early_stop or check.is_silence


# --- what is spoken


def test_every_kind_of_prompt_is_tried_and_its_own_streamed(tmp_path: Path) -> None:
    trials = trials_of_tests([TEST], tmp_path, seeds=2)
    names = {trial.name for trial in trials}
    assert names == {
        f"{kind}-{seed}"
        for seed in (0, 1)
        for kind in ("own-whole", "own-streamed", "cross-whole", "other-whole")
    }
    cross = next(trial for trial in trials if trial.name == "cross-whole-0")
    assert cross.jobs[0]["prompt_wav"] == str((tmp_path / "c.wav").resolve())
    assert cross.jobs[0]["prompt_text"] == "hello"


def test_a_kind_of_prompt_that_no_test_has_is_left_out(tmp_path: Path) -> None:
    own = {name: value for name, value in TEST.items() if not name.startswith(("cross", "other"))}
    assert {trial.column for trial in trials_of_tests([own], tmp_path, 1)} == {OWN}


def test_voices_take_turns_and_one_sentence_has_ten_seeds() -> None:
    tests = [{**TEST, "id": f"zh{k}"} for k in range(3)] + [
        {**TEST, "id": "en", "lang": "en", "text": "Hello."}
    ]
    whole, streamed, seeds = voice_trials(tests, {"zh": ["a", "b"], "en": ["c"]})
    assert [job["voice"] for job in whole.jobs] == ["a", "b", "a", "c"]
    assert (streamed.streamed, streamed.jobs) == (True, whole.jobs)
    assert seeds.column == SEEDS
    assert [job["seed"] for job in seeds.jobs if job["lang"] == "zh"] == list(range(10))
    assert len(seeds.jobs) == 20
    assert voice_trials(tests, {"zh": ["a"]}) == []


def test_tone_sentences_are_named_by_voice_set_and_tone() -> None:
    jobs = tone_trial(["a-b"]).jobs
    assert len(jobs) == 36
    assert (jobs[5]["id"], jobs[5]["voice"]) == ("a-b-1-2", "a-b")


def test_tests_are_read_and_halved_by_language(tmp_path: Path) -> None:
    path = tmp_path / "tests.jsonl"
    rows = [{**TEST, "id": f"{lang}{k}", "lang": lang} for k in range(4) for lang in ("en", "zh")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    assert len(read_tests(path)) == 8
    assert [row["id"] for row in read_tests(path, 4)] == ["en0", "en1", "zh0", "zh1"]
    path.write_text('{"id": "x"}\n', "utf-8")
    with pytest.raises(RecipeError, match="holds no tests"):
        read_tests(path)


# --- from scores to the table


def test_errors_are_counted_over_all_words_of_a_language() -> None:
    own = [
        clip("a", errors=1, words=4),
        clip("b", errors=0, words=36),
        clip("c", "zh", errors=2, words=10, pinyin_errors=1),
    ]
    rows = by_bar(score_rows([spoken(OWN, own)]))
    assert rows[bars.WER].value == pytest.approx(2.5)
    assert rows[bars.WER].verdict == "met"
    assert rows[bars.CER].value == pytest.approx(20.0)
    assert rows[bars.CER].verdict == "MISSED"
    assert rows[bars.PINYIN].value == pytest.approx(10.0)
    assert (rows[bars.WORST].value, rows[bars.WORST].verdict) == (25.0, "met")
    assert rows[bars.WORST].note.startswith("a:")


def test_similarity_is_told_by_kind_of_prompt() -> None:
    results = [
        spoken(OWN, [clip("a", similarity=0.8), clip("b", similarity=0.9)]),
        spoken(CROSS, [clip("a", similarity=0.82)]),
        spoken(OTHER, [clip("a", similarity=0.6)]),
    ]
    rows = by_bar(score_rows(results))
    assert rows[bars.SIM_OWN].value == pytest.approx(0.85)
    assert rows[bars.SIM_CROSS].value == pytest.approx(0.03)
    assert (rows[bars.SIM_OTHER].value, rows[bars.SIM_OTHER].verdict) == (0.6, "MISSED")


def test_streaming_is_compared_with_whole_synthesis_in_the_worse_language() -> None:
    whole = spoken(OWN, [clip("a", errors=1), clip("c", "zh", errors=2)])
    streamed = spoken(OWN, [clip("a", errors=1), clip("c", "zh", errors=3)], streamed=True)
    assert by_bar(score_rows([whole, streamed]))[bars.STREAMED].value == pytest.approx(10.0)


def test_ten_seeds_are_judged_by_their_worst_and_by_nothing_else() -> None:
    results = [spoken(OWN, [clip("a")]), spoken(SEEDS, [clip("a-1", errors=4), clip("a-2")])]
    rows = by_bar(score_rows(results))
    assert rows[bars.SEEDS].value == pytest.approx(40.0)
    assert rows[bars.WORST].value == 0.0


def test_what_was_not_scored_is_not_measured() -> None:
    rows = score_rows([spoken(OWN, [dataclasses.replace(clip("a"), words=0)])])
    assert {row.verdict for row in rows} == {"not measured"}


def test_bad_clips_are_counted_and_named() -> None:
    good, long, short = (
        ClipCheck(2, 2, 0.1, False),
        ClipCheck(5, 2, 0.1, False),
        ClipCheck(0.5, 2, 0.1, False),
    )
    checks = {Path("t/a.wav"): good, Path("t/b.wav"): long, Path("t/c.wav"): short}
    rows = by_bar(clip_rows([spoken(VOICE, [], missing=["d"])], checks))
    assert (rows[bars.RUNAWAYS].value, rows[bars.RUNAWAYS].note) == (1, "of 4 sentences in a row, t/b")
    assert rows[bars.EARLY_STOPS].value == 2
    assert "voice-whole-0/d" in rows[bars.EARLY_STOPS].note
    assert rows[bars.SILENCES].verdict == "met"


def test_speed_is_the_median_without_the_first_sentence() -> None:
    clips = [
        clip(str(k), rtf=rtf, first_s=first)
        for k, (rtf, first) in enumerate([(9, 9), (0.1, 0.1), (0.2, 0.3)])
    ]
    rows = by_bar(speed_rows([spoken(VOICE, clips), spoken(VOICE, clips, streamed=True)]))
    assert rows[bars.RTF].value == pytest.approx(0.15)
    assert (rows[bars.FIRST_AUDIO].value, rows[bars.FIRST_AUDIO].verdict) == (pytest.approx(200.0), "met")


def test_the_table_shows_value_bar_and_verdict() -> None:
    bar = Bar("errors", Side.AT_MOST, 2.5, 1)
    lines = table([Row(bar, 3.14159, "why"), Row(bar, None)]).splitlines()
    assert lines[2] == "| errors | 3.1 | <= 2.5 | MISSED | why |"
    assert lines[3] == "| errors | - | <= 2.5 | not measured |  |"


# --- the whole way


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = Settings.tiny()
    root = tmp_path_factory.mktemp("evaluate")
    model = write_model(root / "model", settings, untrained(settings, VOCABULARY), onnx_writers(settings))
    (root / RECORDINGS).mkdir()
    Audio(noise(34 * TOKEN / RATE), RATE).save(root / RECORDINGS / "someone.wav")
    make_voices(root, model, [VoicePlan("someone", "zh", "", {}, {}, "你好。")])
    return model


def test_a_trial_is_spoken_and_scored_in_processes_of_their_own(model_dir: Path, tmp_path: Path) -> None:
    jobs: list[dict[str, object]] = [
        {"id": "a", "text": "你好。", "lang": "zh", "voice": "someone"},
        {"id": "b", "text": "你好。", "lang": "zh", "voice": "nobody"},
    ]
    result = speak(Trial(VOICE, True, 3, jobs), model_dir, tmp_path, threads=1)
    assert result.missing == ["b"]
    (only,) = result.clips
    assert only.path.is_file()
    assert only.first_s > 0
    script = tmp_path / "scorer.py"
    script.write_text(SCORER, "utf-8")
    (scored,) = Evaluator(script, Path(sys.executable)).score(result).clips
    assert (scored.errors, scored.words, scored.similarity, scored.heard) == (1, 8, 0.7, "hm")
    script.write_text("raise SystemExit('no recogniser')", "utf-8")
    (only.path.parent / "details.jsonl").unlink()
    with pytest.raises(RecipeError, match="no recogniser"):
        Evaluator(script, Path(sys.executable)).score(result)


def test_the_evaluation_leaves_a_table_and_figures(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoken_by_nobody(trial: Trial, _model: Path, out: Path, _threads: int) -> Spoken:
        folder = out / trial.name
        folder.mkdir(parents=True)
        Audio(noise(1.0), RATE).save(folder / "zh01.wav")
        return Spoken(trial, [Clip("zh01", folder / "zh01.wav", "你好。", "zh", 0.1, 0.1)], [])

    monkeypatch.setattr(evaluate_module, "speak", spoken_by_nobody)
    tests = tmp_path / "tests.jsonl"
    tests.write_text(json.dumps(TEST) + "\n", "utf-8")
    rows = evaluate(tmp_path, model_dir, tests, tmp_path / "out")
    assert len(rows) == 16
    assert {row.bar for row in rows} >= {bars.TONES, bars.RUNAWAYS, bars.RTF, bars.WER}
    figures = json.loads((tmp_path / "out" / "figures.json").read_text("utf-8"))
    assert [figure["figure"] for figure in figures] == [row.bar.figure for row in rows]
    assert "| runaways | 0 |" in (tmp_path / "out" / "table.md").read_text("utf-8")
