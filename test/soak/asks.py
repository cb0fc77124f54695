"""What the load and fault tests ask for: every kind of client, short and long, named and uploaded voices."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

from test.soak.client import Answer, Ask, Kind

PROMPT = Path(__file__).parents[1] / "golden/fixtures/prompt_24k.wav"
PROMPT_TEXT = "希望你以后能够做的比我还好呦。"
NAMED = ("clara", "anning", "hugo")
SHORT = ("你好。", "Good morning.", "再见。", "Thank you.")
LONG = (
    "今天的天气很好,我们一起去公园走走吧。路上可以买点水果。",
    "The train leaves at nine, so we have time. Let us sit down.",
)


@cache
def recording(pitch: float = 1.0) -> bytes:
    """A WAV file of somebody else for each pitch."""
    samples, rate = soundfile.read(PROMPT, dtype="float32")
    out = io.BytesIO()
    soundfile.write(out, np.asarray(samples), round(rate * pitch), format="WAV", subtype="PCM_16")
    return out.getvalue()


def mixed(number: int, *, long_every: int = 6) -> list[Ask]:
    """Of all three kinds and five voices, every long_every-th long; no two are the same."""
    return [_ask(index, long=index % long_every == long_every - 1) for index in range(number)]


def to_hold(number: int) -> list[Ask]:
    """Bistreams whose text before the last piece is enough for audio: see `Hold`."""
    pieces = ("今天的天气很好,我们一起去公园走走,", "路上可以买点水果和面包,", "然后回家。")
    return [
        Ask(Kind.BISTREAM, pieces, {"seed": str(1000 + index), "voice": NAMED[index % len(NAMED)]})
        for index in range(number)
    ]


def _ask(index: int, *, long: bool) -> Ask:
    texts = LONG if long else SHORT
    text = texts[index // 3 % len(texts)]
    kind = list(Kind)[index % len(Kind)]
    third = max(1, len(text) // 3)
    pieces = (text[:third], text[third : 2 * third], text[2 * third :]) if kind is Kind.BISTREAM else (text,)
    fields = {"seed": str(index)}
    voice = index % 5
    if voice < len(NAMED):
        return Ask(kind, pieces, {**fields, "voice": NAMED[voice]})
    return Ask(kind, pieces, {**fields, "prompt_text": PROMPT_TEXT}, recording(1.0 if voice == 3 else 1.15))


def samples_of(answer: Answer) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    assert len(answer.audio) % 2 == 0
    return np.frombuffer(answer.audio, dtype="<i2")


def differences(
    asks: Sequence[Ask], answers: Sequence[Answer], alone: Sequence[Answer], tolerance: int = 0
) -> list[str]:
    """What is not the audio that the same request had alone, a line each. tolerance: of each int16 sample"""
    lines = []
    for ask, answer, expected in zip(asks, answers, alone, strict=True):
        told = _difference(answer, expected, tolerance) if answer.whole else answer.told
        if told is not None:
            lines.append(f"{ask.name}: {told}")
    return lines


def _difference(answer: Answer, expected: Answer, tolerance: int) -> str | None:
    got, want = samples_of(answer).astype(np.int32), samples_of(expected).astype(np.int32)
    if len(got) != len(want):
        return f"{len(got)} samples, alone {len(want)}"
    apart = np.abs(got - want)
    if len(got) == 0 or apart.max() <= tolerance:
        return None
    return f"{np.count_nonzero(apart)} of {len(got)} samples differ, by up to {apart.max()}"
