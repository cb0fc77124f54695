"""What a sequence feeds to the model, which tokens it may get back, and when it ends. No tensors here.

A round: the engine feeds `next_feed()`, samples a token within `constraint()` and hands it to `accept()`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from light_tts.errors import InvalidInput
from light_tts.llm.request import SequenceRequest
from light_tts.models.config import SpeechLMConfig
from light_tts.quirks import ReferenceQuirks


class SymbolKind(StrEnum):
    SOS = "sos"
    TASK_ID = "task_id"
    TEXT = "text"
    SPEECH = "speech"


class Symbol(NamedTuple):
    """One input position of the model."""

    kind: SymbolKind
    id: int = 0  # of text and speech


SOS = Symbol(SymbolKind.SOS)
TASK_ID = Symbol(SymbolKind.TASK_ID)


def text_symbols(ids: tuple[int, ...] | list[int]) -> list[Symbol]:
    return [Symbol(SymbolKind.TEXT, token) for token in ids]


def speech_symbols(ids: tuple[int, ...] | list[int]) -> list[Symbol]:
    return [Symbol(SymbolKind.SPEECH, token) for token in ids]


class FinishReason(StrEnum):
    STOP = "stop"  # the model ended the sequence
    LENGTH = "length"  # the longest permitted length was reached


@dataclass(frozen=True, slots=True)
class Constraint:
    """Which token may follow the last feed.

    forced: this one, without sampling
    ignore_eos: the sequence may not end here
    banned: id ranges that may not be sampled
    """

    forced: int | None = None
    ignore_eos: bool = False
    banned: tuple[slice, ...] = ()


class SpeechSequence(ABC):
    """State common to both ways of feeding text.

    emitted: speech tokens generated so far
    history: what repetition-aware sampling looks back on (bistream: `emitted` and the fill tokens between)
    """

    def __init__(self) -> None:
        self.emitted: list[int] = []
        self.history: list[int] = []
        self.finish_reason: FinishReason | None = None

    @abstractmethod
    def next_feed(self) -> list[Symbol] | None:
        """What the model has to read next, the same until `accept`; None: finished, or waiting for text."""

    @abstractmethod
    def constraint(self) -> Constraint:
        """Valid while `next_feed` is not None."""

    @abstractmethod
    def accept(self, token: int) -> int | None:
        """Take the token that followed `next_feed`; returns the speech token to emit, if it is one."""

    @property
    @abstractmethod
    def max_kv_len(self) -> int:
        """KV slots that it can need at most with the text that is there. Grows only by `append_text`, `end_text`."""

    @abstractmethod
    def longest(self, more_text: int = 0) -> int:
        """KV slots that it can need at most in the end, should so many more text tokens come."""

    def append_text(self, ids: tuple[int, ...]) -> None:
        raise InvalidInput("this sequence was given its whole text at the start")

    def end_text(self) -> None:
        raise InvalidInput("this sequence was given its whole text at the start")


class UniSequence(SpeechSequence):
    """The whole text is known: sos, prompt text, text, task_id, prompt speech, then a speech token a step."""

    def __init__(self, cfg: SpeechLMConfig, request: SequenceRequest, quirks: ReferenceQuirks) -> None:
        super().__init__()
        self._cfg = cfg
        self._feed: list[Symbol] | None = [
            SOS,
            *text_symbols(request.prompt_text + request.text),
            TASK_ID,
            *speech_symbols(request.prompt_speech),
        ]
        self._min_len = request.limits.min_len(len(request.text))
        self._max_len = request.limits.max_len(len(request.text))
        self._longest = len(self._feed) + max(self._max_len - 1, 0)  # the last token is never fed
        first, stop = cfg.speech_token_size, cfg.stop_ids.stop
        masked = slice(first, first + 1) if quirks.v3_min_len_ignored else slice(first, stop)
        self._early = Constraint(ignore_eos=True, banned=(masked,))
        self._late = Constraint()
        if self._max_len == 0:
            self._finish(FinishReason.LENGTH)

    @property
    def min_len(self) -> int:
        """Before it has so many speech tokens, `banned_early` may not be sampled."""
        return self._min_len

    @property
    def max_len(self) -> int:
        return self._max_len

    @property
    def banned_early(self) -> slice:
        return self._early.banned[0]

    @property
    def first_stop_id(self) -> int:
        """This id and those above end the sequence."""
        return self._cfg.speech_token_size

    def next_feed(self) -> list[Symbol] | None:
        return self._feed

    @property
    def max_kv_len(self) -> int:
        return self._longest

    def longest(self, more_text: int = 0) -> int:
        return self._longest

    def constraint(self) -> Constraint:
        return self._early if len(self.emitted) < self._min_len else self._late

    def accept(self, token: int) -> int | None:
        if token >= self._cfg.speech_token_size:
            self._finish(FinishReason.STOP)
            return None
        self.history.append(token)
        self.emitted.append(token)
        self._feed = [Symbol(SymbolKind.SPEECH, token)]
        if len(self.emitted) >= self._max_len:
            self._finish(FinishReason.LENGTH)
        return token

    def _finish(self, reason: FinishReason) -> None:
        self.finish_reason = reason
        self._feed = None
