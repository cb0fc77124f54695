"""What the doctor finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from light_tts.errors import LightTTSError


class Level(Enum):
    OK = "ok"
    WARN = "warn"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One checked thing. `details` are further lines, such as weight keys."""

    level: Level
    part: str  # "machine", "yaml", "llm", ...
    message: str
    details: tuple[str, ...] = ()


@dataclass(slots=True)
class Diagnosis:
    findings: list[Finding] = field(default_factory=list)

    def ok(self, part: str, message: str) -> None:
        self.findings.append(Finding(Level.OK, part, message))

    def warn(self, part: str, message: str) -> None:
        self.findings.append(Finding(Level.WARN, part, message))

    def error(self, part: str, problem: str | LightTTSError, details: tuple[str, ...] = ()) -> None:
        message = f"{problem.code}: {problem}" if isinstance(problem, LightTTSError) else problem
        self.findings.append(Finding(Level.ERROR, part, message, details))

    def of(self, part: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.part == part]

    @property
    def num_errors(self) -> int:
        return sum(finding.level is Level.ERROR for finding in self.findings)

    @property
    def num_warnings(self) -> int:
        return sum(finding.level is Level.WARN for finding in self.findings)

    @property
    def healthy(self) -> bool:
        """Nothing found that keeps a model from working; warnings do not."""
        return self.num_errors == 0
