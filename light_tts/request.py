"""What a caller asks for: one value, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypedDict

import numpy as np

from light_tts.audio import Audio
from light_tts.errors import InvalidInput
from light_tts.messages import Mode

MIN_SPEED, MAX_SPEED = 0.25, 4.0
MAX_SEED = 2**63 - 1
MAX_PROMPT_CHARS = 2_000
"""Of a transcript or an instruction; thirty seconds of fast speech have about 300."""
MIN_TOKEN_TEXT_RATIO, MAX_TOKEN_TEXT_RATIO = 2.0, 20.0
"""Speech tokens per text token, where a request does not say: the reference's values."""


@dataclass(frozen=True, slots=True)
class Range:
    """Which numbers a field may have. open_low: all above `low`; whole: integers only"""

    low: float
    high: float
    open_low: bool = False
    whole: bool = False


RANGES: Mapping[str, Range] = MappingProxyType(
    {
        "speed": Range(MIN_SPEED, MAX_SPEED),
        "seed": Range(0, MAX_SEED, whole=True),
        "temperature": Range(0.01, 5.0),
        "top_p": Range(0.0, 1.0, open_low=True),
        "top_k": Range(1, 10_000, whole=True),
        "win_size": Range(1, 1000, whole=True),
        "tau_r": Range(0.0, 1000.0, open_low=True),
        "min_token_text_ratio": Range(0.0, 100.0),
        "max_token_text_ratio": Range(0.0, 100.0, open_low=True),
    }
)
"""By field."""

AudioSource = Path | str | bytes | Audio


class RequestOptions(TypedDict, total=False):
    """The fields of `SynthesisRequest` besides the text, as keyword arguments."""

    voice: str | None
    prompt_audio: AudioSource | None
    prompt_text: str | None
    instruct_text: str | None
    seed: int | None
    speed: float
    temperature: float
    top_p: float | None
    top_k: int | None
    win_size: int | None
    tau_r: float | None
    min_token_text_ratio: float | None
    max_token_text_ratio: float | None
    normalise: bool
    allow_tags: bool
    mode: Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthesisRequest:
    """One utterance. Without `voice` and `prompt_audio` the model's default voice for the text's language speaks.

    voice: name of a registered voice
    prompt_audio: reference recording of 0.5-30 s (path, encoded bytes, or Audio)
    prompt_text: its transcript; without one the voice is cloned without its words (cross-lingual mode)
    instruct_text: how to speak ("用四川话说"), instead of a transcript
    seed: same seed and inputs, same audio; None draws one
    speed: 0.25-4.0, pitch kept; words blur from 2 on
    temperature, top_p, top_k: sampling; None takes the model's
    win_size, tau_r: a token that makes up a share of tau_r among the last win_size is drawn anew
    min_token_text_ratio, max_token_text_ratio: shortest and longest speech, in speech tokens per text token
    allow_tags: honour delivery tags such as [laughter] in the text
    mode: AUTO does what the fields given imply; the others refuse a request that lacks what they need
    """

    text: str
    voice: str | None = None
    prompt_audio: AudioSource | None = None
    prompt_text: str | None = None
    instruct_text: str | None = None
    seed: int | None = None
    speed: float = 1.0
    temperature: float = 1.0
    top_p: float | None = None
    top_k: int | None = None
    win_size: int | None = None
    tau_r: float | None = None
    min_token_text_ratio: float | None = None
    max_token_text_ratio: float | None = None
    normalise: bool = True
    allow_tags: bool = False
    mode: Mode = Mode.AUTO

    def __post_init__(self) -> None:
        _check_text("text", self.text)
        optional = {"voice": self.voice, "prompt_text": self.prompt_text, "instruct_text": self.instruct_text}
        for name, value in optional.items():
            if value is not None:
                _check_text(name, value)
        check_audio_source("prompt_audio", self.prompt_audio)
        check_speed(self.speed)
        self._check_sampling()
        if self.voice is not None and self.prompt_audio is not None:
            raise InvalidInput("give voice or prompt_audio, not both")
        if self.prompt_text is not None and self.prompt_audio is None:
            raise InvalidInput("prompt_text is the transcript of prompt_audio, which is missing")
        if self.instruct_text is not None and self.prompt_text is not None:
            raise InvalidInput("give instruct_text or prompt_text, not both")
        self._check_mode()

    @property
    def token_text_ratios(self) -> tuple[float, float]:
        """Least and most speech tokens per text token; a limit that is not given makes room for one that is."""
        low, high = self.min_token_text_ratio, self.max_token_text_ratio
        if low is None:
            low = min(MIN_TOKEN_TEXT_RATIO, MAX_TOKEN_TEXT_RATIO if high is None else high)
        return low, max(MAX_TOKEN_TEXT_RATIO, low) if high is None else high

    def _check_sampling(self) -> None:
        check_field("temperature", self.temperature)
        check_optional("top_p", self.top_p)
        check_optional("top_k", self.top_k)
        check_optional("win_size", self.win_size)
        check_optional("tau_r", self.tau_r)
        check_optional("min_token_text_ratio", self.min_token_text_ratio)
        check_optional("max_token_text_ratio", self.max_token_text_ratio)
        low, high = self.token_text_ratios
        if low > high:
            raise InvalidInput(f"min_token_text_ratio is {low}, above max_token_text_ratio, which is {high}")
        check_seed(self.seed)

    def _check_mode(self) -> None:
        if self.mode is Mode.INSTRUCT and self.instruct_text is None:
            raise InvalidInput("mode instruct needs instruct_text")
        if self.mode not in (Mode.AUTO, Mode.INSTRUCT) and self.instruct_text is not None:
            raise InvalidInput(f"mode {self.mode.value} takes no instruct_text")
        if self.mode is Mode.SFT and (self.voice is None or self.prompt_audio is not None):
            raise InvalidInput("mode sft needs the name of a voice, and takes no recording")
        if (
            self.mode is Mode.ZERO_SHOT
            and self.prompt_audio is not None
            and not (self.prompt_text or "").strip()
        ):
            raise InvalidInput("mode zero_shot needs prompt_text, the transcript of the recording")


