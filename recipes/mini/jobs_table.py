"""The table of utterances: what the teacher reads, with which voice, and what our front end makes of the text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from recipes.mini.errors import RecipeError
from recipes.mini.languages import LANGUAGES

__all__ = ["LANGUAGES", "VARIANTS", "Job", "Jobs", "Mix", "Speaker", "append_jobs", "write_jobs"]

VARIANTS = 3  # spellings of each utterance: as it is, and with some and with more English words spelled
_RAGGED = ("teacher_ids", *(f"ids{variant}" for variant in range(VARIANTS)))
_SCALARS = {"language": np.uint8, "speaker": np.int16, "speed": np.float32}

Mix = tuple[tuple[int, float], ...]  # (voice, weight); the weights need not sum to 1


@dataclass(frozen=True, slots=True)
class Speaker:
    """A pseudo-speaker: which of the teacher's voices are mixed, apart for timbre and for prosody.

    prosody: one mix for each language of LANGUAGES
    warp: pitch and formants times this
    star: a name if the speaker is one unmixed voice of the teacher
    """

    timbre: Mix
    prosody: tuple[Mix, Mix]
    warp: float = 1.0
    star: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One utterance to synthesise. Variants 1 and 2 of `ids` may be empty: then they equal variant 0."""

    teacher_ids: Sequence[int]
    ids: tuple[Sequence[int], Sequence[int], Sequence[int]]
    language: int
    speaker: int
    speed: float


class Jobs:
    """The utterances of WORK/text, resident on the CPU."""

    vocabulary: list[str]  # our symbols, in the order of their ids
    voices: list[str]
    speakers: list[Speaker]
    language: NDArray[np.uint8]  # (jobs,) index into LANGUAGES
    speaker: NDArray[np.int16]  # (jobs,)
    speed: NDArray[np.float32]  # (jobs,)

    def __init__(self, folder: Path) -> None:
        """Raises RecipeError if a file is missing or damaged, or an index is out of range."""
        header, arrays = _read(folder)
        try:
            self.vocabulary, self.voices = header["vocabulary"], header["voices"]
            self.speakers = [_speaker(tree) for tree in header["speakers"]]
            self.language, self.speaker, self.speed = (arrays[name] for name in _SCALARS)
            self._ragged = {name: (arrays[name], arrays[f"{name}.offsets"]) for name in _RAGGED}
        except (KeyError, TypeError, ValueError) as error:
            raise RecipeError(f"{folder} holds no table of jobs: {error!r}") from error
        self._check(folder)

    def __len__(self) -> int:
        return len(self.speaker)

    @property
    def symbols(self) -> int:
        """The size of our vocabulary."""
        return len(self.vocabulary)

    def ids(self, job: int, variant: int = 0) -> NDArray[np.int64]:
        """Ids of our symbols. variant 0: as the front end has it; 1, 2: some, more English words spelled."""
        ids = self._row(f"ids{variant}", job)
        return ids if len(ids) else self._row("ids0", job)

    def teacher_ids(self, job: int) -> NDArray[np.int64]:
        """Ids of the teacher's phonemes, without the padding that it wants at either end."""
        return self._row("teacher_ids", job)

    def _row(self, name: str, job: int) -> NDArray[np.int64]:
        values, offsets = self._ragged[name]
        if not 0 <= job < len(self):
            raise RecipeError(f"there is no job {job}, the table has {len(self)}")
        return values[offsets[job] : offsets[job + 1]].astype(np.int64)

    def _check(self, folder: Path) -> None:
        num_jobs = len(self)
        for name, (values, offsets) in self._ragged.items():
            rising = len(offsets) == num_jobs + 1 and offsets[0] == 0 and bool((np.diff(offsets) >= 0).all())
            if not rising or offsets[-1] != len(values):
                raise RecipeError(f"{folder}: the offsets of {name} do not fit its values")
            if name != "teacher_ids" and len(values) and values.max() >= self.symbols:
                raise RecipeError(f"{folder}: {name} holds {values.max()}, there are {self.symbols} symbols")
        if num_jobs and (self.speaker.min() < 0 or self.speaker.max() >= len(self.speakers)):
            raise RecipeError(f"{folder}: a job's speaker is not among the {len(self.speakers)} speakers")
        if num_jobs and self.language.max() >= len(LANGUAGES):
            raise RecipeError(f"{folder}: a job's language is not one of {', '.join(LANGUAGES)}")
        for speaker in self.speakers:
            for voice, _ in (*speaker.timbre, *speaker.prosody[0], *speaker.prosody[1]):
                if not 0 <= voice < len(self.voices):
                    raise RecipeError(f"{folder}: voice {voice} is not among the {len(self.voices)} voices")


