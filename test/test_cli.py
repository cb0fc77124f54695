from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import soundfile

from light_tts.cli import main
from light_tts.errors import InvalidInput
from light_tts.say import job_request, read_jobs


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
        json.dumps({"id": "TWO", "text": "ok.", "prompt_wav": prompt}),
        json.dumps({"id": "device", "text": "ok.", "prompt_wav": "/dev/zero"}),
    ]
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text("\n".join(lines), encoding="utf-8")
    out = tmp_path / "out"
    assert main(["say", "--batch", str(jobs), "-o", str(out), "--model_dir", folder]) == 1
    told = capsys.readouterr().err
    assert "7 jobs failed" in told
    for number in (2, 3, 4, 5, 6, 9, 10):
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
        (["say", "hi", "-o", "."], "-o . is a folder"),
        (["say", "hi", "-o", "gone/x.wav"], "the folder gone does not exist"),
        (["say", "hi", "-o", "x.wav", "--device", "foo", "--model_dir", "."], "device is 'foo'"),
        (["say", "hi", "-o", "x.wav", "--threads", "0", "--model_dir", "."], "threads is 0"),
        (["say", "--batch", "here", "-o", "here"], "must be a folder"),
        (["say", "--batch", "here", "-o", "x", "--voice", "a"], "--voice cannot be used with --batch"),
        (["say", "--batch", "here", "-o", "x", "--speed", "1.5"], "--speed cannot be used with --batch"),
        (["say", "--convert", "here", "-o", "x", "--stream"], "--stream cannot be used with --convert"),
        (["bench", "--repeats", "0"], "--repeats is 0"),
        (["bench", "--json", "gone/x.json"], "--json gone/x.json: the folder gone does not exist"),
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
    Path("here").touch()
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


def test_standard_input_that_is_no_text_exits_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"ok \xff\x00")))
    assert main(["say", "-", "-o", str(tmp_path / "x.wav")]) == 2
    assert "byte 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (KeyboardInterrupt(), 130, ""),
        (OSError(28, "No space left on device", "x.wav"), 1, "x.wav: No space left on device\n"),
    ],
    ids=["interrupt", "full disk"],
)
def test_what_ends_a_command_ends_it_without_a_traceback(
    error: BaseException,
    status: int,
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def end(*_: object) -> None:
        raise error

    monkeypatch.setattr("light_tts.cli.run_voices", end)
    assert main(["voices"]) == status
    assert capsys.readouterr().err.endswith(told)


def test_jobs_are_lines_of_utf_8_and_nothing_else_ends_a_line(tmp_path: Path) -> None:
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_bytes(
        b"\xef\xbb\xbf"
        + '{"id": "a", "text": "x\u2028y"}\r\n'.encode()
        + b"\xff\n\n"
        + b'{"id": "b", "text": "x", "seed": '
        + b"9" * 5000
        + b"}\n"
        + b"[" * 100_000
    )
    read = list(read_jobs(jobs))
    assert [number for number, _ in read] == [1, 2, 4, 5]
    assert read[0][1] == {"id": "a", "text": "x\u2028y"}
    assert all(isinstance(job, InvalidInput) for _, job in read[1:])


def test_a_jobs_prompt_lies_beside_the_jobs_file_unless_it_is_absolute(tmp_path: Path) -> None:
    job: dict[str, object] = {"id": "a", "text": "x", "prompt_text": "y", "speed": 2, "seed": 3}
    request = job_request(job | {"prompt_wav": "b/c.wav"}, tmp_path)
    assert (request.prompt_audio, request.prompt_text) == (tmp_path / "b" / "c.wav", "y")
    assert (request.speed, request.seed) == (2, 3)
    assert job_request(job | {"prompt_wav": "/c.wav"}, tmp_path).prompt_audio == Path("/c.wav")


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
    assert list(figures["rtf_whole"]) == ["en"]  # only the given text
    assert set(figures["stage_share"]) >= {"llm", "flow", "vocoder"}
