from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from light_tts.encode.voice_blend import blend, check_parts
from light_tts.encode.voice_file import Voice, VoiceInfo
from light_tts.errors import InvalidInput
from test.encode.test_voices import a_voice

INFO = VoiceInfo(name="mix")


def voice(name: str, embedding: Tensor) -> Voice:
    made = a_voice(name)
    return replace(made, features=replace(made.features, speaker_embedding=embedding))


def axis(number: int, length: float = 1.0) -> Tensor:
    embedding = torch.zeros(192)
    embedding[number] = length
    return embedding


def test_directions_are_mixed_by_weight_and_lengths_averaged() -> None:
    mixed = blend(INFO, [(voice("a", axis(0, 10.0)), 3.0), (voice("b", axis(1, 2.0)), 1.0)], None)
    embedding = mixed.features.speaker_embedding
    assert float(embedding[0] / embedding[1]) == pytest.approx(3.0)
    assert float(embedding.norm()) == pytest.approx(0.75 * 10 + 0.25 * 2)
    assert mixed.info.name == "mix"


def test_without_a_prompt_nothing_of_anybodys_recording_is_in_it() -> None:
    mixed = blend(INFO, [(voice("a", axis(0)), 1.0), (voice("b", axis(1)), 1.0)], None)
    assert mixed.features.speech_token.shape == (0,)
    assert mixed.features.prompt_mel.shape == (0, 80)
    assert mixed.info.prompt_text == ""


def test_a_prompt_is_one_voices_own() -> None:
    a, b = voice("a", axis(0)), voice("b", axis(1))
    mixed = blend(INFO, [(a, 1.0), (b, 1.0)], b)
    assert torch.equal(mixed.features.prompt_mel, b.features.prompt_mel)
    assert torch.equal(mixed.features.speech_token, b.features.speech_token)
    assert mixed.info.prompt_text == b.info.prompt_text
    assert float(mixed.features.speaker_embedding[0]) == pytest.approx(2**-0.5)


def test_voices_that_cancel_out_cannot_be_mixed() -> None:
    with pytest.raises(InvalidInput, match="cancel out"):
        blend(INFO, [(voice("a", axis(0)), 1.0), (voice("b", -axis(0)), 1.0)], None)
    with pytest.raises(InvalidInput, match="empty speaker embedding"):
        blend(INFO, [(voice("a", torch.zeros(192)), 1.0), (voice("b", axis(0)), 1.0)], None)


@pytest.mark.parametrize(
    ("parts", "prompt_of", "reason"),
    [
        ([("a", 1.0)], None, "1 voices, allowed are 2 to 8"),
        ([(str(n), 1.0) for n in range(9)], None, "9 voices"),
        ([("a", 1.0), ("a", 2.0)], None, "more than once"),
        ([("a", 1.0), ("b", 0.0)], None, "weight of 'b' is 0"),
        ([("a", 1.0), ("b", float("nan"))], None, "weight of 'b' is nan"),
        ([("a", 1.0), ("b", float("inf"))], None, "weight of 'b' is inf"),
        ([("a", 1.0), ("b", 1.0)], "c", "prompt_voice 'c'"),
    ],
)
def test_parts_that_are_no_mixture_are_refused(
    parts: list[tuple[str, float]], prompt_of: str | None, reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        check_parts(parts, prompt_of)
