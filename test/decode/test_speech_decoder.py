from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from light_tts.decode.segment import SegmentStream, SpokenTokens
from light_tts.decode.speech_decoder import SpeechDecoder
from light_tts.decode.stream import HopPlan
from light_tts.errors import GenerationFailed
from light_tts.models.flow.flow_state import FlowInput, FlowPrompt
from light_tts.models.loader import LoadedModels, load_models
from light_tts.models.vocoder.mel_stretch import stretch_mel
from light_tts.models.vocoder.source_noise import SourceNoise
from light_tts.quirks import ReferenceQuirks
from test.parity.report import LONG_WAVE, LONG_WAVE_RMS, SHORT_WAVE


@pytest.fixture(scope="module")
def models(model_dir: Path) -> LoadedModels:
    return load_models(model_dir, torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def decoder(models: LoadedModels) -> SpeechDecoder:
    return SpeechDecoder(models.flow, models.vocoder)


def make_prompt(num_tokens: int, seed: int = 0) -> FlowPrompt:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 700, (num_tokens,), generator=generator)
    mel = torch.randn(2 * num_tokens, 80, generator=generator) - 4
    return FlowPrompt(tokens, mel, torch.randn(192, generator=generator))


def make_tokens(count: int, seed: int = 1) -> list[int]:
    return torch.randint(0, 700, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def run_streams(
    decoder: SpeechDecoder, streams: list[SegmentStream], tokens: list[list[int]], burst: int
) -> list[Tensor]:
    """Deliver each stream's tokens in bursts, and decode whatever is ready after each."""
    heard: list[list[Tensor]] = [[] for _ in streams]
    position = 0
    while not all(stream.finished for stream in streams):
        for stream, own in zip(streams, tokens, strict=True):
            for token in own[position : position + burst]:
                stream.add(token)
            if position + burst >= len(own):
                stream.end()
        position += burst
        for chunks, wav in zip(heard, decoder.advance(streams), strict=True):
            if wav is not None:
                chunks.append(wav)
    return [torch.cat(chunks) for chunks in heard]


def assert_same_wave(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    error = actual - expected
    assert float(error.abs().max()) <= LONG_WAVE
    assert float(error.square().mean().sqrt()) <= LONG_WAVE_RMS * float(expected.square().mean().sqrt())


@pytest.mark.parametrize("num_prompt", [0, 10, 37, 75])
@pytest.mark.parametrize("speed", [1.0, 0.8])
def test_streaming_equals_whole_under_the_same_masks(
    models: LoadedModels, decoder: SpeechDecoder, num_prompt: int, speed: float
) -> None:
    prompt, tokens, noise = make_prompt(num_prompt), make_tokens(171), SourceNoise.seeded(9)
    (streamed,) = run_streams(decoder, [decoder.open(prompt, noise, speed)], [tokens], burst=7)
    with torch.inference_mode():
        (mel,) = models.flow([FlowInput(torch.tensor(tokens), prompt)], streaming=True)
        mel = stretch_mel(mel[None], speed)
        whole = models.vocoder.synthesize(mel, torch.tensor([mel.shape[2]]), [noise])[0]
    assert_same_wave(streamed, whole)


def test_streams_of_one_batch_equal_streams_alone(decoder: SpeechDecoder) -> None:
    cases = [(0, 60, 1.0), (37, 171, 1.0), (75, 12, 1.25), (12, 130, 1.0)]
    prompts = [make_prompt(num_prompt, seed) for seed, (num_prompt, _, _) in enumerate(cases)]
    tokens = [make_tokens(count, seed) for seed, (_, count, _) in enumerate(cases)]

    def opened(index: int) -> SegmentStream:
        return decoder.open(prompts[index], SourceNoise.seeded(index), cases[index][2])

    together = run_streams(decoder, [opened(index) for index in range(4)], tokens, burst=11)
    for index in range(4):
        (alone,) = run_streams(decoder, [opened(index)], [tokens[index]], burst=40)
        assert_same_wave(together[index], alone)


def test_whole_batches_equal_single(decoder: SpeechDecoder) -> None:
    segments = [
        SpokenTokens(
            torch.tensor(make_tokens(count, count)),
            make_prompt(prompt, count),
            SourceNoise.seeded(count),
            speed,
        )
        for count, prompt, speed in ((5, 0, 1.0), (60, 37, 1.0), (33, 75, 1.3), (90, 12, 1.0))
    ]
    for segment, together in zip(segments, decoder.whole(segments), strict=True):
        assert_same_wave(together, decoder.whole([segment])[0])


def test_a_prefilled_voice_changes_nothing_and_serves_twice(decoder: SpeechDecoder) -> None:
    prompt, tokens = make_prompt(75), make_tokens(90)
    prefilled = decoder.prefill(prompt)
    (fresh,) = run_streams(decoder, [decoder.open(prompt, SourceNoise.seeded(1))], [tokens], burst=90)
    for _ in range(2):
        stream = decoder.open(prompt, SourceNoise.seeded(1), prefilled=prefilled)
        (continued,) = run_streams(decoder, [stream], [tokens], burst=5)
        assert_same_wave(continued, fresh)


def test_no_sample_jumps_at_a_join(decoder: SpeechDecoder) -> None:
    """The step from chunk to chunk is no larger than steps inside chunks."""
    stream, tokens = decoder.open(make_prompt(37), SourceNoise.zeros()), make_tokens(171)
    for token in tokens:
        stream.add(token)
    stream.end()
    chunks = []
    while not stream.finished:
        (wav,) = decoder.advance([stream])
        assert wav is not None
        chunks.append(wav)
    joins = [float((after[0] - before[-1]).abs()) for before, after in pairwise(chunks) if len(before)]
    largest_inside = max(float(chunk.diff().abs().max()) for chunk in chunks if len(chunk) > 1)
    assert len(joins) >= 2
    assert max(joins) <= largest_inside


def test_a_token_outside_the_vocabulary_fails_by_name(decoder: SpeechDecoder) -> None:
    segment = SpokenTokens(torch.tensor([1, 10**6]), make_prompt(0), SourceNoise.zeros())
    with pytest.raises(GenerationFailed, match="1000000"):
        decoder.whole([segment])


def test_nan_weights_give_an_error_not_noise(model_dir: Path) -> None:
    models = load_models(model_dir, torch.device("cpu"), torch.float32)
    with torch.no_grad():
        models.flow.spk_embed_affine_layer.bias.fill_(torch.nan)
    decoder = SpeechDecoder(models.flow, models.vocoder)
    with pytest.raises(GenerationFailed, match="finite"):
        decoder.whole([SpokenTokens(torch.tensor([1, 2, 3]), make_prompt(0), SourceNoise.zeros())])


def stream_with(models: LoadedModels, quirks: ReferenceQuirks, plan: HopPlan | None = None) -> Tensor:
    decoder = SpeechDecoder(models.flow, models.vocoder, quirks, plan)
    stream = decoder.open(make_prompt(37), SourceNoise.zeros())
    (wav,) = run_streams(decoder, [stream], [make_tokens(130)], burst=130)
    return wav


def test_quirk_last_chunk_full_attention_changes_the_end_only(models: LoadedModels) -> None:
    right, quirky = (
        stream_with(models, ReferenceQuirks(last_chunk_full_attention=on)) for on in (False, True)
    )
    assert right.shape == quirky.shape
    error = (right - quirky).abs()
    before_last_chunk = 480 * 2 * 60
    assert float(error[:before_last_chunk].max()) <= SHORT_WAVE
    assert float(error[before_last_chunk:].max()) > 10 * SHORT_WAVE


def test_quirk_overlap_add_vocoder_is_heard_at_the_joins_of_version_2(models: LoadedModels) -> None:
    plan = HopPlan.reference(25, 3)
    right, quirky = (
        stream_with(models, ReferenceQuirks(overlap_add_vocoder=on), plan) for on in (False, True)
    )
    assert right.shape == quirky.shape
    difference = float((right - quirky).abs().max())
    if models.config.version == 2:
        assert difference > 10 * SHORT_WAVE
    else:  # CosyVoice3's vocoder is causal: doing everything again gives the same
        assert difference <= LONG_WAVE
