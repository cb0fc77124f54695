"""From fields to the one internal request."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from light_tts.config import ServerConfig
from light_tts.errors import InvalidAudio, InvalidInput, LightTTSError, UnknownModel, ValidationFailed
from light_tts.messages import Mode, Sampling
from light_tts.server.body import validated
from light_tts.server.limits import check
from light_tts.server.schemas import (
    BistreamForm,
    CrossLingualForm,
    Instruct2Form,
    InstructForm,
    SftForm,
    SpeechForm,
    SpeechJob,
    ZeroShotForm,
)

WAV = b"RIFF" + bytes(range(256))


def _job(schema: type[SpeechForm], **fields: object) -> SpeechJob:
    job = validated(schema, {"tts_text": "hello", **fields}).job()
    check(job.request, job.names, ServerConfig())
    return job


def test_a_request_with_nothing_but_text_takes_every_default() -> None:
    request = _job(ZeroShotForm).request
    assert (request.text, request.mode, request.stream, request.speed) == ("hello", Mode.AUTO, False, 1.0)
    assert request.sampling == Sampling()


@pytest.mark.parametrize(
    ("schema", "fields", "mode"),
    [
        (ZeroShotForm, {"prompt_wav": WAV, "prompt_text": "a"}, Mode.AUTO),
        (SftForm, {"spk_id": "anna"}, Mode.SFT),
        (CrossLingualForm, {"prompt_wav": WAV}, Mode.CROSS_LINGUAL),
        (InstructForm, {"spk_id": "anna", "instruct_text": "softly"}, Mode.INSTRUCT),
        (Instruct2Form, {"prompt_wav": WAV, "instruct_text": "softly"}, Mode.INSTRUCT),
    ],
)
def test_each_family_has_its_mode(schema: type[SpeechForm], fields: dict[str, object], mode: Mode) -> None:
    request = _job(schema, **fields).request
    assert request.mode is mode
    assert request.voice == fields.get("spk_id")
    assert request.prompt_wav == fields.get("prompt_wav")
    assert request.instruct_text == fields.get("instruct_text")


@pytest.mark.parametrize("word", ["True", "true", "1", "on", True])
def test_stream_is_on_in_all_its_spellings(word: object) -> None:
    assert _job(ZeroShotForm, stream=word).request.stream


@pytest.mark.parametrize("word", ["False", "false", "0", "off", "", None, False])
def test_stream_is_off_in_all_its_spellings(word: object) -> None:
    assert not _job(ZeroShotForm, stream=word).request.stream


def test_fields_of_a_form_are_read_as_what_they_are() -> None:
    request = _job(
        ZeroShotForm,
        seed="7",
        speed="1.5",
        top_k="5",
        temperature="0.5",
        text_frontend="false",
        win_size="20",
    ).request
    assert request.sampling == Sampling(seed=7, top_k=5, temperature=0.5, win_size=20)
    assert request.speed == 1.5
    assert not request.normalise


def test_empty_fields_are_as_if_left_out() -> None:
    request = _job(ZeroShotForm, prompt_text="", voice="", seed="", prompt_wav="").request
    assert (request.prompt_text, request.voice, request.sampling.seed, request.prompt_wav) == (None,) * 4


def test_unknown_fields_are_ignored() -> None:
    assert _job(ZeroShotForm, user="me").request == _job(ZeroShotForm).request


@pytest.mark.parametrize("prefix", ["", "data:audio/wav;base64,"])
@pytest.mark.parametrize("width", [76, 10_000])
def test_base64_becomes_the_file(prefix: str, width: int) -> None:
    text = base64.b64encode(WAV).decode()
    text = prefix + "\n".join(text[at : at + width] for at in range(0, len(text), width))
    assert _job(ZeroShotForm, prompt_wav=text).request.prompt_wav == WAV


def test_base64_longer_than_a_slice_becomes_the_file() -> None:
    file = WAV * 3000
    assert _job(ZeroShotForm, prompt_wav=base64.b64encode(file).decode()).request.prompt_wav == file


@pytest.mark.parametrize(
    "text", ["base64_encoded_audio_here", "abc", "YQ==YQ==", "¥", "YW=", "\ud800", "data:x,%"]
)
def test_what_is_no_base64_names_the_field(text: str) -> None:
    with pytest.raises(InvalidAudio, match="prompt_wav") as caught:
        _job(ZeroShotForm, prompt_wav=text)
    assert caught.value.param == "prompt_wav"


def test_base64_with_padding_at_the_edge_of_a_slice_is_refused() -> None:
    with pytest.raises(InvalidAudio):
        _job(ZeroShotForm, prompt_wav="A" * (4 * 65_536 - 1) + "=" + "A" * 8)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tts_text": ""}, "tts_text"),
        ({"tts_text": " \n"}, "tts_text"),
        ({"tts_text": "x" * 10_001}, "tts_text"),
        ({"prompt_text": "a"}, "prompt_wav"),
        ({"prompt_wav": WAV, "voice": "anna"}, "voice"),
        ({"prompt_wav": b""}, "prompt_wav"),
        ({"prompt_wav": WAV, "prompt_text": "x" * 2001}, "prompt_text"),
        ({"prompt_wav": WAV, "prompt_text": "a", "instruct_text": "b"}, "instruct_text"),
        ({"voice": "x" * 257}, "voice"),
        ({"speed": 0}, "speed"),
        ({"speed": "4.01"}, "speed"),
        ({"speed": "nan"}, "speed"),
        ({"speed": "-inf"}, "speed"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"seed": int("9" * 4000)}, "seed"),
        ({"temperature": 0}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": 0}, "top_k"),
        ({"win_size": 0}, "win_size"),
        ({"tau_r": 0}, "tau_r"),
        ({"max_token_text_ratio": 0}, "max_token_text_ratio"),
        ({"min_token_text_ratio": 5, "max_token_text_ratio": 4}, "min_token_text_ratio"),
        ({"response_format": "ogg"}, "response_format"),
        ({"tts_model_name": "other"}, "tts_model_name"),
    ],
)
def test_a_value_out_of_range_names_its_field(fields: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidInput, match=param if param != "tts_model_name" else "default") as caught:
        _job(ZeroShotForm, **fields)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("name", "value"), [("speed", "fast"), ("seed", 1.5), ("stream", "maybe"), ("tts_text", 5)]
)
def test_a_value_of_the_wrong_type_names_its_field(name: str, value: object) -> None:
    with pytest.raises(ValidationFailed, match=name) as caught:
        _job(ZeroShotForm, **{name: value})
    assert caught.value.param == name


def test_an_unknown_model_is_told_the_known_ones() -> None:
    with pytest.raises(UnknownModel, match="known models: default"):
        _job(ZeroShotForm, tts_model_name="big")


def test_a_cosyvoice_client_is_told_of_spk_id_not_of_voice() -> None:
    with pytest.raises(LightTTSError) as caught:
        _job(SftForm, spk_id="x" * 257)
    assert caught.value.param == "spk_id"


@pytest.mark.parametrize(
    ("given", "low", "high"),
    [
        ((1.0, None), 1.0, 20.0),
        ((None, 1.0), 1.0, 1.0),
        ((30.0, None), 30.0, 30.0),
        ((None, 50.0), 2.0, 50.0),
    ],
)
def test_one_given_length_ratio_moves_the_default_of_the_other(
    given: tuple[float | None, float | None], low: float, high: float
) -> None:
    sampling = _job(
        ZeroShotForm, min_token_text_ratio=given[0], max_token_text_ratio=given[1]
    ).request.sampling
    assert (sampling.min_token_text_ratio, sampling.max_token_text_ratio) == (low, high)


def test_a_bistream_request_needs_no_text_yet_and_streams() -> None:
    job = validated(BistreamForm, {"prompt_wav": WAV, "prompt_text": "a"}).job()
    check(job.request, job.names, ServerConfig())
    assert job.request.text_open
    assert job.request.stream


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=20)
)
NESTED = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(max_size=5), SCALARS, max_size=3)


@given(st.dictionaries(st.sampled_from([*ZeroShotForm.model_fields, "other"]), NESTED, max_size=8))
def test_no_fields_raise_anything_but_an_error_with_a_code(fields: dict[str, object]) -> None:
    try:
        job = validated(ZeroShotForm, fields).job()
        check(job.request, job.names, ServerConfig())
    except LightTTSError:
        return
    assert job.request.text.strip()