def check_speed(speed: float) -> None:
    """Raises InvalidInput unless `speed` is within the limits."""
    check_field("speed", speed)


def check_seed(seed: int | None) -> None:
    """Raises InvalidInput unless `seed` is None or within the limits."""
    check_optional("seed", seed)


def check_optional(name: str, value: float | None) -> None:
    """Raises InvalidInput unless `value` is None or in the field's range."""
    if value is not None:
        check_field(name, value)


def check_field(name: str, value: object) -> None:
    """Raises InvalidInput unless `value` is in the field's range."""
    limits = RANGES[name]
    check_range(name, value, limits.low, limits.high, open_low=limits.open_low, whole=limits.whole)


def check_range(
    name: str, value: object, low: float, high: float, *, open_low: bool = False, whole: bool = False
) -> None:
    """Raises InvalidInput, naming the field, the value and the limits."""
    kinds = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise InvalidInput(f"{name} is {value!r}, it must be {'an integer' if whole else 'a number'}")
    if not low <= value <= high or (open_low and value == low):  # NaN is in no range
        bracket = "(" if open_low else "["
        raise InvalidInput(f"{name} is {value}, allowed is {bracket}{low}, {high}]")


def check_audio_source(name: str, value: object) -> None:
    """Raises InvalidInput unless `value` is an AudioSource or None."""
    if not isinstance(value, Path | str | bytes | Audio | None):
        kind = type(value).__name__
        raise InvalidInput(f"{name} is a {kind}, it must be a path, the bytes of a file, or Audio")


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise InvalidInput(f"{name} is a {type(value).__name__}, it must be a string")
    try:
        value.encode("utf-8")
    except (
        UnicodeEncodeError
    ) as error:  # from bytes that were no text, or from JSON with half of a surrogate pair
        raise InvalidInput(f"{name} is no text: its character {error.start} is half a character") from error
