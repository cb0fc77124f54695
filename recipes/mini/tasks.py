"""What a run consists of, what waits for what, and when each part is finished."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from recipes.mini.children import Command, Missing, Task
from recipes.mini.encoders import SPEAKER, TOKENIZER, frozen_path
from recipes.mini.extract import FACTS_NAME, corpus_bytes
from recipes.mini.settings import SAMPLE_RATE, Settings
from recipes.mini.train.checkpoint import checkpoints
from recipes.mini.train.utterances import CODES_NAME
from recipes.mini.train.vocoder_data import FLOW_MELS
from recipes.mini.travel import Places

_ENOUGH = 0.98  # of the hours wanted: what the teacher cannot say is left out


@dataclass(frozen=True, slots=True)
class Progress:
    """step, seconds: of training, over every run; share: of what is planned, 0 to 1"""

    step: int = 0
    seconds: float = 0.0
    share: float = 0.0


def progress(settings: Settings, checkpoints_dir: Path, stage: str) -> Progress:
    """How far a stage's newest checkpoint is; nothing for a stage that never left one."""
    max_steps, max_seconds = _planned(settings, stage)
    for folder in reversed(checkpoints(checkpoints_dir / stage)):
        try:
            state = json.loads((folder / "state.json").read_text("utf-8"))
            step, seconds = int(state["step"]), float(state["facts"]["seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a damaged checkpoint is the trainer's to report
        return Progress(step, seconds, min(1.0, max(step / max_steps, seconds / max_seconds)))
    return Progress()


def _planned(settings: Settings, stage: str) -> tuple[int, float]:
    match stage:
        case "tokenizer":
            return settings.tokenizer.max_steps, settings.run.tokenizer_s
        case "speaker":
            return settings.speaker.max_steps, settings.run.tokenizer_s
        case "flow":
            return settings.flow.max_steps, settings.flow.max_seconds
        case "lm":
            return settings.lm.max_steps, settings.lm.max_seconds
        case _:
            return settings.vocoder.max_steps, settings.vocoder.max_seconds


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The tasks of a run over one pair of folders."""

    settings: Settings
    settings_file: Path
    places: Places

    def tasks(self) -> list[Task]:
        """In the order in which they are looked after."""
        work = self.places.work
        return [
            Task("generate", self._command("generate"), self._text_missing, self._spoken),
            self._training(TOKENIZER, self._speech_for_encoders_missing),
            self._training(SPEAKER, self._speech_for_encoders_missing),
            Task("extract", self._command("extract"), self._encoders_missing, self._encoded),
            Task("flow-mels", self._command("flow-mels"), self._flow_missing, (work / FLOW_MELS).is_dir),
            self._training("vocoder", self._speech_or_mels_missing),
            self._training("flow", self._codes_and_speech_missing),
            self._training("lm", self._codes_missing),
        ]

    def finished(self, stage: str) -> bool:
        """Whether a stage has had all its training. Frozen encoders have."""
        if stage in (TOKENIZER, SPEAKER) and frozen_path(self.places.work, stage).exists():
            return True
        return progress(self.settings, self.places.checkpoints, stage).share >= 1.0

    def spoken_hours(self) -> float:
        """Hours of speech that lie in the corpus: nearly all of a shard is 16 bits a sample."""
        shards = (self.places.work / "corpus").glob("shard-*.safetensors")
        return sum(path.stat().st_size for path in shards) / (2 * SAMPLE_RATE * 3600)

    def _training(self, stage: str, missing: Missing) -> Task:
        return Task(stage, self._command("train", stage), missing, lambda: self.finished(stage))

    def _command(self, *verb: str) -> Command:
        def command(left_s: float) -> list[str]:
            options = {
                "work": self.places.work,
                "checkpoints": self.places.checkpoints,
                "settings": self.settings_file,
                "device": self.settings.run.device,
                "budget": f"{left_s:.0f}",
            }
            pairs = (word for name, value in options.items() for word in (f"--{name}", str(value)))
            return [sys.executable, "-m", "recipes.mini", *verb, *pairs]

        return command

    def _text_missing(self, _ended: Collection[str]) -> str | None:
        if not (self.places.work / "text" / "jobs.safetensors").exists():
            return "no table of utterances (prepare-text makes it)"
        if not any((self.places.work / "teacher").glob("part-*.bin")):
            return "no teacher (pack makes its parts)"
        return None

    def _spoken(self) -> bool:
        return self.spoken_hours() >= _ENOUGH * self.settings.generate.hours

    def _speech_missing(self, _ended: Collection[str]) -> str | None:
        return None if self.spoken_hours() > 0 else "no speech yet"

    def _speech_for_encoders_missing(self, ended: Collection[str]) -> str | None:
        if self.settings.run.one_after_another:
            return self._all_speech_missing(ended)
        return self._speech_missing(ended)

    def _flow_missing(self, ended: Collection[str]) -> str | None:
        if not self._has_flow():
            return "the flow is not far enough"
        return self._codes_and_speech_missing(ended)

    def _has_flow(self) -> bool:
        share = progress(self.settings, self.places.checkpoints, "flow").share
        return share >= self.settings.run.flow_mels_from

    def _speech_or_mels_missing(self, ended: Collection[str]) -> str | None:
        """Mels are read when the vocoder's training begins: it waits for them if the flow can make them."""
        due = self._has_flow() and "flow-mels" not in ended and not self.finished("vocoder")
        if due and not (self.places.work / FLOW_MELS).is_dir():
            return "no mels of the flow yet"
        if self.settings.run.one_after_another and not self._encoded():
            return "the encoders come first"
        return self._speech_missing(ended)

    def _all_speech_missing(self, ended: Collection[str]) -> str | None:
        return None if "generate" in ended or self._spoken() else "the corpus is not complete"

    def _encoders_missing(self, ended: Collection[str]) -> str | None:
        training = [stage for stage in (TOKENIZER, SPEAKER) if not self.finished(stage)]
        return f"{training[0]} is not trained yet" if training else self._all_speech_missing(ended)

    def _encoded(self) -> bool:
        """Whether there are codes of the corpus that lies there, not of an earlier one alone."""
        work = self.places.work
        try:
            facts = json.loads((work / FACTS_NAME).read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            return False
        return (work / CODES_NAME).exists() and facts.get("corpus_bytes") == corpus_bytes(work)

    def _codes_missing(self, _ended: Collection[str]) -> str | None:
        return None if self._encoded() else "no codes of the corpus yet"

    def _codes_and_speech_missing(self, ended: Collection[str]) -> str | None:
        return self._codes_missing(ended) or self._all_speech_missing(ended)
