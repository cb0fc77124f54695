from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from light_tts.errors import GenerationFailed
from light_tts.models.config import ConformerConfig, DiTConfig, FlowConfig, UNetConfig
from light_tts.models.flow.flow_state import FlowChunk, FlowInput, FlowPrompt, FlowState
from light_tts.models.flow.noise import NOISE_FRAMES
from light_tts.models.flow.token_to_mel import Flow
from light_tts.models.layers.ragged import Frames

VOCAB, SPEAKER, MEL, AHEAD, CHUNK = 50, 12, 16, 3, 25
TOLERANCE = 1e-4  # float32 noise: the same sums in another order

CONFORMER = ConformerConfig(
    input_size=16, output_size=16, attention_heads=2, linear_units=24, num_blocks=2, num_up_blocks=1
)
UNET = UNetConfig(4 * MEL, MEL, channels=16, attention_head_dim=8, n_blocks=1, num_mid_blocks=1, num_heads=2)
DIT = DiTConfig(16, 2, 2, 8, 2, mel_dim=MEL, mu_dim=MEL, spk_dim=MEL, out_channels=MEL)
CONFIGS = {
    2: FlowConfig(2, VOCAB, 16, MEL, SPEAKER, AHEAD, 2, CONFORMER, None, UNET, num_steps=3),
    3: FlowConfig(3, VOCAB, MEL, MEL, SPEAKER, AHEAD, 2, None, 20, DIT, num_steps=3),
}


@pytest.fixture(scope="module", params=[2, 3], ids=["v2", "v3"])
def flow(request: pytest.FixtureRequest) -> Flow:
    torch.manual_seed(4)
    module = Flow(CONFIGS[request.param])
    for name, parameter in module.named_parameters():
        if "pos_bias" in name:
            torch.nn.init.normal_(parameter)
    return module.requires_grad_(False)


def speech(length: int, seed: int = 0) -> Tensor:
    return torch.randint(VOCAB, (length,), generator=torch.Generator().manual_seed(seed))


def voice(num_tokens: int, num_frames: int | None = None) -> FlowPrompt:
    generator = torch.Generator().manual_seed(num_tokens)
    frames = 2 * num_tokens if num_frames is None else num_frames
    mel = torch.randn(frames, MEL, generator=generator)
    return FlowPrompt(speech(num_tokens, 99), mel, torch.randn(SPEAKER, generator=generator))


def border(prompt: FlowPrompt, least: int) -> int:
    """The first chunk border at or after `least` speech tokens, in speech tokens."""
    total = len(prompt.tokens) + least
    return total + -total % CHUNK - len(prompt.tokens)


def whole(
    flow: Flow, tokens: Tensor, prompt: FlowPrompt, finalize: bool = True, streaming: bool = True
) -> Tensor:
    (mel,) = flow([FlowInput(tokens, prompt, finalize)], streaming)
    return mel


class Stream:
    """Feeds one stream's tokens piece by piece."""

    def __init__(self, tokens: Tensor, state: FlowState) -> None:
        self.tokens, self.state, self.fed = tokens, state, 0
        self.mels: list[Tensor] = []

    def chunk(self, end: int | None) -> FlowChunk:
        """Up to speech token `end` and its look-ahead; to the end for None."""
        until = len(self.tokens) if end is None else end + AHEAD
        piece, self.fed = self.tokens[self.fed : until], until
        return FlowChunk(piece, finalize=end is None)


def advance(flow: Flow, streams: Sequence[Stream], ends: Sequence[int | None]) -> None:
    """One batched call."""
    chunks = [stream.chunk(end) for stream, end in zip(streams, ends, strict=True)]
    mels, states = flow.stream(chunks, [stream.state for stream in streams])
    for stream, mel, state, end in zip(streams, mels, states, ends, strict=True):
        stream.mels.append(mel)
        assert (state is None) == (end is None)
        if state is not None:
            stream.state = state


@torch.inference_mode()
@pytest.mark.parametrize("num_prompt", [0, 10, 25, 37, 60])
@pytest.mark.parametrize("hops", [[25, 25, 25, 25], [25, 50, 25], [50, 50], [100], [25, 25, 50]], ids=str)
@pytest.mark.parametrize("prefill", [True, False], ids=["prefill", "start"])
def test_stream_equals_whole_with_the_same_masks(
    flow: Flow, num_prompt: int, hops: list[int], prefill: bool
) -> None:
    prompt = voice(num_prompt)
    tokens = speech(border(prompt, sum(hops)) + 9)
    stream = Stream(tokens, flow.prefill_prompt(prompt) if prefill else flow.start(prompt))
    end = 0
    for hop in hops:
        end = border(prompt, end + hop)
        advance(flow, [stream], [end])
    advance(flow, [stream], [None])
    mel = torch.cat(stream.mels, dim=1)
    assert mel.shape == (MEL, 2 * len(tokens))
    torch.testing.assert_close(mel, whole(flow, tokens, prompt), atol=TOLERANCE, rtol=0)


