"""What the language model is asked for: one text segment in one voice."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from light_tts.errors import EmptyText, InvalidInput, TextTooLong
from light_tts.messages import LlmTask, Sampling
from light_tts.models.config import SamplingConfig, SpeechLMConfig


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Repetition-aware sampling.

    top_p, top_k: the nucleus stops at whichever is reached first
    win_size, tau_r: a drawn id that is `win_size * tau_r` times or more among the last `win_size` ids is
        masked, and another is drawn from all the others; with tau_r above 1 that never happens
    seed: same seed, same tokens, whatever else is generated at the time; None draws a fresh one
    """

    temperature: float = 1.0
    top_p: float = 0.8
    top_k: int = 25
    win_size: int = 10
    tau_r: float = 0.1
    seed: int | None = None

    def __post_init__(self) -> None:
        _require(0.01 <= self.temperature < math.inf, "temperature", self.temperature, "at least 0.01")
        _require(0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1")
        _require(self.top_k >= 1, "top_k", self.top_k, "at least 1")
        _require(self.win_size >= 1, "win_size", self.win_size, "at least 1")
        _require(0 < self.tau_r < math.inf, "tau_r", self.tau_r, "above 0")
        _require(self.seed is None or 0 <= self.seed < 2**63, "seed", self.seed, "0 to 2**63 - 1")

    @classmethod
    def of(cls, config: SamplingConfig, temperature: float = 1.0, seed: int | None = None) -> SamplingParams:
        """The model's own sampling values."""
        return cls(temperature, config.top_p, config.top_k, config.win_size, config.tau_r, seed)

    @classmethod
    def asked(cls, sampling: Sampling, seed: int, config: SamplingConfig) -> SamplingParams:
        """What a request asks for, and the model's own values for the rest. seed: replaces the request's"""
        return cls(
            sampling.temperature,
            config.top_p if sampling.top_p is None else sampling.top_p,
            config.top_k if sampling.top_k is None else sampling.top_k,
            config.win_size if sampling.win_size is None else sampling.win_size,
            config.tau_r if sampling.tau_r is None else sampling.tau_r,
            seed,
        )


@dataclass(frozen=True, slots=True)
class LengthLimits:
    """How many speech tokens a text gives, as multiples of its text tokens (prompt text excluded)."""

    min_token_text_ratio: float = 2.0
    max_token_text_ratio: float = 20.0

    def __post_init__(self) -> None:
        low, high = self.min_token_text_ratio, self.max_token_text_ratio
        _require(0 <= low < math.inf, "min_token_text_ratio", low, "at least 0")
        _require(
            low <= high < math.inf, "max_token_text_ratio", high, f"at least min_token_text_ratio ({low})"
        )

    @classmethod
    def asked(cls, sampling: Sampling) -> LengthLimits:
        """What a request asks for, else the usual values; a low maximum alone brings the minimum down with it."""
        usual = cls()
        low, high = sampling.min_token_text_ratio, sampling.max_token_text_ratio
        if high is None:
            high = usual.max_token_text_ratio if low is None else max(low, usual.max_token_text_ratio)
        return cls(min(usual.min_token_text_ratio, high) if low is None else low, high)

    def min_len(self, num_text_tokens: int) -> int:
        return int(self.min_token_text_ratio * num_text_tokens)

    def max_len(self, num_text_tokens: int) -> int:
        return int(self.max_token_text_ratio * num_text_tokens)


@dataclass(frozen=True, slots=True)
class SequenceRequest:
    """Token ids of one sequence.

    text: what is to be spoken; with `max_text_tokens` only its beginning, which may be empty
    prompt_text, prompt_speech: what the reference recording says and its speech tokens; both optional
    sampling: None takes the model's own values and a fresh seed
    max_text_tokens: None where `text` is complete; otherwise text arrives while speech is being generated
        (bistream), and this many tokens of it are accepted at most
    """

    text: tuple[int, ...]
    prompt_text: tuple[int, ...] = ()
    prompt_speech: tuple[int, ...] = ()
    sampling: SamplingParams | None = None
    limits: LengthLimits = field(default_factory=LengthLimits)
    max_text_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.max_text_tokens is None:
            if not self.text:
                raise EmptyText("text has no tokens")
            return
        _require(self.max_text_tokens >= 1, "max_text_tokens", self.max_text_tokens, "at least 1")
        if len(self.text) > self.max_text_tokens:
            raise TextTooLong(
                f"text has {len(self.text)} tokens, limit {self.max_text_tokens} (max_text_tokens)"
            )

    @classmethod
    def of_task(cls, task: LlmTask, config: SamplingConfig) -> SequenceRequest:
        """What the encode process asks for. Raises InvalidInput and its kinds."""
        return cls(
            task.text,
            task.prompt_text,
            task.prompt_speech,
            SamplingParams.asked(task.sampling, task.seed, config),
            LengthLimits.asked(task.sampling),
            task.max_text_tokens,
        )

    def check_ids(self, cfg: SpeechLMConfig) -> None:
        """Raises InvalidInput for an id that the model has no embedding for."""
        check_ids("text", self.text, cfg.qwen.vocab_size)
        check_ids("prompt_text", self.prompt_text, cfg.qwen.vocab_size)
        check_ids("prompt_speech", self.prompt_speech, cfg.speech_token_size)


def check_ids(name: str, ids: tuple[int, ...], size: int) -> None:
    for token in ids:
        if not 0 <= token < size:
            raise InvalidInput(f"{name} holds token id {token}, the model has ids 0 to {size - 1}")


def _require(condition: bool, name: str, value: float | None, wanted: str) -> None:
    if not condition:
        raise InvalidInput(f"{name} is {value}, must be {wanted}")
