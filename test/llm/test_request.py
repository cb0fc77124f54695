from __future__ import annotations

from typing import Any

import pytest

from light_tts.errors import EmptyText, InvalidInput, TextTooLong
from light_tts.llm.request import LengthLimits, SamplingParams, SequenceRequest
from light_tts.messages import Sampling
from light_tts.models.config import Qwen2Config, SamplingConfig, SpeechLMConfig


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 0.0),
        ("temperature", float("nan")),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", 0),
        ("win_size", 0),
        ("tau_r", 0.0),
        ("seed", -1),
        ("seed", 2**63),
    ],
)
def test_impossible_sampling_values_are_named(field: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=field):
        SamplingParams(**{field: value})


def test_the_models_own_sampling_values_are_taken() -> None:
    config = SamplingConfig(top_p=0.6, top_k=7, win_size=3, tau_r=0.4)
    assert SamplingParams.of(config, 0.9, 5) == SamplingParams(0.9, 0.6, 7, 3, 0.4, 5)


def test_lengths_are_multiples_of_the_text_rounded_down() -> None:
    limits = LengthLimits(1.5, 3.7)
    assert (limits.min_len(3), limits.max_len(3)) == (4, 11)
    assert (LengthLimits().min_len(6), LengthLimits().max_len(6)) == (12, 120)


@pytest.mark.parametrize("ratios", [(-1.0, 2.0), (3.0, 2.0), (0.0, float("inf")), (float("nan"), 2.0)])
def test_impossible_length_limits_are_refused(ratios: tuple[float, float]) -> None:
    with pytest.raises(InvalidInput, match="token_text_ratio"):
        LengthLimits(*ratios)


def test_text_must_not_be_empty_unless_more_will_come() -> None:
    with pytest.raises(EmptyText):
        SequenceRequest(())
    assert SequenceRequest((), max_text_tokens=5).text == ()
    with pytest.raises(TextTooLong, match="limit 2"):
        SequenceRequest((1, 2, 3), max_text_tokens=2)
    with pytest.raises(InvalidInput, match="max_text_tokens"):
        SequenceRequest((), max_text_tokens=0)


@pytest.mark.parametrize(
    "request_",
    [
        SequenceRequest((50,)),
        SequenceRequest((-1,)),
        SequenceRequest((1,), prompt_text=(50,)),
        SequenceRequest((1,), prompt_speech=(61,)),
    ],
)
def test_ids_without_an_embedding_are_refused(request_: SequenceRequest) -> None:
    cfg = SpeechLMConfig(2, Qwen2Config(50, 8, 8, 1, 1, 1), 61, SamplingConfig())
    with pytest.raises(InvalidInput, match="token id"):
        request_.check_ids(cfg)
    SequenceRequest((49,), (0,), (60,)).check_ids(cfg)


def test_a_request_overrides_the_models_own_values_one_by_one() -> None:
    config = SamplingConfig(top_p=0.7, top_k=9, win_size=5, tau_r=0.2)
    assert SamplingParams.asked(Sampling(seed=8), 3, config) == SamplingParams(1.0, 0.7, 9, 5, 0.2, 3)
    asked = Sampling(temperature=0.5, top_p=0.9, top_k=2, win_size=7, tau_r=0.4)
    assert SamplingParams.asked(asked, 4, config) == SamplingParams(0.5, 0.9, 2, 7, 0.4, 4)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(None, None, (2, 20)), (3, 4, (3, 4)), (None, 1, (1, 1)), (None, 9, (2, 9)), (30, None, (30, 30))],
)
def test_one_ratio_alone_brings_the_other_along(
    low: float | None, high: float | None, expected: tuple[float, float]
) -> None:
    limits = LengthLimits.asked(Sampling(min_token_text_ratio=low, max_token_text_ratio=high))
    assert (limits.min_token_text_ratio, limits.max_token_text_ratio) == expected
