from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile

from light_tts.cli import main


@pytest.fixture(scope="module")
def folder(golden: Path) -> str:
    return str(golden / "cosyvoice3")


@pytest.fixture(scope="module")
def prompt(golden: Path) -> str:
    return str(golden / "fixtures" / "prompt_24k.wav")


def test_say_writes_a_wav(
    folder: str, prompt: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.wav"
    status = main(
        ["say", "ok.", "--model_dir", folder, "--prompt-audio", prompt, "-o", str(out), "--seed", "1"]
    )
    assert status == 0
    assert "RTF" in capsys.readouterr().err
    info = soundfile.info(out)
    assert (info.samplerate, info.channels, info.subtype) == (24_000, 1, "PCM_16")
    assert info.duration > 0.3


def test_say_streamed_tells_the_time_to_first_audio(
    folder: str, prompt: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["say", "你好。", "--model-dir", folder, "--prompt-audio", prompt, "--prompt-text", "ok."]
    assert main([*arguments, "-o", str(tmp_path / "a.wav"), "--stream"]) == 0
    assert "first audio after" in capsys.readouterr().err


def test_convert_speaks_with_the_other_voice(folder: str, prompt: str, tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    status = main(
        ["say", "--convert", prompt, "--prompt-audio", prompt, "--model_dir", folder, "-o", str(out)]
    )
    assert status == 0
    assert abs(soundfile.info(out).duration - 3.03) < 0.05


def test_batch_goes_on_after_bad_lines_and_writes_what_the_evaluator_reads(
    folder: str, prompt: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        json.dumps({"id": "one", "text": "ok.", "lang": "en", "prompt_wav": prompt, "prompt_text": "ok."}),
        "this is not JSON",
        json.dumps({"id": "../escape", "text": "ok.", "prompt_wav": prompt}),
        json.dumps({"id": "gone", "text": "ok.", "prompt_wav": "missing.wav"}),
        json.dumps({"id": "empty", "text": " ", "prompt_wav": prompt}),
        json.dumps({"id": "wrong", "text": "ok.", "prompt_wav": prompt, "seed": "x"}),
        "",
        json.dumps({"id": "two", "text": "你好", "prompt_wav": prompt}),
    ]
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text("\n".join(lines), encoding="utf-8")
    out = tmp_path / "out"
    assert main(["say", "--batch", str(jobs), "-o", str(out), "--model_dir", folder]) == 1
    told = capsys.readouterr().err
    assert "5 jobs failed" in told
    for number in (2, 3, 4, 5, 6):
        assert f"jobs.jsonl:{number}:" in told
    manifest = [json.loads(line) for line in (out / "manifest.jsonl").read_text("utf-8").splitlines()]
    assert [(row["wav"], row["lang"]) for row in manifest] == [("one.wav", "en"), ("two.wav", "zh")]
    for row in manifest:
        assert (out / row["wav"]).is_file()
        assert Path(row["prompt_wav"]).is_file()
        assert row["rtf"] > 0
    assert not (tmp_path / "escape.wav").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["say", "hi"], "-o"),
        (["say", "-o", "x.wav"], "exactly one"),
        (["say", "hi", "--batch", "jobs", "-o", "x"], "exactly one"),
        (["say", "--convert", "missing.wav", "-o", "x.wav"], "missing.wav"),
        (["say", "hi", "-o", "x.wav", "--speed", "9"], "speed"),
        (["say", "hi", "-o", "x.wav", "--voice", "a", "--prompt-text", "b"], "prompt_audio"),
    ],
)
def test_wrong_usage_exits_2_and_says_why(
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


def test_an_unusable_model_directory_exits_1_and_names_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["say", "hi", "-o", str(tmp_path / "x.wav"), "--model_dir", str(tmp_path)]) == 1
    assert "cosyvoice2.yaml" in capsys.readouterr().err


def test_voices_of_a_model_are_listed(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for entry in (golden / "cosyvoice3").iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    (tmp_path / "me.wav").symlink_to(golden / "fixtures" / "prompt_24k.wav")
    voices = [{"name": "me", "wav": "me.wav", "text": "ok.", "lang": "en"}]
    (tmp_path / "prompts.json").write_text(json.dumps(voices), encoding="utf-8")
    assert main(["voices", "--model_dir", str(tmp_path)]) == 0
    assert "me" in capsys.readouterr().out


def test_bench_prints_and_writes_figures(folder: str, golden: Path, tmp_path: Path) -> None:
    for entry in Path(folder).iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    (tmp_path / "me.wav").write_bytes((golden / "fixtures" / "prompt_24k.wav").read_bytes())
    (tmp_path / "prompts.json").write_text(
        json.dumps([{"name": "me", "wav": "me.wav", "text": "ok.", "lang": "en"}]), encoding="utf-8"
    )
    out = tmp_path / "figures.json"
    assert (
        main(["bench", "--model_dir", str(tmp_path), "--repeats", "1", "--text", "ok.", "--json", str(out)])
        == 0
    )
    figures = json.loads(out.read_text("utf-8"))
    assert figures["load_s"] > 0
    assert set(figures["stage_share"]) >= {"llm", "flow", "vocoder"}
