"""The bars that the bundled voice must reach, and the table that says how far it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Side(Enum):
    AT_MOST = "<="
    AT_LEAST = ">="


@dataclass(frozen=True, slots=True)
class Bar:
    """figure: what is measured, in words; digits: shown behind the point"""

    figure: str
    side: Side
    limit: float
    digits: int = 2

    def met(self, value: float) -> bool:
        return value <= self.limit if self.side is Side.AT_MOST else value >= self.limit


@dataclass(frozen=True, slots=True)
class Row:
    """value: None if it was not measured; note: what it comes from, or which sentence is worst"""

    bar: Bar
    value: float | None
    note: str = ""

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "not measured"
        return "met" if self.bar.met(self.value) else "MISSED"


WER = Bar("English WER, %", Side.AT_MOST, 2.5)
CER = Bar("Chinese CER, %", Side.AT_MOST, 10.5)
PINYIN = Bar("Chinese pinyin error, %", Side.AT_MOST, 2.5)
WORST = Bar("worst sentence, % errors", Side.AT_MOST, 25.0, 1)
TONES = Bar("tones heard as written, %", Side.AT_LEAST, 90.0, 1)
SIM_OWN = Bar("similarity, unseen synthetic speakers", Side.AT_LEAST, 0.80, 3)
SIM_OTHER = Bar("similarity, other synthesisers and people", Side.AT_LEAST, 0.65, 3)
SIM_CROSS = Bar("similarity lost to cross-lingual prompts", Side.AT_MOST, 0.05, 3)
OVRL = Bar("DNSMOS OVRL", Side.AT_LEAST, 3.2)
STREAMED = Bar("error added by streaming, points", Side.AT_MOST, 0.3)
RUNAWAYS = Bar("runaways", Side.AT_MOST, 0, 0)
EARLY_STOPS = Bar("early stops", Side.AT_MOST, 0, 0)
SILENCES = Bar("silences", Side.AT_MOST, 0, 0)
SEEDS = Bar("ten seeds: worst, % errors", Side.AT_MOST, 25.0, 1)
RTF = Bar("RTF, built-in voice, whole", Side.AT_MOST, 0.15, 3)
FIRST_AUDIO = Bar("first audio, built-in voice, streamed, ms", Side.AT_MOST, 200.0, 0)


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = ["| figure | value | bar | | note |", "|---|---|---|---|---|"]
    for row in rows:
        digits = row.bar.digits
        value = "-" if row.value is None else f"{row.value:.{digits}f}"
        limit = f"{row.bar.side.value} {row.bar.limit:.{digits}f}"
        lines.append(f"| {row.bar.figure} | {value} | {limit} | {row.verdict} | {row.note} |")
    return "\n".join(lines)
