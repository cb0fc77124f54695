"""The wetext library: the reference's normaliser, and ours for units that our own tables lack."""

from __future__ import annotations

import logging
import threading
from functools import lru_cache
from typing import Protocol

import regex

from light_tts.encode.normalise.rules import NUMBER

logger = logging.getLogger(__name__)

# A number with a unit directly after it, such as 5mmol or 3lx.
_MEASURE = regex.compile(
    rf"(?<![\p{{Latin}}0-9.,:/-])({NUMBER})([a-zμ°][A-Za-z/²³]{{0,7}})(?![\p{{Latin}}0-9])"
)
_ESCAPED = regex.compile(r'\\(["\\])')


class _Normaliser(Protocol):
    def normalize(self, text: str) -> str: ...


class Verbaliser:
    """Reads numbers with wetext's grammars, which are loaded (0.3 s, 50 MB) on first use. Safe to share by threads.

    The grammars misread much that is common ("1,000" as "thousand", 2月2日 as 二月两日, "the 1990s" as seconds),
    stumble over many signs and take 0.2 ms a character. So the product shows them single measures only and checks
    what comes back; whole texts go through them only to do as the reference does.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._normalisers: dict[str, _Normaliser] = {}
        self._cached_measure = lru_cache(maxsize=1024)(self._read_measure)

    def whole(self, text: str, language: str) -> str:
        """All of `text` as wetext reads it; `text` itself if wetext cannot. language: "zh" or "en"."""
        try:
            with self._lock:
                words = self._load(language).normalize(text)
        except (
            Exception
        ) as error:  # AssertionError, RuntimeError, UnicodeError: whatever a grammar cannot parse
            logger.debug("wetext cannot read a text of %d characters: %r", len(text), error)
            return text
        return _ESCAPED.sub(r"\1", words)

    def units(self, text: str, language: str) -> str:
        """`text` with measures such as 5mmol in words, where wetext knows the unit."""
        return _MEASURE.sub(lambda match: self._cached_measure(match[0], match[2], language), text)

    def _read_measure(self, measure: str, unit: str, language: str) -> str:
        words = self.whole(measure, language)
        half_read = regex.search(r"[0-9]|slash", words) or unit in words.split()
        if half_read or (language == "zh" and regex.search(r"[A-Za-z]", words)):
            return measure
        return words

    def _load(self, language: str) -> _Normaliser:
        if language not in self._normalisers:
            from wetext import Normalizer

            self._normalisers[language] = Normalizer(lang=language, operator="tn", remove_erhua=False)
        return self._normalisers[language]
