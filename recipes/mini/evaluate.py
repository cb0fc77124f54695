"""evaluate: speak the test sentences in every way, have them scored, and compare the figures with the bars.

The evaluator is a script of its own (it needs a speech recogniser, which is no part of the recipe): called as
`PYTHON EVALUATOR FOLDER --json FILE --details FILE`, it writes one JSON line of scores for each line of
FOLDER/manifest.jsonl: wav, err and ref (edits and words, characters in Chinese), perr (pinyin), sim, ovrl, hyp.
"""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from light_tts.encode.features import prompt_mel
from light_tts.encode.text import TextNormaliser
from light_tts.encode.tokenizer import TextTokenizer
from light_tts.encode.voices import VoiceStore
from light_tts.models.model_yaml import QWEN_DIR, read_model_config
from light_tts.quirks import ReferenceQuirks
from recipes.mini import bars, tones
from recipes.mini.bars import Row
from recipes.mini.clips import ClipCheck, check_clip, read_clip
from recipes.mini.errors import RecipeError
from recipes.mini.recordings import RECORDINGS, TONES
from recipes.mini.scores import clip_rows, score_rows, speed_rows
from recipes.mini.travel import replace_file
from recipes.mini.trials import (
    Clip,
    Spoken,
    read_tests,
    speak,
    test_trials,
    tone_trial,
    voice_trials,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Evaluator:
    """A script that scores a folder of speech, and the Python that has what it needs."""

    script: Path
    python: Path

    def score(self, spoken: Spoken) -> Spoken:
        """The same clips with their scores. Raises RecipeError if the script fails."""
        if not spoken.clips:
            return spoken
        folder = spoken.clips[0].path.parent
        details = folder / "details.jsonl"
        command = [
            self.python,
            self.script.resolve(),
            folder,
            "--json",
            folder / "scores.json",
            "--details",
            details,
        ]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1) or not details.is_file():
            raise RecipeError(f"{self.script} ended with {done.returncode}: {done.stderr[-2000:]}")
        lines = [json.loads(line) for line in details.read_text("utf-8").splitlines()]
        scores = {str(line["wav"]): line for line in lines}
        return replace_clips(spoken, [_scored(clip, scores.get(clip.path.name, {})) for clip in spoken.clips])


def replace_clips(spoken: Spoken, clips: list[Clip]) -> Spoken:
    return Spoken(spoken.trial, clips, spoken.missing)


def _scored(clip: Clip, line: dict[str, object]) -> Clip:
    def number(name: str) -> float | None:
        value = line.get(name)
        return float(value) if isinstance(value, int | float) else None

    return replace(
        clip,
        errors=int(number("err") or 0),
        words=int(number("ref") or 0),
        pinyin_errors=int(number("perr") or 0),
        similarity=number("sim"),
        ovrl=number("ovrl"),
        heard=str(line.get("hyp", "")),
    )


def evaluate(
    work: Path,
    model_dir: Path,
    tests_file: Path,
    out: Path,
    evaluator: Evaluator | None = None,
    *,
    seeds: int = 1,
    limit: int | None = None,
    threads: int = 2,
) -> list[Row]:
    """Speak, score and compare; writes OUT/table.md and OUT/figures.json. Raises RecipeError.

    work: holds recordings/tones.safetensors; without it tones are not measured
    """
    tests = read_tests(tests_file, limit)
    voices = _voices(model_dir)
    trials = [*test_trials(tests, tests_file.parent, seeds), *voice_trials(tests, voices)]
    results: list[Spoken] = []
    for trial in trials:
        logger.info("%s: %d sentences", trial.name, len(trial.jobs))
        spoken = speak(trial, model_dir, out, threads)
        results.append(evaluator.score(spoken) if evaluator is not None else spoken)
    tone_rows = [_tone_row(work, model_dir, out, voices.get("zh", []), threads)]
    rows = [
        *score_rows(results),
        *clip_rows(results, _checks(results, model_dir)),
        *tone_rows,
        *speed_rows(results),
    ]
    text = bars.table(rows)
    replace_file(out / "table.md", f"{text}\n".encode())
    figures = [
        {"figure": row.bar.figure, "value": row.value, "verdict": row.verdict, "note": row.note}
        for row in rows
    ]
    replace_file(out / "figures.json", (json.dumps(figures, ensure_ascii=False, indent=1) + "\n").encode())
    logger.info("\n%s", text)
    return rows


def _tone_row(work: Path, model_dir: Path, out: Path, voices: Sequence[str], threads: int) -> Row:
    path = work / RECORDINGS / TONES
    if not path.exists():
        return Row(bars.TONES, None, f"no {path.name} (record makes it)")
    references = tones.references(load_file(path))
    known = [voice for voice in voices if voice in references]
    if not known:
        return Row(bars.TONES, None, "no built-in voice that the teacher has read them in")
    spoken = speak(tone_trial(known), model_dir, out, threads)
    mel_config = read_model_config(model_dir).mel
    contours: dict[str, dict[tones.Place, tones.Floats | None]] = {voice: {} for voice in known}
    texts: dict[tuple[str, tones.Place], str] = {}
    for clip in spoken.clips:
        voice, number, tone = clip.name.rsplit("-", 2)
        place = (int(number), int(tone))
        samples = read_clip(clip.path).samples
        mel = prompt_mel(torch.from_numpy(samples), mel_config).double().numpy()
        contours[voice][place] = tones.spoken_contour(samples, mel, references[voice][place])
        texts[voice, place] = clip.text
    wrong = [
        f"{texts[voice, place]} as {heard or 'no tone'} ({voice})"
        for voice in known
        for place, heard in tones.heard_tones(contours[voice], references[voice]).items()
        if heard != place[1]
    ]
    count = len(spoken.trial.jobs)
    right = len(texts) - len(wrong)
    return Row(bars.TONES, 100 * right / count, ", ".join([f"of {count}", *wrong[:4]]))


def _checks(results: Sequence[Spoken], model_dir: Path) -> dict[Path, ClipCheck]:
    config = read_model_config(model_dir)
    tokenizer = TextTokenizer.from_model_dir(model_dir / QWEN_DIR, config.version)
    normaliser = TextNormaliser(len, ReferenceQuirks())
    checks = {}
    for clip in (clip for spoken in results for clip in spoken.clips):
        audio = read_clip(clip.path)
        num_symbols = len(tokenizer.encode(normaliser.normalise(clip.text, clip.language)))
        checks[clip.path] = check_clip(audio.samples, audio.sample_rate_hz, num_symbols, clip.language)
    return checks


def _voices(model_dir: Path) -> dict[str, list[str]]:
    store = VoiceStore(model_dir / "voices", read_model_config(model_dir).spk_embed_dim)
    found: dict[str, list[str]] = {}
    for name in store.list():
        found.setdefault(store.info(name).language, []).append(name)
    return found
