"""From clips and their scores to the rows of the table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from recipes.mini import bars
from recipes.mini.bars import Bar, Row
from recipes.mini.clips import ClipCheck
from recipes.mini.trials import CROSS, OTHER, OWN, SEEDS, VOICE, Clip, Spoken


def score_rows(results: Sequence[Spoken]) -> list[Row]:
    """Intelligibility, similarity and quality, from the evaluator's scores; unmeasured where there are none."""
    scored = [spoken for spoken in results if any(clip.words for clip in spoken.clips)]
    own = _clips(scored, OWN, streamed=False)
    streamed = _clips(scored, OWN, streamed=True)
    means = {
        column: _mean([c.similarity for c in _clips(scored, column, streamed=False)])
        for column in (OWN, CROSS, OTHER)
    }
    every = [clip for spoken in scored if spoken.trial.column not in (SEEDS,) for clip in spoken.clips]
    worst = max(every, key=lambda clip: clip.error_pct, default=None)
    ten = [clip for spoken in scored if spoken.trial.column == SEEDS for clip in spoken.clips]
    own_mean, cross_mean = means[OWN], means[CROSS]
    lost = None if own_mean is None or cross_mean is None else own_mean - cross_mean
    added = [_error(streamed, lang) - _error(own, lang) for lang in ("en", "zh") if streamed and own]
    return [
        Row(bars.WER, _if_any(own, lambda: _error(own, "en")), _others(scored, "en")),
        Row(bars.CER, _if_any(own, lambda: _error(own, "zh")), _others(scored, "zh")),
        Row(bars.PINYIN, _if_any(own, lambda: _pinyin(own))),
        Row(bars.WORST, worst.error_pct if worst else None, f"{worst.name}: {worst.heard}" if worst else ""),
        Row(bars.STREAMED, max(added, default=None)),
        Row(bars.SEEDS, max((clip.error_pct for clip in ten), default=None)),
        Row(bars.SIM_OWN, means[OWN]),
        Row(bars.SIM_OTHER, means[OTHER]),
        Row(bars.SIM_CROSS, lost),
        Row(bars.OVRL, _mean([clip.ovrl for clip in own])),
    ]  # fmt: skip


def clip_rows(results: Sequence[Spoken], checks: Mapping[Path, ClipCheck]) -> list[Row]:
    """Runaways, early stops (a job without audio is one) and silences among all clips."""
    missing = [f"{spoken.trial.name}/{name}" for spoken in results for name in spoken.missing]
    counted = f"of {len(checks) + len(missing)} sentences in a row"

    def row(bar: Bar, bad: Callable[[ClipCheck], bool], also: Sequence[str] = ()) -> Row:
        names = [*(f"{path.parent.name}/{path.stem}" for path, check in checks.items() if bad(check)), *also]
        return Row(bar, float(len(names)), ", ".join([counted, *names[:3]]))

    return [
        row(bars.RUNAWAYS, lambda check: check.is_runaway),
        row(bars.EARLY_STOPS, lambda check: check.is_early_stop, missing),
        row(bars.SILENCES, lambda check: check.is_silence),
    ]


def speed_rows(results: Sequence[Spoken]) -> list[Row]:
    """Medians over the sentences in built-in voices; the first of each batch warms up."""
    whole = [clip.rtf for clip in _clips(results, VOICE, streamed=False)[1:]]
    first = [1000 * clip.first_s for clip in _clips(results, VOICE, streamed=True)[1:]]
    return [
        Row(bars.RTF, statistics.median(whole) if whole else None, f"median of {len(whole)}"),
        Row(bars.FIRST_AUDIO, statistics.median(first) if first else None, f"median of {len(first)}"),
    ]


def _clips(results: Sequence[Spoken], column: str, *, streamed: bool) -> list[Clip]:
    chosen = [s for s in results if s.trial.column == column and s.trial.streamed == streamed]
    return [clip for spoken in chosen for clip in spoken.clips]


def _error(clips: Sequence[Clip], language: str) -> float:
    own = [clip for clip in clips if clip.language == language]
    return 100 * sum(clip.errors for clip in own) / max(1, sum(clip.words for clip in own))


def _pinyin(clips: Sequence[Clip]) -> float:
    own = [clip for clip in clips if clip.language == "zh"]
    return 100 * sum(clip.pinyin_errors for clip in own) / max(1, sum(clip.words for clip in own))


def _if_any(clips: Sequence[Clip], value: Callable[[], float]) -> float | None:
    return value() if clips else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _others(results: Sequence[Spoken], language: str) -> str:
    """The error with the other kinds of prompts, in words."""
    parts = [(column, _clips(results, column, streamed=False)) for column in (CROSS, OTHER, VOICE)]
    return ", ".join(f"{column} {_error(clips, language):.1f}" for column, clips in parts if clips)
