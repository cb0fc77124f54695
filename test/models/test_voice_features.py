from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
import torch

from light_tts.errors import InvalidInput
from light_tts.messages import VoiceFeatures
from light_tts.models.flow.flow_state import FlowPrompt
from light_tts.models.voice_features import pack, unpack

VOCAB = 6561


def voice(num_tokens: int = 5) -> FlowPrompt:
    return FlowPrompt(torch.arange(num_tokens), torch.randn(2 * num_tokens, 80), torch.randn(192))


@pytest.mark.parametrize("num_tokens", [0, 1, 5])
def test_a_voice_comes_back_as_it_was(num_tokens: int) -> None:
    sent = voice(num_tokens)
    received = unpack(pack(sent, "k"), VOCAB)
    for name in ("tokens", "mel", "embedding"):
        before, after = getattr(sent, name), getattr(received, name)
        assert before.dtype == after.dtype
        assert torch.equal(before, after)


def test_what_is_unpacked_may_be_written_to() -> None:
    packed = pack(voice(), "k")
    first = unpack(packed, VOCAB)
    first.mel.zero_()
    assert unpack(packed, VOCAB).mel.abs().sum() > 0


def broken() -> dict[str, tuple[VoiceFeatures, str]]:
    good = pack(voice(), "k")
    mel = voice().mel
    mel[3, 4] = torch.nan
    return {
        "half a token": (msgspec.structs.replace(good, speech_token=good.speech_token[:-1]), "multiple of 4"),
        "half a frame": (msgspec.structs.replace(good, prompt_mel=good.prompt_mel[:-4]), "multiple of 320"),
        "a frame too few": (
            msgspec.structs.replace(good, prompt_mel=good.prompt_mel[:-320]),
            "9 frames for 5",
        ),
        "no embedding": (msgspec.structs.replace(good, speaker_embedding=b""), "has 0 numbers"),
        "two embeddings": (
            msgspec.structs.replace(good, speaker_embedding=2 * good.speaker_embedding),
            "384 numbers",
        ),
        "not a number": (pack(replace(voice(), mel=mel), "k"), "not finite"),
        "an unknown token": (pack(replace(voice(1), tokens=torch.tensor([VOCAB])), "k"), "id 6561"),
        "a negative token": (pack(replace(voice(1), tokens=torch.tensor([-1])), "k"), "id -1"),
    }


@pytest.mark.parametrize("case", broken())
def test_what_is_no_voice_is_refused(case: str) -> None:
    packed, reason = broken()[case]
    with pytest.raises(InvalidInput, match=reason):
        unpack(packed, VOCAB)
