from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from light_tts.decode.budget import StateBudget
from light_tts.decode.jobs import ChunkJob, Done, Job, Spoken, VoiceJob, WholeJob
from light_tts.decode.segment import SegmentStream, SpokenTokens
from light_tts.decode.speech_decoder import SpeechDecoder
from light_tts.errors import LightTTSError, Unavailable
from light_tts.messages import Abort, AudioChunk, RequestFailed, SegmentClosed
from light_tts.models.loader import load_flow, load_vocoder
from light_tts.models.model_yaml import read_model_config
from light_tts.models.vocoder.source_noise import SourceNoise
from test.decode.harness import Bench, make_prompt, make_tokens, make_voice, open_message
from test.parity.report import LONG_WAVE

FULL_SCALE = 32768
ROUNDING = 1
BATCHED = round(
    LONG_WAVE * FULL_SCALE
)  # a batch adds in another order, and the phase of the source adds that up


@pytest.fixture(scope="module")
def decoder(model_dir: Path) -> SpeechDecoder:
    return load_decoder(model_dir)


@pytest.fixture(scope="module")
def small(golden: Path) -> SpeechDecoder:
    """For what does not depend on the model."""
    return load_decoder(golden / "cosyvoice2")


def load_decoder(model_dir: Path) -> SpeechDecoder:
    config = read_model_config(model_dir)
    cpu = torch.device("cpu")
    return SpeechDecoder(
        load_flow(model_dir, config.flow, cpu, torch.float32),
        load_vocoder(model_dir, config.hift, cpu, torch.float32),
    )


def alone(
    decoder: SpeechDecoder, num_prompt: int, count: int, speed: float = 1.0, tokens_seed: int | None = None
) -> NDArray[np.int16]:
    """The stream of a request that has the process for itself."""
    bench = Bench(decoder)
    bench.service.handle(open_message("r", voice=make_voice(num_prompt), speed=speed))
    bench.say(("r", 0), make_tokens(count, count if tokens_seed is None else tokens_seed))
    bench.settle()
    return bench.audio(("r", 0))


def assert_same_audio(
    heard: NDArray[np.int16], expected: NDArray[np.int16], tolerance: int = BATCHED
) -> None:
    assert heard.shape == expected.shape
    assert int(np.abs(heard.astype(int) - expected).max()) <= tolerance


CASES = [(0, 60, 1.0), (37, 131, 1.0), (75, 12, 1.25), (12, 90, 0.8), (37, 1, 1.0), (37, 40, 1.0)]


@pytest.mark.parametrize(("max_batch", "paral"), [(1, 1), (4, 2)])
def test_interleaved_streams_equal_streams_alone(decoder: SpeechDecoder, max_batch: int, paral: int) -> None:
    bench, rng = Bench(decoder, max_batch=max_batch, paral=paral), random.Random(5)
    for index, (num_prompt, _, speed) in enumerate(CASES):
        bench.service.handle(open_message(f"r{index}", voice=make_voice(num_prompt), speed=speed))
    rest = {index: list(make_tokens(count, count)) for index, (_, count, _) in enumerate(CASES)}
    while rest:
        index = rng.choice(list(rest))
        burst = rng.randint(1, 30)
        tokens, rest[index] = tuple(rest[index][:burst]), rest[index][burst:]
        bench.say((f"r{index}", 0), tokens, end=not rest[index])
        if not rest[index]:
            del rest[index]
        if rng.random() < 1 / max_batch:
            bench.step(rng)
    bench.settle()
    assert not bench.failures()
    assert bench.closed() == [(f"r{index}", 0) for index in range(len(CASES))]
    if max_batch > 1:
        assert max(len(job.keys) for job in bench.batches if isinstance(job, ChunkJob)) > 1
    tolerance = ROUNDING if max_batch == 1 else BATCHED
    for index, (num_prompt, count, speed) in enumerate(CASES):
        heard = bench.audio((f"r{index}", 0))
        assert_same_audio(heard, alone(decoder, num_prompt, count, speed), tolerance)
        assert bench.chunks((f"r{index}", 0))[-1].num_tokens == count
    bench.assert_empty()