def write_jobs(
    folder: Path,
    jobs: Sequence[Job],
    speakers: Sequence[Speaker],
    voices: Sequence[str],
    vocabulary: Sequence[str],
    facts: dict[str, object],
) -> int:
    """Write jobs.json and jobs.safetensors; returns their size in bytes. The same input gives the same bytes.

    facts: what else the header should say, e.g. the seed and where the sentences came from
    """
    header = {
        **facts,
        "num_jobs": len(jobs),
        "symbols": len(vocabulary),
        "vocabulary": list(vocabulary),
        "voices": list(voices),
        "speakers": [asdict(speaker) for speaker in speakers],
    }
    return _write(folder, header, _arrays(jobs))


def append_jobs(folder: Path, jobs: Sequence[Job], facts: dict[str, object]) -> int:
    """Add `jobs` after those of the table in `folder`, whose rows, speakers, voices and vocabulary stay as they are.

    facts: what the header should say of the addition, beside its first job and their number
    Returns the size in bytes. Raises RecipeError if there is no table, or the jobs do not fit it.
    """
    table = Jobs(folder)
    highest = max((job.speaker for job in jobs), default=0)
    if highest >= len(table.speakers):
        raise RecipeError(f"speaker {highest} of an added job, the table has {len(table.speakers)}")
    header, old = _read(folder)
    new = _arrays(jobs)
    for name, values in new.items():
        if name.endswith(".offsets"):
            values = (values[1:] + old[name][-1]).astype(np.int32)
        elif name.startswith("ids") and len(values) and values.max() >= table.symbols:
            raise RecipeError(
                f"{name} of the added jobs holds {values.max()}, there are {table.symbols} symbols"
            )
        new[name] = np.concatenate([old[name], values])
    addition = {"first": len(table), "num_jobs": len(jobs), **facts}
    added = [*header.get("added", []), addition]
    return _write(folder, {**header, "num_jobs": len(table) + len(jobs), "added": added}, new)


def _arrays(jobs: Sequence[Job]) -> dict[str, NDArray]:  # type: ignore[type-arg]
    arrays = {name: np.array([getattr(job, name) for job in jobs], kind) for name, kind in _SCALARS.items()}
    _add_ragged(arrays, "teacher_ids", (job.teacher_ids for job in jobs), np.uint8)
    for variant in range(VARIANTS):
        rows = (_unless_equal(job, variant) for job in jobs)
        _add_ragged(arrays, f"ids{variant}", rows, np.uint16)
    return arrays


def _write(folder: Path, header: Mapping[str, object], arrays: dict[str, NDArray]) -> int:  # type: ignore[type-arg]
    """Both files are complete before either takes its place."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("jobs.json", "jobs.safetensors")
    partial = [folder / f".{name}.tmp" for name in names]
    partial[0].write_text(json.dumps(header, ensure_ascii=False) + "\n", "utf-8")
    save_file(arrays, partial[1])
    for path, name in zip(partial, names, strict=True):
        path.replace(folder / name)
    return sum((folder / name).stat().st_size for name in names)


def _unless_equal(job: Job, variant: int) -> Sequence[int]:
    """Chinese text has nothing to spell: an empty variant says so in no space."""
    same = variant > 0 and list(job.ids[variant]) == list(job.ids[0])
    return [] if same else job.ids[variant]


def _add_ragged(
    arrays: dict[str, NDArray[np.generic]],
    name: str,
    rows: Iterable[Sequence[int]],
    kind: type[np.uint8] | type[np.uint16],
) -> None:
    lists = [np.asarray(row, np.int64) for row in rows]
    values = np.concatenate([np.zeros(0, np.int64), *lists])
    limit = np.iinfo(kind).max
    if len(values) and not 0 <= values.min() <= values.max() <= limit:
        raise RecipeError(f"{name} holds {values.min()}..{values.max()}, must be within 0..{limit}")
    arrays[name] = values.astype(kind)
    arrays[f"{name}.offsets"] = np.cumsum([0, *(len(row) for row in lists)]).astype(np.int32)


def _speaker(tree: dict[str, object]) -> Speaker:
    def mix(value: object) -> Mix:
        if not isinstance(value, list):
            raise TypeError(f"a mix of voices must be a list, is {value!r}")
        return tuple((int(voice), float(weight)) for voice, weight in value)

    prosody, warp, star = tree["prosody"], tree["warp"], tree["star"]
    if not isinstance(prosody, list) or not isinstance(warp, int | float):
        raise TypeError(f"no speaker: {tree!r}")
    english, chinese = prosody
    named = star if isinstance(star, str) else None
    return Speaker(mix(tree["timbre"]), (mix(english), mix(chinese)), float(warp), named)


def _read(folder: Path) -> tuple[dict[str, list], dict[str, NDArray]]:  # type: ignore[type-arg]
    try:
        header = json.loads((folder / "jobs.json").read_text("utf-8"))
        return header, load_file(folder / "jobs.safetensors")
    except FileNotFoundError as error:
        raise RecipeError(f"{folder} holds no table of jobs (prepare-text makes it): {error}") from error
    except (ValueError, OSError, SafetensorError) as error:
        raise RecipeError(f"{folder}: the table of jobs is damaged: {error}") from error