@torch.inference_mode()
def test_chunks_of_one_stream_have_the_frames_of_their_tokens(flow: Flow) -> None:
    stream = Stream(speech(50), flow.prefill_prompt(voice(37)))
    for end in (13, 38, None):
        advance(flow, [stream], [end])
    assert [mel.shape[1] for mel in stream.mels] == [26, 50, 24]


@torch.inference_mode()
def test_batched_streams_with_different_pasts_equal_whole_rows(flow: Flow) -> None:
    prompts = [voice(60), voice(0), voice(37), voice(10)]
    tokens = [speech(n, n) for n in (95, 58, 70, 11)]
    streams = [Stream(t, flow.prefill_prompt(prompt)) for t, prompt in zip(tokens, prompts, strict=True)]
    # Which streams take part in each call and up to which token: some join late, some end early.
    calls: list[dict[int, int | None]] = [
        {0: 15},
        {0: 40, 1: 25, 2: 13},
        {1: 50, 3: None},
        {0: 90, 1: None, 2: 63},
        {0: None, 2: None},
    ]
    for call in calls:
        advance(flow, [streams[b] for b in call], [*call.values()])
    for stream, prompt, ids in zip(streams, prompts, tokens, strict=True):
        torch.testing.assert_close(
            torch.cat(stream.mels, dim=1), whole(flow, ids, prompt), atol=TOLERANCE, rtol=0
        )


@torch.inference_mode()
def test_requests_of_one_voice_continue_from_one_prefilled_state(flow: Flow) -> None:
    prompt = voice(60)
    prefilled = flow.prefill_prompt(prompt)
    assert prefilled.num_tokens == 50
    for seed in (1, 2):
        tokens = speech(45, seed)
        stream = Stream(tokens, prefilled)
        advance(flow, [stream], [15])
        advance(flow, [stream], [None])
        torch.testing.assert_close(
            torch.cat(stream.mels, dim=1), whole(flow, tokens, prompt), atol=TOLERANCE, rtol=0
        )


@torch.inference_mode()
@pytest.mark.parametrize(("num_prompt", "covered"), [(0, 0), (27, 0), (28, 25), (52, 25), (53, 50)])
def test_prefill_covers_the_whole_chunks_that_have_their_lookahead(
    flow: Flow, num_prompt: int, covered: int
) -> None:
    state = flow.prefill_prompt(voice(num_prompt))
    assert state.num_tokens == covered
    assert torch.equal(state.pending, voice(num_prompt).tokens[covered:])