def test_whole_segments_are_batched_and_equal_what_the_decoder_gives(decoder: SpeechDecoder) -> None:
    bench = Bench(decoder, max_batch=4)
    counts = (60, 75, 90)
    for count in counts:
        bench.service.handle(open_message(f"r{count}", stream=False, voice=make_voice(37), seed=count))
        bench.say((f"r{count}", 0), make_tokens(count, count)[:20], end=False)
        assert not bench.step()
    for count in counts:
        bench.say((f"r{count}", 0), make_tokens(count, count)[20:])
    bench.settle()
    assert [len(job.keys) for job in bench.batches if isinstance(job, WholeJob)] == [3]
    for count in counts:
        segment = SpokenTokens(
            torch.tensor(make_tokens(count, count)), make_prompt(37), SourceNoise.seeded(count)
        )
        (expected,) = decoder.whole([segment])
        heard = bench.audio((f"r{count}", 0)) / FULL_SCALE
        assert float(np.abs(heard - expected.numpy()).max()) <= LONG_WAVE
        assert len(bench.chunks((f"r{count}", 0))) == 1
    bench.assert_empty()


def test_loud_samples_are_clipped_not_wrapped(small: SpeechDecoder) -> None:
    bench = Bench(small)
    bench.service.handle(open_message("r", stream=False))
    bench.say(("r", 0), make_tokens(5))
    with patch.object(SpeechDecoder, "whole", return_value=[torch.tensor([1.5, -1.5, 0.5])]):
        bench.settle()
    assert bench.audio(("r", 0)).tolist() == [32767, -32768, 16384]


def test_a_voice_is_computed_once_for_streams_that_open_together(small: SpeechDecoder) -> None:
    bench = Bench(small, max_batch=8, paral=4)
    for index in range(5):
        bench.service.handle(open_message(f"r{index}", voice=make_voice(75)))
    bench.settle()
    for index in range(5):
        bench.say((f"r{index}", 0), make_tokens(30))
    bench.settle()
    bench.service.handle(open_message("later", voice=make_voice(75)))
    bench.say(("later", 0), make_tokens(30))
    bench.settle()
    assert sum(isinstance(job, VoiceJob) for job in bench.batches) == 1
    assert_same_audio(bench.audio(("r0", 0)), bench.audio(("r1", 0)))
    bench.assert_empty()


def test_an_empty_segment_ends_with_an_empty_last_chunk(small: SpeechDecoder) -> None:
    bench = Bench(small)
    for stream in (True, False):
        bench.service.handle(open_message(f"r{stream}", stream=stream))
        bench.say((f"r{stream}", 0), ())
        (chunk,) = bench.chunks((f"r{stream}", 0))
        assert (chunk.samples, chunk.last, chunk.num_tokens) == (b"", True, 0)
    bench.settle()
    assert not bench.failures()
    bench.assert_empty()


def poison(small: SpeechDecoder, bench: Bench, kind: str) -> None:
    """Request "bad" with one of the faults."""
    voice = make_voice(37, seed=9)
    mel = np.frombuffer(voice.prompt_mel, np.float32).copy()
    mel[7] = np.nan
    match kind:
        case "NaN features":
            voice = msgspec.structs.replace(voice, prompt_mel=mel.tobytes())
        case "wrong shapes":
            voice = msgspec.structs.replace(voice, prompt_mel=voice.prompt_mel[:-320])
        case "no embedding":
            voice = msgspec.structs.replace(voice, speaker_embedding=b"")
        case "huge features":
            voice = msgspec.structs.replace(voice, prompt_mel=np.full(74 * 80, 3e38, np.float32).tobytes())
    bench.service.handle(open_message("bad", voice=voice, speed=0.0 if kind == "speed" else 1.0))
    bench.say(("bad", 0), (1, 2, 3), end=False)
    tokens = {"token too large": (729,), "negative token": (-1,)}.get(kind, make_tokens(60))
    bench.say(("bad", 0), tokens)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("NaN features", "generation_failed"),
        ("wrong shapes", "generation_failed"),
        ("no embedding", "generation_failed"),
        ("huge features", "generation_failed"),
        ("token too large", "generation_failed"),
        ("negative token", "generation_failed"),
        ("speed", "invalid_input"),
    ],
)
def test_a_poisoned_request_fails_alone(small: SpeechDecoder, kind: str, code: str) -> None:
    bench = Bench(small, max_batch=8)
    for index in range(2):
        bench.service.handle(open_message(f"r{index}"))
        bench.say((f"r{index}", 0), make_tokens(40, 40))
    poison(small, bench, kind)
    bench.settle()
    assert bench.failures() == {"bad": code}
    expected = alone(small, 37, 40)
    for index in range(2):
        assert_same_audio(bench.audio((f"r{index}", 0)), expected)
    assert bench.closed() == [("bad", 0), ("r0", 0), ("r1", 0)]
    bench.assert_empty()


