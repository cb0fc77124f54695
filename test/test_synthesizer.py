from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from light_tts import planning
from light_tts.audio import Audio
from light_tts.decode.segment import SpokenTokens
from light_tts.decode.speech_decoder import SpeechDecoder
from light_tts.encode.planner import Plan
from light_tts.errors import (
    EmptyText,
    GenerationFailed,
    InvalidAudio,
    InvalidInput,
    LightTTSError,
    ModelNotFound,
    PromptTooLong,
    PromptTooShort,
    TextTooLong,
    VoiceNotFound,
)
from light_tts.llm.request import SequenceRequest
from light_tts.models.config import SamplingConfig
from light_tts.quirks import ReferenceQuirks
from light_tts.request import SynthesisRequest
from light_tts.synthesizer import LightTTS
from test.parity.report import LONG_WAVE

TEXT = "quick fox."
SAMPLES_PER_TOKEN = 960


@pytest.fixture(scope="module")
def prompt(golden: Path) -> Path:
    return golden / "fixtures" / "prompt_24k.wav"


@pytest.fixture(scope="module")
def engine(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> LightTTS:
    return LightTTS(model_dir, "cpu", voices_dir=tmp_path_factory.mktemp("voices"))


def joined(chunks: Iterator[Audio]) -> np.ndarray:
    return np.concatenate([chunk.samples for chunk in chunks])


def test_speech_is_whole_tokens_of_finite_audio(engine: LightTTS, prompt: Path) -> None:
    audio = engine.synthesize(TEXT, prompt_audio=prompt, prompt_text="ok.", seed=1)
    assert audio.sample_rate_hz == 24_000
    assert len(audio.samples) % SAMPLES_PER_TOKEN == 0
    assert len(audio.samples) > 0
    assert np.abs(audio.samples).max() <= 1.0


def test_the_same_seed_gives_the_same_audio_and_another_seed_does_not(engine: LightTTS, prompt: Path) -> None:
    first, again, other = (engine.synthesize(TEXT, prompt_audio=prompt, seed=seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first.samples, again.samples)
    assert first.samples.shape != other.samples.shape or not np.allclose(first.samples, other.samples)


@pytest.mark.parametrize("options", [{}, {"prompt_text": "ok."}, {"instruct_text": "slowly"}], ids=str)
@pytest.mark.parametrize("speed", [1.0, 1.3])
def test_a_stream_has_the_length_and_tokens_of_the_whole(
    engine: LightTTS, prompt: Path, options: dict[str, str], speed: float
) -> None:
    request = SynthesisRequest(text=TEXT, prompt_audio=prompt, seed=3, speed=speed, **options)  # type: ignore[arg-type]
    whole, streamed = engine.run(request).samples, joined(engine.run_stream(request))
    # Masks differ between the two (the look-ahead ends at a chunk), so only the length must be equal.
    assert abs(len(whole) - len(streamed)) <= 480


def test_batch_equals_single(engine: LightTTS, prompt: Path) -> None:
    requests = [
        SynthesisRequest(text=text, prompt_audio=prompt, seed=seed)
        for seed, text in enumerate(["ok.", "quick fox. " * 4, "hello world, quick."])
    ]
    batch = engine.synthesize_batch(requests)
    for request, together in zip(requests, batch, strict=True):
        assert isinstance(together, Audio)
        alone = engine.run(request).samples
        assert alone.shape == together.samples.shape
        assert np.abs(alone - together.samples).max() <= LONG_WAVE


def test_a_bad_request_in_a_batch_fails_alone(engine: LightTTS, prompt: Path) -> None:
    good = SynthesisRequest(text=TEXT, prompt_audio=prompt, seed=0)
    results = engine.synthesize_batch([good, SynthesisRequest(text="  ", prompt_audio=prompt), good])
    assert isinstance(results[1], EmptyText)
    assert isinstance(results[0], Audio)
    assert isinstance(results[2], Audio)


def test_one_failing_waveform_in_a_batch_fails_alone(
    golden: Path, prompt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = LightTTS(golden / "cosyvoice3", "cpu")
    whole = SpeechDecoder.whole
    requests = [SynthesisRequest(text=text, prompt_audio=prompt, seed=1) for text in ("ok.", "hello world.")]
    lengths = sorted(
        len(audio.samples) for audio in engine.synthesize_batch(requests) if isinstance(audio, Audio)
    )
    assert len(lengths) == 2

    def failing(self: SpeechDecoder, segments: Sequence[SpokenTokens]) -> list[Tensor]:
        if any(len(segment.tokens) * 960 == lengths[1] for segment in segments):
            raise GenerationFailed("the synthesised audio is not finite")
        return whole(self, segments)

    monkeypatch.setattr(SpeechDecoder, "whole", failing)
    kinds = {type(result) for result in engine.synthesize_batch(requests)}
    assert kinds == {Audio, GenerationFailed}


def test_two_interleaved_streams_hear_only_themselves(engine: LightTTS, prompt: Path) -> None:
    requests = [SynthesisRequest(text=TEXT * 3, prompt_audio=prompt, seed=seed) for seed in (1, 2)]
    alone = [joined(engine.run_stream(request)) for request in requests]
    streams = [engine.run_stream(request) for request in requests]
    chunks: list[list[np.ndarray]] = [[], []]
    running = [0, 1]
    while running:
        for index in list(running):
            chunk = next(streams[index], None)
            if chunk is None:
                running.remove(index)
            else:
                chunks[index].append(chunk.samples)
    for expected, heard in zip(alone, chunks, strict=True):
        together = np.concatenate(heard)
        assert together.shape == expected.shape
        assert np.abs(together - expected).max() <= LONG_WAVE


def test_an_abandoned_stream_gives_its_place_back(engine: LightTTS, prompt: Path) -> None:
    free = engine.num_free_slots
    stream = engine.stream(TEXT * 5, prompt_audio=prompt, seed=1)
    next(stream)
    assert engine.num_free_slots < free
    stream.close()  # type: ignore[attr-defined]
    assert engine.num_free_slots == free


def test_text_in_pieces_does_not_depend_on_where_it_is_cut(engine: LightTTS, prompt: Path) -> None:
    text = "hello quick fox, ok 12 ok."
    by_letter = joined(engine.stream_text(iter(text), prompt_audio=prompt, prompt_text="ok.", seed=5))
    at_once = joined(engine.stream_text([text], prompt_audio=prompt, prompt_text="ok.", seed=5))
    assert len(by_letter) == len(at_once)
    assert np.abs(by_letter - at_once).max() <= LONG_WAVE


def test_a_long_text_in_one_piece_is_spoken_in_several_sequences(
    golden: Path, prompt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    original = planning.open_request

    def counting(plan: Plan, number: int, model: SamplingConfig) -> SequenceRequest:
        opened.append(number)
        return original(plan, number, model)

    monkeypatch.setattr("light_tts.synthesizer.open_request", counting)
    engine = LightTTS(golden / "cosyvoice3", "cpu")
    free = engine.num_free_slots
    text = "hello world hello world hello world hello world hello. " * 7
    assert len(joined(engine.stream_text([text], prompt_audio=prompt, seed=1, max_token_text_ratio=2.0))) > 0
    assert opened == [*range(len(opened))]
    assert len(opened) > 1
    assert engine.num_free_slots == free


def test_text_in_pieces_follows_the_system_prompt_that_a_voice_without_transcript_needs(
    engine: LightTTS, prompt: Path
) -> None:
    plan = engine._planner.plan_open(SynthesisRequest(text="", prompt_audio=prompt))
    whole = engine._planner.plan(SynthesisRequest(text="ok.", prompt_audio=prompt))
    if engine.config.version == 3:
        assert plan.voice.prompt_text
        assert whole.segments[0].text[: len(plan.voice.prompt_text)] == plan.voice.prompt_text
    else:
        assert plan.voice.prompt_text == ()


def test_text_in_pieces_can_stay_as_it_is_written(engine: LightTTS, prompt: Path) -> None:
    options = {"prompt_audio": prompt, "seed": 2}
    read = joined(engine.stream_text(["12 ok."], **options))  # type: ignore[arg-type]
    written = joined(engine.stream_text(["12 ok."], normalise=False, **options))  # type: ignore[arg-type]
    assert len(read) != len(written) or not np.array_equal(read, written)
    with pytest.raises(InvalidInput, match="allow_tags"):
        engine.stream_text(["ok."], allow_tags=True, **options)  # type: ignore[arg-type]


def test_no_pieces_make_no_sound(engine: LightTTS, prompt: Path) -> None:
    assert list(engine.stream_text([], prompt_audio=prompt)) == []
    assert list(engine.stream_text(["", "  "], prompt_audio=prompt)) == []


def test_a_registered_voice_speaks_like_its_recording(engine: LightTTS, prompt: Path) -> None:
    engine.register_voice("someone", prompt, "ok.", "en")
    assert "someone" in [voice.name for voice in engine.voices()]
    by_name = engine.synthesize(TEXT, voice="someone", seed=4).samples
    by_recording = engine.synthesize(TEXT, prompt_audio=prompt, prompt_text="ok.", seed=4).samples
    np.testing.assert_array_equal(by_name, by_recording)


def test_conversion_keeps_the_length_of_the_source(engine: LightTTS, prompt: Path) -> None:
    audio = engine.convert(prompt, prompt_audio=prompt, seed=0)
    assert abs(audio.duration_s - 3.03) < 0.05
    for options in ({"seed": -1}, {"speed": 5.0}):
        with pytest.raises(InvalidInput, match=next(iter(options))):
            engine.convert(prompt, prompt_audio=prompt, **options)


def test_several_sentences_are_joined_in_order(golden: Path, prompt: Path) -> None:
    engine = LightTTS(golden / "cosyvoice3", "cpu")
    text = " ".join(["hello world hello world hello world hello world hello."] * 3)
    audio = engine.synthesize(text, prompt_audio=prompt, seed=2)
    streamed = joined(engine.stream(text, prompt_audio=prompt, seed=2))
    assert len(audio.samples) == len(streamed)


def test_quirk_hop_never_reset_delays_the_next_requests_first_chunk(golden: Path, prompt: Path) -> None:
    def first_chunks(quirks: ReferenceQuirks) -> list[int]:
        engine = LightTTS(golden / "cosyvoice3", "cpu", quirks=quirks)
        streams = [engine.stream(TEXT * 4, prompt_audio=prompt, seed=1) for _ in range(2)]
        return [len([*stream][0].samples) for stream in streams]  # noqa: RUF015

    first, second = first_chunks(ReferenceQuirks())
    assert first == second
    first, second = first_chunks(ReferenceQuirks(hop_never_reset=True))
    assert second > first


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", EmptyText),
        ("   \n", EmptyText),
        ("😀🎉", EmptyText),
        ("a" * 100_000, TextTooLong),
    ],
    ids=["empty", "spaces", "emoji", "100 KB"],
)
def test_text_that_cannot_be_spoken_is_refused(
    engine: LightTTS, prompt: Path, text: str, error: type[LightTTSError]
) -> None:
    with pytest.raises(error):
        engine.synthesize(text, prompt_audio=prompt)


@pytest.mark.parametrize("text", ["<|endofprompt|>hello", "<|im_start|>", "[breath] hi", "Hello 你好 мир"])
def test_special_strings_and_mixed_scripts_are_text(engine: LightTTS, prompt: Path, text: str) -> None:
    assert engine.synthesize(text, prompt_audio=prompt, seed=0).duration_s > 0


def test_recordings_that_are_no_voice_are_refused(engine: LightTTS, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 31 * 24_000).astype(np.float32)
    with pytest.raises(PromptTooShort, match=r"0\.1"):
        engine.synthesize(TEXT, prompt_audio=Audio(noise[:2400], 24_000))
    with pytest.raises(PromptTooLong, match="30"):
        engine.synthesize(TEXT, prompt_audio=Audio(noise, 24_000))
    with pytest.raises(InvalidAudio):
        engine.synthesize(TEXT, prompt_audio=Audio(noise[:48_000] * 0, 24_000))
    with pytest.raises(InvalidAudio):
        engine.synthesize(TEXT, prompt_audio=b"")
    with pytest.raises(InvalidAudio, match=r"missing\.wav"):
        engine.synthesize(TEXT, prompt_audio=tmp_path / "missing.wav")
    with pytest.raises(VoiceNotFound, match="nobody"):
        engine.synthesize(TEXT, voice="nobody")


def test_options_out_of_range_name_field_value_and_limit() -> None:
    for options, words in (
        ({"speed": 5.0}, ("speed", "5.0", "4.0")),
        ({"speed": float("nan")}, ("speed", "nan")),
        ({"seed": -1}, ("seed", "-1")),
        ({"top_p": 0.0}, ("top_p", "0.0")),
        ({"temperature": 0.0}, ("temperature", "0.0")),
    ):
        with pytest.raises(InvalidInput) as caught:
            SynthesisRequest(text=TEXT, **options)
        assert all(word in str(caught.value) for word in words)


def test_without_a_model_the_error_says_what_to_give(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("light_tts.models.bundled.bundled_model_dir", lambda: None)
    with pytest.raises(ModelNotFound, match="--model_dir"):
        LightTTS()
    with pytest.raises(ModelNotFound, match="nowhere"):
        LightTTS(tmp_path / "nowhere")
