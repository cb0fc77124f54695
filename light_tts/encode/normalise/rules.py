"""What reading rules are made of: patterns for numbers, and substitution that keeps words apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import regex

Reader = Callable[[regex.Match[str]], str | None]
"""Words for a match, or None to leave it as it is."""

NUMBER = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})++|[0-9]++)(?:\.[0-9]++)?+)"
"""A number as written: 12, 1,234, 3.14. Possessive, so that a long run of digits is looked at once."""

RANGE = rf"(?:(?P<low>{NUMBER})\s?[-–—~～]\s?)?(?P<high>{NUMBER})"
"""A number, or two with a dash between: `low` is None for one."""

START = r"(?<![\p{Latin}0-9.,/:-])"
"""Not in the middle of a number, a word or a code."""


class Rule:
    """One pattern and how what it matches is read aloud."""

    def __init__(self, pattern: str, read: Reader | str, spaced: bool = True) -> None:
        """read: words, or a template with groups; spaced: set the words apart from letters and digits beside them."""
        self._pattern = regex.compile(pattern)
        self._read = read
        self._spaced = spaced

    def apply(self, text: str) -> str:
        return self._pattern.sub(self._replace, text)

    def _replace(self, match: regex.Match[str]) -> str:
        words = match.expand(self._read) if isinstance(self._read, str) else self._read(match)
        if words is None:
            return match.group()
        if not self._spaced or not words:
            return words
        before = match.string[match.start() - 1] if match.start() else ""
        after = match.string[match.end() : match.end() + 1]
        return f"{' ' if before.isalnum() else ''}{words}{' ' if after.isalnum() and words[-1].isalnum() else ''}"


def apply_all(rules: Sequence[Rule], text: str) -> str:
    for rule in rules:
        text = rule.apply(text)
    return text


def alternatives(words: Iterable[str]) -> str:
    """A group that matches any of the words, the longest first."""
    return "(?:" + "|".join(regex.escape(word) for word in sorted(words, key=len, reverse=True)) + ")"
