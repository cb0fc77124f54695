"""Runs of silence in CosyVoice3's output are shortened before they are turned into sound."""

from __future__ import annotations

from collections.abc import Collection

SILENT_TOKENS: dict[int, frozenset[int]] = {
    2: frozenset(),
    3: frozenset({1, 2, 28, 29, 55, 248, 494, 2241, 2242, 2322, 2323}),
}
"""Speech tokens that sound silent, by model version: the reference lists them for version 3 only."""

MAX_SILENT_RUN = 5


class SilentTokenFilter:
    """Keeps the first `max_run` of consecutive silent tokens. The model's own history keeps them all."""

    def __init__(self, silent_tokens: Collection[int], max_run: int = MAX_SILENT_RUN) -> None:
        self._silent = frozenset(silent_tokens)
        self._max_run = max_run
        self._run = 0

    def keeps(self, token: int) -> bool:
        """Whether the next token of the stream is to be heard."""
        self._run = self._run + 1 if token in self._silent else 0
        return self._run <= self._max_run