@pytest.mark.parametrize("failure", [RuntimeError("boom"), MemoryError("no more"), KeyError("x")])
@pytest.mark.parametrize("stream", [True, False])
def test_when_a_batch_raises_each_member_is_tried_alone(
    small: SpeechDecoder, stream: bool, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(small, max_batch=8)
    advance, whole, calls = SpeechDecoder.advance, SpeechDecoder.whole, []

    def bad_advance(self: SpeechDecoder, streams: list[SegmentStream]) -> list[torch.Tensor | None]:
        calls.append(len(streams))
        wavs = advance(self, streams)  # fails late: the streams have moved on
        if any(len(item.tokens) == 45 for item in streams):
            raise failure
        return wavs

    def bad_whole(self: SpeechDecoder, segments: list[SpokenTokens]) -> list[torch.Tensor]:
        calls.append(len(segments))
        if any(len(item.tokens) == 45 for item in segments):
            raise failure
        return whole(self, segments)

    for index, count in enumerate((44, 45, 44)):
        bench.service.handle(open_message(f"r{index}", stream=stream))
        bench.say((f"r{index}", 0), make_tokens(count, 60))
    with (
        patch.object(SpeechDecoder, "advance", bad_advance),
        patch.object(SpeechDecoder, "whole", bad_whole),
        caplog.at_level(logging.CRITICAL),
    ):
        bench.settle()
    code = "overloaded" if isinstance(failure, MemoryError) else "internal_error"
    assert bench.failures() == {"r1": code}
    assert calls[:4] == [3, 1, 1, 1]
    if stream:
        assert_same_audio(bench.audio(("r0", 0)), alone(small, 37, 44, tokens_seed=60))
    assert_same_audio(bench.audio(("r0", 0)), bench.audio(("r2", 0)))
    bench.assert_empty()


def test_a_voice_that_cannot_be_computed_fails_its_streams_only(small: SpeechDecoder) -> None:
    bench = Bench(small)
    bench.service.handle(open_message("bad", voice=make_voice(75)))
    bench.service.handle(open_message("good", stream=False, voice=make_voice(75)))
    bench.say(("good", 0), make_tokens(5))
    with patch.object(SpeechDecoder, "prefill", side_effect=RuntimeError("boom")):
        bench.settle()
    assert bench.failures() == {"bad": "internal_error"}
    assert len(bench.audio(("good", 0)))
    bench.service.handle(open_message("again", voice=make_voice(75)))
    bench.say(("again", 0), make_tokens(5))
    bench.settle()
    assert len(bench.audio(("again", 0)))
    bench.assert_empty()


def test_one_segment_that_fails_ends_all_of_its_request(small: SpeechDecoder) -> None:
    bench = Bench(small)
    for number in range(3):
        bench.service.handle(open_message("r", number))
    bench.say(("r", 1), (9999,))
    bench.say(("r", 0), make_tokens(60))
    bench.service.handle(open_message("r", 3))
    bench.settle()
    assert bench.failures() == {"r": "generation_failed"}
    assert not bench.chunks(("r", 0))
    assert bench.closed() == [("r", 0), ("r", 1), ("r", 2), ("r", 3)]
    bench.assert_empty()


def test_an_abort_before_the_open_is_remembered(small: SpeechDecoder) -> None:
    bench = Bench(small)
    bench.service.handle(Abort("r"))
    bench.service.handle(open_message("r"))
    bench.say(("r", 0), make_tokens(60))
    bench.settle()
    assert bench.sent == [("llm", SegmentClosed(0, "r", 0))]
    bench.assert_empty()


def test_an_abort_while_a_batch_runs_frees_the_state_when_it_returns(small: SpeechDecoder) -> None:
    bench = Bench(small)
    bench.service.handle(open_message("r"))
    bench.say(("r", 0), make_tokens(60))
    bench.step()  # the voice
    bench.service.dispatch()
    assert isinstance(bench.jobs[0], ChunkJob)
    bench.service.handle(Abort("r"))
    assert bench.closed() == []
    assert bench.service.num_segments == 1
    bench.settle()
    assert bench.closed() == [("r", 0)]
    assert not bench.chunks(("r", 0))
    bench.assert_empty()


def test_tokens_of_unknown_segments_are_ignored(small: SpeechDecoder) -> None:
    bench = Bench(small)
    bench.say(("nobody", 0), (1, 99999))
    bench.service.handle(open_message("r"))
    bench.say(("r", 7), (1, 99999))
    bench.say(("r", 0), make_tokens(5))
    bench.say(("r", 0), make_tokens(5))  # behind the end
    bench.settle()
    assert not bench.failures()
    assert bench.chunks(("r", 0))[-1].num_tokens == 5
    bench.assert_empty()


def test_a_segment_that_opens_twice_goes_on_as_the_first(small: SpeechDecoder) -> None:
    bench = Bench(small)
    for _ in range(2):
        bench.service.handle(open_message("r"))
    bench.say(("r", 0), make_tokens(5))
    bench.settle()
    assert len(bench.audio(("r", 0)))
    bench.assert_empty()


def test_a_request_out_of_time_is_told_so_once(small: SpeechDecoder) -> None:
    bench = Bench(small)
    bench.service.handle(open_message("late", timeout_s=-0.1))
    bench.service.handle(open_message("late", 1, timeout_s=-0.1))
    bench.service.handle(open_message("good"))
    for _ in range(3):
        bench.service.expire()
    bench.say(("good", 0), make_tokens(5))
    bench.settle()
    assert bench.failures() == {"late": "timeout"}
    assert bench.closed() == [("good", 0), ("late", 0), ("late", 1)]
    bench.assert_empty()


def test_new_streams_wait_for_memory_and_none_for_ever(small: SpeechDecoder) -> None:
    budget = StateBudget(40_000_000)  # one of 37 + 45 tokens takes 11 million
    bench = Bench(small, max_batch=8, budget=budget)
    for index in range(5):
        bench.service.handle(open_message(f"r{index}"))
        bench.say((f"r{index}", 0), make_tokens(45))
    most = 0
    while bench.step():
        most = max(most, budget.num_streams)
    assert most == 3
    for index in range(5):
        assert_same_audio(bench.audio((f"r{index}", 0)), bench.audio(("r0", 0)))
    bench.assert_empty()


def test_a_stream_larger_than_the_budget_runs_alone(small: SpeechDecoder) -> None:
    bench = Bench(small, max_batch=4, budget=StateBudget(1))
    for index in range(2):
        bench.service.handle(open_message(f"r{index}", voice=make_voice(75)))
        bench.say((f"r{index}", 0), make_tokens(40))
    while bench.step():
        assert bench.budget.num_streams <= 1
    assert [job.ahead for job in bench.batches if isinstance(job, VoiceJob)] == [False]
    assert len(bench.audio(("r0", 0)))
    assert len(bench.audio(("r1", 0)))
    bench.assert_empty()


def test_voices_that_nobody_holds_make_room_for_streams(small: SpeechDecoder) -> None:
    budget = StateBudget(50_000_000, voice_share=1.0)
    bench = Bench(small, budget=budget)
    for index in range(3):
        bench.service.handle(open_message(f"v{index}", voice=make_voice(75, index)))
        bench.settle()
        bench.service.handle(Abort(f"v{index}"))
    before = budget.voice_bytes
    for index in range(2):
        bench.service.handle(open_message(f"r{index}"))
        bench.say((f"r{index}", 0), make_tokens(100))
    bench.settle()
    assert budget.voice_bytes < before
    assert len(bench.audio(("r1", 0)))
    bench.assert_empty()


def test_while_streams_are_open_one_worker_is_kept_for_them(small: SpeechDecoder) -> None:
    bench = Bench(small, paral=2)
    bench.service.handle(open_message("stream"))
    bench.settle()
    for index in range(2):
        bench.service.handle(open_message(f"w{index}", stream=False))
        bench.say((f"w{index}", 0), make_tokens(20))
    bench.service.dispatch()
    assert [type(job) for job in bench.jobs] == [WholeJob]
    bench.say(("stream", 0), make_tokens(60))
    bench.service.dispatch()
    assert [type(job) for job in bench.jobs] == [WholeJob, ChunkJob]
    bench.settle()
    bench.assert_empty()


def test_what_waits_and_what_runs_is_told(small: SpeechDecoder) -> None:
    bench = Bench(small)
    for index in range(3):
        bench.service.handle(open_message(f"r{index}", stream=False))
    bench.say(("r0", 0), make_tokens(5))
    bench.say(("r1", 0), make_tokens(5))
    bench.service.dispatch()
    load = bench.service.load()
    assert (load.queued, load.running) == (1, 2)
    assert load.oldest_s > 0


def test_a_segment_whose_request_began_elsewhere_is_due_at_a_moment_that_stays(small: SpeechDecoder) -> None:
    """Or first chunks could keep it waiting for ever: what is overdue goes before them."""
    bench = Bench(small)
    bench.service.handle(open_message("r", segment=1))
    bench.settle()
    bench.say(("r", 1), make_tokens(45))
    (segment,) = bench.service._sessions.ready()
    due_s = segment.work().due_s
    time.sleep(0.02)
    assert segment.work().due_s == due_s
    bench.settle()
    bench.assert_empty()


def test_it_is_stuck_for_as_long_as_no_worker_is_free(small: SpeechDecoder) -> None:
    bench = Bench(small, paral=2)
    for index in range(3):
        bench.service.handle(open_message(f"r{index}", stream=False))
        bench.say((f"r{index}", 0), make_tokens(5))
        bench.service.dispatch()
        assert (bench.service.stuck_s() > 0) == (index >= 1)
    bench.service.done(bench.runner.run(bench.jobs.pop()))
    assert bench.service.stuck_s() == 0
    bench.settle()
    bench.assert_empty()


def test_a_lost_gpu_answers_the_batch_and_ends_the_process(small: SpeechDecoder) -> None:
    bench = Bench(small)
    bench.service.handle(open_message("r", stream=False))
    bench.say(("r", 0), make_tokens(5))

    def lost(job: Job) -> Done:
        return Done(job, (LightTTSError("CUDA"),), 0.1, device_lost=True)

    with pytest.raises(Unavailable):
        bench.step(run=lost)
    assert bench.failures() == {"r": "internal_error"}


def test_each_finished_segment_is_one_line_of_the_log(
    small: SpeechDecoder, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(small)
    with caplog.at_level(logging.INFO):
        bench.service.handle(open_message("r"))
        bench.say(("r", 0), make_tokens(60))
        bench.settle()
    (line,) = [r.getMessage() for r in caplog.records if "cost_time" in r.getMessage()]
    assert float(line.split()[-1].removesuffix("ms")) > 0


def fake_run(decoder: SpeechDecoder, rng: random.Random) -> Callable[[Job], Done]:
    """Stands in for the models: any outcome, streams move on as they would."""

    def run(job: Job) -> Done:
        match job:
            case VoiceJob(prompt=prompt):
                return Done(job, (decoder.begin(prompt),), 0.0, 100)
            case ChunkJob(streams=streams):
                for stream in streams:
                    assert stream.next_chunk() is not None
        return Done(job, tuple(_some(rng) for _ in job.keys), 0.0)

    return run


def _some(rng: random.Random) -> Spoken | LightTTSError:
    if rng.random() < 0.1:
        return LightTTSError("unlucky")
    return Spoken(b"\0\0" * rng.choice([0, 480, 24000]), rng.randint(0, 300_000))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_any_order_of_messages_and_aborts_leaves_nothing(small: SpeechDecoder, seed: int) -> None:
    rng = random.Random(seed)
    budget = StateBudget(rng.choice([1, 500_000, 1 << 40]), in_flight=4, copies=rng.choice([0, 3]))
    bench = Bench(small, rng.choice([1, 4]), rng.choice([1, 3]), budget, rng.choice([1, 200]))
    run = fake_run(small, rng)
    opened: set[tuple[str, int]] = set()
    for _ in range(rng.randint(1, 80)):
        key = f"r{rng.randrange(4)}", rng.randrange(3)
        match rng.randrange(5):
            case 0:
                voice, timeout_s = make_voice(rng.choice([0, 30])), rng.choice([1000.0, 1000.0, 1000.0, -1.0])
                bench.service.handle(
                    open_message(*key, voice=voice, stream=rng.random() < 0.7, timeout_s=timeout_s)
                )
                opened.add(key)
            case 1 | 2:
                bench.say(key, make_tokens(rng.choice([0, 1, 20, 150])), end=rng.random() < 0.5)
            case 3:
                bench.step(rng, run)
            case 4 if rng.random() < 0.2:
                bench.service.handle(Abort(key[0]))
    bench.service.expire()
    for key in opened:  # the language model ends what it began
        bench.say(key, (), end=True)
    while bench.step(rng, run):
        pass
    bench.assert_empty()
    assert set(bench.closed()) == opened
    assert_final_messages_are_final(bench)


def assert_final_messages_are_final(bench: Bench) -> None:
    """No audio after a failure or after a last chunk, unless the segment was opened anew."""
    failed: set[str] = set()
    for _, message in bench.sent:
        if isinstance(message, RequestFailed):
            failed.add(message.request_id)
        elif isinstance(message, AudioChunk):
            assert message.request_id not in failed
