from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from light_tts import messages
from light_tts.messages import (
    AudioChunk,
    LlmTask,
    Message,
    PeerReady,
    Sampling,
    Stage,
    Synthesize,
    ToDecode,
    ToEncode,
    ToHttp,
    ToLlm,
    ToSupervisor,
    VoiceFeatures,
)

UNIONS = {
    "ToEncode": ToEncode,
    "ToLlm": ToLlm,
    "ToDecode": ToDecode,
    "ToHttp": ToHttp,
    "ToSupervisor": ToSupervisor,
}
TASK = LlmTask(
    request_id="a/1.0",
    reply_to="ipc:///run/http-1",
    deadline_s=12.5,
    segment=2,
    text=(1, 2, 3),
    prompt_text=(),
    prompt_speech=(6560,),
    seed=2**63 - 1,
    sampling=Sampling(top_k=25),
    voice=VoiceFeatures("key", b"\x00\x01", b"", b"\xff"),
    stream=True,
    speed=0.5,
)


def _message_types() -> list[type[Message]]:
    return [kind for kind in vars(messages).values() if isinstance(kind, type) and issubclass(kind, Message)]


def test_a_message_comes_back_equal_and_of_its_type() -> None:
    decoded = msgspec.msgpack.decode(msgspec.msgpack.encode(TASK), type=ToLlm)
    assert decoded == TASK
    assert isinstance(decoded, LlmTask)


def test_samples_travel_as_they_are() -> None:
    samples = bytes(range(256)) * 100
    chunk = AudioChunk("a", 0, 0, samples, last=True)
    encoded = msgspec.msgpack.encode(chunk)
    assert len(encoded) < len(samples) + 64
    assert msgspec.msgpack.decode(encoded, type=ToHttp) == chunk


@pytest.mark.parametrize("union", UNIONS.values(), ids=UNIONS.keys())
def test_a_receiver_tells_all_its_messages_apart(union: type) -> None:
    tags = [kind.__struct_config__.tag for kind in get_args(union)]
    assert len(set(tags)) == len(tags) >= 3
    msgspec.msgpack.Decoder(union)  # raises for types that it could mistake


def test_a_receiver_refuses_messages_for_others() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(TASK), type=ToHttp)


@pytest.mark.parametrize(
    "broken", [b"", b"\xc1", b"\x93\xa4none\x01\x02", msgspec.msgpack.encode(["Abort", 5])]
)
def test_what_is_no_message_is_refused(broken: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        msgspec.msgpack.decode(broken, type=ToLlm)


@pytest.mark.parametrize("kind", _message_types(), ids=lambda kind: str(kind.__name__))
def test_no_message_can_be_changed_once_made(kind: type[Message]) -> None:
    assert kind.__struct_config__.frozen


def test_a_field_added_at_the_end_is_optional_to_the_sender() -> None:
    """Its default is taken: the fields that travel are a prefix."""
    fields = msgspec.structs.fields(Synthesize)
    required = [field.required for field in fields]
    assert required == sorted(required, reverse=True)
    short = msgspec.msgpack.encode(["Synthesize", "id", "ipc:///x", 1.0, "text"])
    assert msgspec.msgpack.decode(short, type=ToEncode) == Synthesize("id", "ipc:///x", 1.0, "text")


def test_a_stage_is_named_in_the_message_as_in_its_socket() -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(PeerReady(Stage.DECODE, 1))) == [
        "PeerReady",
        "decode",
        1,
    ]
