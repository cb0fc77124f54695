"""What is spoken for an evaluation: the test sentences with each kind of prompt, whole and streamed, and more."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from recipes.mini.errors import RecipeError
from recipes.mini.recordings import tone_texts

OWN, CROSS, OTHER, VOICE, SEEDS, TONES = "own", "cross", "other", "voice", "seeds", "tones"
COLUMNS = (OWN, CROSS, OTHER)  # kinds of prompts in tests.jsonl
NUM_SEEDS = 10

Job = dict[str, object]  # a line for `light-tts say --batch`


@dataclass(frozen=True, slots=True)
class Trial:
    """One batch of sentences, spoken one after the other by one process."""

    column: str
    streamed: bool
    seed: int
    jobs: list[Job]

    @property
    def name(self) -> str:
        return f"{self.column}-{'streamed' if self.streamed else 'whole'}-{self.seed}"


@dataclass(frozen=True, slots=True)
class Clip:
    """A synthesised sentence and its scores, as far as there are some. errors, words: of WER or CER"""

    name: str
    path: Path
    text: str
    language: str
    rtf: float
    first_s: float
    errors: int = 0
    words: int = 0
    pinyin_errors: int = 0
    similarity: float | None = None
    ovrl: float | None = None
    heard: str | None = None

    @property
    def error_pct(self) -> float:
        return 100 * self.errors / max(1, self.words)


@dataclass(slots=True)
class Spoken:
    """A trial's clips; missing: ids of the jobs that gave no audio"""

    trial: Trial
    clips: list[Clip] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def read_tests(path: Path, limit: int | None = None) -> list[Job]:
    """Lines of tests.jsonl; of a limit, half are of either language. Raises RecipeError."""
    try:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
        for row in rows:
            row["id"], row["text"], row["lang"], row["prompt_wav"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{path} holds no tests: {error!r}") from error
    if limit is None:
        return rows
    languages = [[row for row in rows if row["lang"] == language] for language in ("en", "zh")]
    return [row for part in languages for row in part[: max(1, limit // 2)]]


def test_trials(tests: Sequence[Job], folder: Path, seeds: int) -> list[Trial]:
    """Every sentence with every kind of prompt, whole; with its own kind also streamed. folder: of the prompts"""
    trials = []
    for seed in range(seeds):
        for column in COLUMNS:
            jobs = [job for test in tests if (job := _prompted(test, column, folder)) is not None]
            if jobs:
                trials.append(Trial(column, False, seed, jobs))
                if column == OWN:
                    trials.append(Trial(column, True, seed, jobs))
    return trials


def voice_trials(tests: Sequence[Job], voices: dict[str, list[str]]) -> list[Trial]:
    """The sentences in the built-in voices in turn, and ten seeds of one sentence in each language.

    voices: names by language
    """
    if not all(voices.get(language) for language in ("en", "zh")):
        return []
    jobs = [
        {"id": test["id"], "text": test["text"], "lang": test["lang"], "voice": names[k % len(names)]}
        for k, test in enumerate(tests)
        if (names := voices[str(test["lang"])])
    ]
    longest = {language: _longest(jobs, language) for language in ("en", "zh")}
    seeds = [
        {**job, "id": f"{job['id']}-{seed}", "seed": seed}
        for job in longest.values()
        if job is not None
        for seed in range(NUM_SEEDS)
    ]
    return [Trial(VOICE, False, 0, jobs), Trial(VOICE, True, 0, jobs), Trial(SEEDS, False, 0, seeds)]


def tone_trial(voices: Sequence[str]) -> Trial:
    """The minimal pairs in each of the Chinese voices; ids are VOICE-SET-TONE."""
    jobs: list[Job] = [
        {"id": f"{voice}-{number}-{tone}", "text": text, "lang": "zh", "voice": voice}
        for voice in voices
        for number, texts in enumerate(tone_texts())
        for tone, text in enumerate(texts, start=1)
    ]
    return Trial(TONES, False, 0, jobs)


def _longest(jobs: Sequence[Job], language: str) -> Job | None:
    own = [job for job in jobs if job["lang"] == language]
    return max(own, key=lambda job: len(str(job["text"])), default=None)


def _prompted(test: Job, column: str, folder: Path) -> Job | None:
    prefix = "" if column == OWN else f"{column}_"
    wav = test.get(f"{prefix}prompt_wav")
    if not isinstance(wav, str):
        return None
    job = {name: test[name] for name in ("id", "text", "lang")}
    # beside a relative name the evaluator would look in the folder of the speech
    return {
        **job,
        "prompt_wav": str((folder / wav).resolve()),
        "prompt_text": test.get(f"{prefix}prompt_text"),
    }


def speak(trial: Trial, model_dir: Path, out: Path, threads: int) -> Spoken:
    """Run `light-tts say --batch` in a process of its own. Raises RecipeError if it writes no manifest."""
    folder = (out / trial.name).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    jobs_file = folder / "jobs.jsonl"
    jobs_file.write_text("".join(json.dumps(job, ensure_ascii=False) + "\n" for job in trial.jobs), "utf-8")
    command: list[object] = [sys.executable, "-m", "light_tts.cli", "say", "--model_dir", model_dir.resolve()]
    command += ["--batch", jobs_file, "-o", folder, "--seed", trial.seed, "--threads", threads]
    command += ["--stream"] if trial.streamed else []
    done = subprocess.run(
        [str(word) for word in command],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    manifest = folder / "manifest.jsonl"
    if done.returncode not in (0, 1) or not manifest.is_file():
        raise RecipeError(f"{trial.name}: light-tts say ended with {done.returncode}: {done.stderr[-2000:]}")
    clips = [_clip(json.loads(line), folder) for line in manifest.read_text("utf-8").splitlines()]
    written = {clip.name for clip in clips}
    return Spoken(trial, clips, [str(job["id"]) for job in trial.jobs if str(job["id"]) not in written])


def _clip(line: Job, folder: Path) -> Clip:
    wav = str(line["wav"])
    rtf, first_s = (float(str(line[name])) for name in ("rtf", "first_s"))
    return Clip(wav.removesuffix(".wav"), folder / wav, str(line["text"]), str(line["lang"]), rtf, first_s)
