from __future__ import annotations

import numpy as np
import pytest

from light_tts.errors import InvalidInput
from light_tts.request import MAX_SEED, SynthesisRequest


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"text": None}, "text is a NoneType"),
        ({"text": b"hi"}, "text is a bytes"),
        ({"text": "hi \ud800"}, "text is no text: its character 3"),
        ({"voice": 3}, "voice is a int"),
        ({"prompt_text": 3, "prompt_audio": b""}, "prompt_text is a int"),
        ({"instruct_text": 3}, "instruct_text is a int"),
        ({"prompt_audio": np.zeros(9)}, "prompt_audio is a ndarray"),
        ({"speed": "fast"}, "speed is 'fast', it must be a number"),
        ({"speed": True}, "speed is True, it must be a number"),
        ({"speed": 10**400}, "allowed is [0.25, 4.0]"),
        ({"speed": float("inf")}, "speed is inf, allowed is [0.25, 4.0]"),
        ({"seed": 1.5}, "seed is 1.5, it must be an integer"),
        ({"seed": True}, "seed is True, it must be an integer"),
        ({"seed": MAX_SEED + 1}, f"allowed is [0, {MAX_SEED}]"),
        ({"top_k": 2.5}, "top_k is 2.5, it must be an integer"),
        ({"top_p": "a"}, "top_p is 'a', it must be a number"),
    ],
    ids=str,
)
def test_what_is_no_value_of_a_field_is_named(options: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        SynthesisRequest(**({"text": "hi"} | options))  # type: ignore[arg-type]
    assert words in str(caught.value)


def test_numbers_of_numpy_are_numbers() -> None:
    request = SynthesisRequest(text="hi", seed=np.int64(3), speed=np.float32(1.5), top_k=np.int32(5))  # type: ignore[arg-type]
    assert (request.seed, request.speed, request.top_k) == (3, 1.5, 5)