@torch.inference_mode()
@pytest.mark.parametrize("num_frames", [40, 70, 77, 120])
def test_prompt_mel_of_another_length_decides_where_speech_begins(flow: Flow, num_frames: int) -> None:
    prompt, tokens = voice(37, num_frames), speech(60)
    expected = whole(flow, tokens, prompt)
    assert expected.shape[1] == 2 * (37 + 60) - num_frames
    stream = Stream(tokens, flow.prefill_prompt(prompt))
    for end in (13, 38, None):
        advance(flow, [stream], [end])
    torch.testing.assert_close(torch.cat(stream.mels, dim=1), expected, atol=TOLERANCE, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize("streaming", [False, True])
def test_ragged_batch_equals_single_rows(flow: Flow, streaming: bool) -> None:
    inputs = [
        FlowInput(speech(40, 1), voice(13)),
        FlowInput(speech(8, 2), voice(0), finalize=False),
        FlowInput(speech(55, 3), voice(37), finalize=False),
        FlowInput(speech(1, 4), voice(5)),
    ]
    for mel, item in zip(flow(inputs, streaming), inputs, strict=True):
        alone = whole(flow, item.tokens, item.prompt, item.finalize, streaming)
        assert mel.shape[1] == 2 * (len(item.tokens) - (0 if item.finalize else AHEAD))
        torch.testing.assert_close(mel, alone, atol=TOLERANCE, rtol=0)


@torch.inference_mode()
def test_masks_and_lookahead_matter(flow: Flow) -> None:
    tokens, prompt = speech(60), voice(10)
    full, chunked = (whole(flow, tokens, prompt, streaming=streaming) for streaming in (False, True))
    assert (full - chunked).abs().max() > 100 * TOLERANCE
    cut = whole(flow, tokens, prompt, finalize=False)
    ended = whole(flow, tokens[:-AHEAD], prompt)
    assert (cut - ended).abs().max() > 100 * TOLERANCE


@torch.inference_mode()
def test_rows_that_end_ignore_their_lookahead(flow: Flow) -> None:
    tokens, context, finalize = speech(14).view(2, 7), speech(6).view(2, 3), torch.tensor([True, False])
    frames = Frames.whole(torch.tensor([7, 7]), 7)
    mu, _ = flow.condition(tokens, frames, context, finalize)
    ended, _ = flow.condition(tokens, frames)
    goes_on, _ = flow.condition(tokens, frames, context)
    torch.testing.assert_close(mu[0], ended[0], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(mu[1], goes_on[1], atol=TOLERANCE, rtol=0)
    assert (ended - goes_on).abs().amax(dim=(1, 2)).min() > 10 * TOLERANCE


@torch.inference_mode()
def test_negative_tokens_count_as_zero(flow: Flow) -> None:
    tokens = speech(9)
    tokens[4] = 0
    zero = whole(flow, tokens, voice(3))
    tokens[4] = -1
    assert torch.equal(whole(flow, tokens, voice(3)), zero)


@torch.inference_mode()
def test_only_the_direction_of_the_speaker_embedding_counts(flow: Flow) -> None:
    prompt, tokens = voice(5), speech(9)
    louder = replace(prompt, embedding=7 * prompt.embedding)
    torch.testing.assert_close(
        whole(flow, tokens, louder), whole(flow, tokens, prompt), atol=TOLERANCE, rtol=0
    )
    silent = FlowPrompt.without_recording(torch.zeros(SPEAKER), MEL)
    assert whole(flow, tokens, silent).isfinite().all()


@torch.inference_mode()
def test_nothing_to_say_is_an_empty_mel(flow: Flow) -> None:
    nothing = speech(0)
    assert whole(flow, nothing, voice(0)).shape == (MEL, 0)
    assert whole(flow, nothing, voice(30)).shape == (MEL, 0)
    (mel,), (state,) = flow.stream([FlowChunk(nothing, finalize=True)], [flow.start(voice(0))])
    assert mel.shape == (MEL, 0)
    assert state is None


@torch.inference_mode()
def test_empty_rows_do_not_disturb_a_batch(flow: Flow) -> None:
    empty, full = flow([FlowInput(speech(0), voice(0)), FlowInput(speech(30), voice(10))])
    assert empty.shape == (MEL, 0)
    expected = whole(flow, speech(30), voice(10), streaming=False)
    torch.testing.assert_close(full, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("num_tokens", [25, 27, 29, 50])
def test_chunk_off_the_border_is_refused(flow: Flow, num_tokens: int) -> None:
    with pytest.raises(ValueError, match="multiple of 25"):
        flow.stream([FlowChunk(speech(num_tokens))], [flow.start(voice(0))])


def test_chunk_of_lookahead_only_is_refused(flow: Flow) -> None:
    with pytest.raises(ValueError, match="look-ahead"):
        flow.stream([FlowChunk(speech(3))], [flow.start(voice(0))])
    with pytest.raises(ValueError, match="look-ahead"):
        flow([FlowInput(speech(2), voice(0), finalize=False)])


def test_token_outside_the_vocabulary_is_refused(flow: Flow) -> None:
    with pytest.raises(GenerationFailed, match=f"{VOCAB}, must be below {VOCAB}"):
        flow([FlowInput(torch.tensor([1, VOCAB]), voice(0))])
    with pytest.raises(GenerationFailed, match="must be below"):
        flow.stream([FlowChunk(torch.tensor([VOCAB]), finalize=True)], [flow.start(voice(0))])


def test_more_than_the_noise_is_refused(flow: Flow) -> None:
    with pytest.raises(GenerationFailed, match=f"limit {NOISE_FRAMES}"):
        flow([FlowInput(speech(NOISE_FRAMES // 2 - 9), voice(10))])


def test_misshapen_prompt_is_refused(flow: Flow) -> None:
    good = voice(4)
    for bad in (replace(good, embedding=torch.zeros(1, SPEAKER)), replace(good, mel=good.mel.T)):
        with pytest.raises(ValueError, match="must be"):
            flow.start(bad)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stream_stays_close_to_float32(flow: Flow, dtype: torch.dtype) -> None:
    prompt, tokens = voice(30), speech(40)
    half = Flow(flow.cfg)
    half.load_state_dict(flow.state_dict())
    stream = Stream(tokens, half.to(dtype).prefill_prompt(prompt))
    advance(half, [stream], [20])
    advance(half, [stream], [None])
    mel = torch.cat(stream.mels, dim=1)
    assert mel.dtype == torch.float32
    error = (mel - whole(flow, tokens, prompt)).abs()
    assert error.max() < (0.2 if dtype == torch.bfloat16 else 0.03)


def test_every_parameter_is_trainable_through_its_modules(flow: Flow) -> None:
    module = Flow(flow.cfg)
    (mel,) = module([FlowInput(speech(30), voice(8), finalize=False)])
    mel.square().sum().backward()
    without = {name for name, p in module.named_parameters() if p.grad is None or not p.grad.isfinite().all()}
    assert not without


def test_module_can_be_built_without_memory() -> None:
    for cfg in CONFIGS.values():
        with torch.device("meta"):
            module = Flow(cfg)
        assert module.dtype == torch.float32
