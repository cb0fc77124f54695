"""Messages in, messages out: order, isolation and faults of the encode process."""

from __future__ import annotations

import json
import logging
import random
import shutil
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from light_tts.audio import Audio
from light_tts.encode.features import PromptFeatures
from light_tts.encode.prompt_encoder import PromptEncoder
from light_tts.errors import CorruptFile
from light_tts.messages import (
    Abort,
    LlmTask,
    Mode,
    PeerLost,
    Planned,
    RequestFailed,
    Sampling,
    Stage,
    Synthesize,
    TextAppend,
)
from light_tts.models.voice_features import unpack
from test.encode.support import HTTP, LLM, Bench, bench, request, sequences
from test.encode.test_audio import CONTAINERS, av_file, sound_file, tone

LONG = "hello world quick fox, hello 12 worlds. " * 12


@pytest.fixture(scope="module")
def folder(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with an English and a Chinese voice."""
    folder = tmp_path_factory.mktemp("model") / "cosyvoice2"
    shutil.copytree(golden / "cosyvoice2", folder)
    shutil.copy(golden / "fixtures" / "prompt_24k.wav", folder / "anna.wav")
    (folder / "mei.wav").write_bytes(sound_file(tone(1.0), 24_000))
    entries = [
        {"name": "anna", "wav": "anna.wav", "text": "ok.", "lang": "en"},
        {"name": "mei", "wav": "mei.wav", "text": "好。", "lang": "zh"},
    ]
    (folder / "prompts.json").write_text(json.dumps(entries), "utf-8")
    return folder


@pytest.fixture
def tools(folder: Path) -> Iterator[Bench]:
    with bench(folder) as made:
        yield made
        made.settle()


@pytest.fixture(scope="module")
def wav(golden: Path) -> bytes:
    return (golden / "fixtures" / "prompt_24k.wav").read_bytes()


class Gate:
    """Holds every recording back until it is opened, and counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = threading.Event()
        self.go_on = threading.Event()
        self.count = 0
        original = PromptEncoder.encode

        def encode(encoder: PromptEncoder, audio: Audio, trim: bool = True) -> PromptFeatures:
            self.count += 1
            self.reached.set()
            assert self.go_on.wait(30)
            return original(encoder, audio, trim)

        monkeypatch.setattr(PromptEncoder, "encode", encode)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


def failure(tools: Bench, message: Synthesize) -> RequestFailed:
    tools.service.take(message)
    answer = tools.sent.wait(message.request_id)
    assert isinstance(answer, RequestFailed), answer
    return answer


def success(tools: Bench, message: Synthesize) -> Planned:
    tools.service.take(message)
    answer = tools.sent.wait(message.request_id)
    assert isinstance(answer, Planned), answer
    return answer


def test_a_request_is_planned_and_its_segments_follow_in_order(tools: Bench, wav: bytes) -> None:
    planned = success(tools, request("r", LONG, prompt_wav=wav, prompt_text="ok.", stream=True, speed=1.5))
    tools.settle()
    assert tools.sent.all(HTTP) == [planned]
    assert tools.sent.all()[-1] is planned, "until then the HTTP worker takes it for being here"
    tasks = tools.tasks("r")
    assert [task.segment for task in tasks] == [*range(planned.num_segments)]
    assert len(planned.texts) == planned.num_segments > 1
    assert " ".join(planned.texts).startswith("hello world quick fox, hello twelve worlds.")
    assert planned.num_text_tokens == sum(len(task.text) for task in tasks)
    assert planned.cache_hit is False
    assert {(task.stream, task.speed, task.reply_to) for task in tasks} == {(True, 1.5, HTTP)}
    assert len({task.seed for task in tasks}) == len(tasks)
    voice = unpack(tasks[0].voice, 6561)
    assert len(voice.mel) == 2 * len(voice.tokens) > 0
    assert tuple(voice.tokens.tolist()) == tasks[0].prompt_speech
    assert success(tools, request("again", prompt_wav=wav)).cache_hit is True
    assert success(tools, request("named", voice="anna")).cache_hit is None


def test_the_voice_of_an_upload_and_of_the_same_recording_by_name_are_one(tools: Bench, wav: bytes) -> None:
    success(tools, request("upload", prompt_wav=wav, prompt_text="ok."))
    success(tools, request("name", voice="anna"))
    tools.settle()
    (first,), (second,) = tools.tasks("upload"), tools.tasks("name")
    assert first.voice == second.voice
    assert first.prompt_text == second.prompt_text


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_format_that_people_upload_becomes_a_voice(tools: Bench, container: str) -> None:
    upload = CONTAINERS[container](tone(1.0, rate=48_000), 48_000)
    success(tools, request("r", prompt_wav=upload, prompt_text="ok."))
    tools.settle()
    (task,) = tools.tasks("r")
    assert len(task.prompt_speech) >= 20


def float_wav(samples: list[float] | np.ndarray) -> bytes:
    return sound_file(np.asarray(samples, dtype=np.float32), 24_000, subtype="FLOAT")


def with_header(**fields: int) -> bytes:
    """A WAV whose header claims what is not so. rate, channels, bits: of the samples; size: of the data"""
    data = (tone(1.0) * 32767).astype("<i2").tobytes()
    rate, channels, bits = fields.get("rate", 24_000), fields.get("channels", 1), fields.get("bits", 16)
    block = channels * bits // 8
    head = struct.pack("<HHIIHH", 1, channels, rate, rate * block & 0xFFFF_FFFF, block & 0xFFFF, bits)
    size = fields.get("size", len(data))
    return (
        b"RIFF"
        + struct.pack("<I", 36 + len(data))
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + head
        + b"data"
        + struct.pack("<I", size)
        + data
    )


POISON: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "invalid_audio"),
    "text": (lambda: b"this is no audio at all " * 100, "invalid_audio"),
    "html": (lambda: b"<!doctype html><html><body>404</body></html>", "invalid_audio"),
    "random bytes": (lambda: random.Random(0).randbytes(50_000), "invalid_audio"),
    "zeros": (lambda: bytes(50_000), "invalid_audio"),
    "playlist": (lambda: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "invalid_audio"),
    "concat script": (lambda: b"ffconcat version 1.0\nfile /etc/passwd\n", "invalid_audio"),
    "half a header": (lambda: sound_file(tone(1.0), 24_000)[:20], "invalid_audio"),
    "no samples": (lambda: sound_file(tone(0.0), 24_000), "invalid_audio"),
    "one sample": (lambda: sound_file(tone(1 / 24_000), 24_000), "prompt_too_short"),
    "0.4 s": (lambda: sound_file(tone(0.4), 24_000), "prompt_too_short"),
    "31 s": (lambda: sound_file(tone(31.0), 24_000), "prompt_too_long"),
    "an hour of silence in flac": (
        lambda: sound_file(np.zeros(16_000 * 600, np.float32), 16_000, "FLAC"),
        "prompt_too_long",
    ),
    "silence": (lambda: sound_file(tone(1.0, level=0.0), 24_000), "invalid_audio"),
    "a constant": (lambda: float_wav(np.full(24_000, 0.5)), "invalid_audio"),
    "not a number": (lambda: float_wav([0.1, float("nan")] * 12_000), "invalid_audio"),
    "infinity": (lambda: float_wav([0.1, float("inf")] * 12_000), "invalid_audio"),
    "integers as floats": (lambda: float_wav(tone(1.0) * 32767), "invalid_audio"),
    "8 kHz": (lambda: sound_file(tone(1.0, rate=8000), 8000), "invalid_audio"),
    "0 Hz": (lambda: with_header(rate=0), "invalid_audio"),
    "4 GHz": (lambda: with_header(rate=0xFFFF_FFFF), "invalid_audio"),
    "65535 channels": (lambda: with_header(channels=65_535), "invalid_audio"),
    "0 channels": (lambda: with_header(channels=0), "invalid_audio"),
    "0 bits": (lambda: with_header(bits=0), "invalid_audio"),
    "a picture": (lambda: av_file(tone(1.0), 24_000, "mp4", "", video=True), "invalid_audio"),
    "countless packets": (
        lambda: av_file(tone(3.0), 16_000, "matroska", "pcm_s16le", piece=1),
        "invalid_audio",
    ),
}


@pytest.mark.parametrize("kind", POISON)
def test_a_poisoned_recording_fails_alone_and_each_time_alike(tools: Bench, wav: bytes, kind: str) -> None:
    make, code = POISON[kind]
    upload = make()
    for attempt in (
        "first",
        "second",
    ):  # upstream's cache kept a voice that had failed, and then span for ever
        answer = failure(tools, request(f"{attempt} {kind}", prompt_wav=upload))
        assert answer.code == code
        assert len(answer.message) < 300
    success(tools, request("sound", prompt_wav=wav))
    tools.settle()
    assert {message.request_id for message in tools.sent.all(LLM) if isinstance(message, LlmTask)} == {
        "sound"
    }


def test_a_header_that_claims_too_much_gives_what_is_there(tools: Bench) -> None:
    success(tools, request("r", prompt_wav=with_header(size=0xFFFF_FFF0)))


POISONED_FIELDS: dict[str, tuple[dict[str, object], str]] = {
    "no text": ({"text": ""}, "empty_text"),
    "spaces": ({"text": " \n\t "}, "empty_text"),
    "emoji": ({"text": "😀🎉"}, "empty_text"),
    "marks": ({"text": "...!?。"}, "empty_text"),
    "100 KB": ({"text": "a" * 100_000}, "text_too_long"),
    "unknown voice": ({"voice": "nobody"}, "voice_not_found"),
    "path as voice": ({"voice": "../../etc/passwd"}, "voice_not_found"),
    "huge voice": ({"voice": "v" * 100_000}, "voice_not_found"),
    "zero as voice": ({"voice": "a\0b"}, "voice_not_found"),
    "voice twice": ({"voice": "anna", "prompt_wav": b"RIFF"}, "invalid_input"),
    "transcript of nothing": ({"voice": "anna", "prompt_text": "ok."}, "invalid_input"),
    "huge transcript": ({"prompt_wav": b"RIFF", "prompt_text": "hello " * 20_000}, "text_too_long"),
    "two ends of prompt": ({"instruct_text": "<|endofprompt|>" * 2}, "invalid_input"),
    "instruction and transcript": (
        {"prompt_wav": b"x", "prompt_text": "a", "instruct_text": "b"},
        "invalid_input",
    ),
    "no transcript": ({"mode": Mode.ZERO_SHOT, "prompt_wav": b"RIFF"}, "invalid_input"),
    "speed 0": ({"speed": 0.0}, "invalid_input"),
    "speed -1": ({"speed": -1.0}, "invalid_input"),
    "speed nan": ({"speed": float("nan")}, "invalid_input"),
    "seed -1": ({"sampling": Sampling(seed=-1)}, "invalid_input"),
    "seed too large": ({"sampling": Sampling(seed=2**63)}, "invalid_input"),
    "temperature 0": ({"sampling": Sampling(temperature=0.0)}, "invalid_input"),
    "temperature inf": ({"sampling": Sampling(temperature=float("inf"))}, "invalid_input"),
    "top_p 2": ({"sampling": Sampling(top_p=2.0)}, "invalid_input"),
    "top_k 0": ({"sampling": Sampling(top_k=0)}, "invalid_input"),
    "win_size 0": ({"sampling": Sampling(win_size=0)}, "invalid_input"),
    "tau_r nan": ({"sampling": Sampling(tau_r=float("nan"))}, "invalid_input"),
    "ratio inf": ({"sampling": Sampling(max_token_text_ratio=float("inf"))}, "invalid_input"),
    "tags in pieces": ({"text_open": True, "allow_tags": True}, "invalid_input"),
    "open and unknown voice": ({"text_open": True, "voice": "nobody"}, "voice_not_found"),
    "open and no audio": ({"text_open": True, "prompt_wav": b"RIFF"}, "invalid_audio"),
}


@pytest.mark.parametrize("kind", POISONED_FIELDS)
def test_a_poisoned_field_fails_alone(tools: Bench, kind: str) -> None:
    fields, code = POISONED_FIELDS[kind]
    answer = failure(tools, request("bad", **fields))  # type: ignore[arg-type]
    assert answer.code == code
    assert len(answer.message) < 600
    success(tools, request("good", voice="anna"))
    tools.settle()
    assert not tools.tasks("bad")


@pytest.mark.parametrize("text_open", [False, True])
@pytest.mark.parametrize(
    "error",
    [RuntimeError("secret"), MemoryError(), AssertionError(), RecursionError(), KeyError("x")],
    ids=repr,
)
def test_a_bug_fails_one_request_and_is_logged(
    tools: Bench,
    wav: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    text_open: bool,
) -> None:
    def encode(*_: object) -> PromptFeatures:
        raise error

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(PromptEncoder, "encode", encode)
        answer = failure(tools, request("bad", prompt_wav=wav, text_open=text_open))
    assert answer.code == "internal_error"
    assert "secret" not in answer.message
    assert "Traceback" in caplog.text
    success(tools, request("good", prompt_wav=wav))


def test_a_model_that_cannot_be_run_is_told_as_such(
    tools: Bench, wav: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(*_: object) -> PromptFeatures:
        raise CorruptFile("the tokenizer gave rubbish")

    monkeypatch.setattr(PromptEncoder, "encode", encode)
    assert failure(tools, request("bad", prompt_wav=wav)).code == "corrupt_file"


def test_concurrent_requests_with_one_recording_encode_it_once(tools: Bench, wav: bytes, gate: Gate) -> None:
    for number in range(12):
        tools.service.take(request(str(number), prompt_wav=wav))
    assert gate.reached.wait(10)
    time.sleep(0.05)
    gate.go_on.set()
    answers = [tools.sent.wait(str(number)) for number in range(12)]
    tools.settle()
    assert gate.count == 1
    assert [getattr(answer, "cache_hit", None) for answer in answers].count(False) == 1
    assert len({task.voice.speech_token for number in range(12) for task in tools.tasks(str(number))}) == 1
    counted = tools.metrics.registry.get_sample_value
    assert counted("light_tts_voice_cache_total", {"result": "miss"}) == 1
    assert counted("light_tts_voice_cache_total", {"result": "hit"}) == 11


def test_a_voice_that_is_evicted_while_it_is_used_stays_whose_it_is(folder: Path) -> None:
    """More voices than the cache holds, in use at once: nobody may hear another's."""
    uploads = [sound_file(tone(0.6 + number / 10), 24_000) for number in range(6)]
    with bench(folder, capacity=1) as tools:
        for number, upload in enumerate(uploads):
            tools.service.take(request(f"open {number}", "", prompt_wav=upload, text_open=True))
        for turn in range(5):
            for number, upload in enumerate(uploads):
                tools.service.take(request(f"{number} {turn}", prompt_wav=upload, prompt_text="ok."))
                tools.service.take(TextAppend(f"open {number}", LONG))
        for number in range(6):
            tools.service.take(TextAppend(f"open {number}", "", end=True))
        for number in range(6):
            keys = {f"open {number}", *(f"{number} {turn}" for turn in range(5))}
            for key in keys:
                assert isinstance(tools.sent.wait(key), Planned)
            tools.settle()
            tasks = [task for key in keys for task in tools.tasks(key)]
            assert len(tasks) > 6
            assert {len(unpack(task.voice, 6561).tokens) for task in tasks} == {int((0.6 + number / 10) * 25)}
        tools.service.tend()
        evicted = tools.metrics.registry.get_sample_value(
            "light_tts_voice_cache_total", {"result": "evicted"}
        )
        assert evicted is not None
        assert evicted >= 5


def test_named_voices_are_encoded_once(tools: Bench, gate: Gate) -> None:
    gate.go_on.set()
    for number in range(20):
        success(tools, request(str(number), voice="anna"))
    assert gate.count == 1


def test_what_needs_milliseconds_does_not_wait_behind_recordings(
    folder: Path, wav: bytes, gate: Gate
) -> None:
    with bench(folder, num_threads=1) as tools:
        gate.go_on.set()
        success(tools, request("warm", voice="anna"))
        gate.go_on.clear()
        for number in range(3):
            tools.service.take(request(f"slow {number}", prompt_wav=wav))
        tools.service.take(request("open", "hello ", voice="anna", text_open=True))
        tools.service.take(TextAppend("open", "world.", end=True))
        success(tools, request("quick", voice="anna"))
        assert isinstance(tools.sent.wait("open"), Planned)
        assert not tools.tasks("slow 0")
        gate.go_on.set()
        assert isinstance(tools.sent.wait("slow 2"), Planned)


def test_pieces_that_arrive_while_the_voice_is_encoded_keep_their_order(
    tools: Bench, wav: bytes, gate: Gate
) -> None:
    words = [f"{number} " for number in range(20)]
    tools.service.take(request("open", "first ", prompt_wav=wav, text_open=True))
    assert gate.reached.wait(10)
    for word in words:
        tools.service.take(TextAppend("open", word))
    tools.service.take(TextAppend("open", "end.", end=True))
    tools.service.take(TextAppend("open", "too late"))
    assert not tools.sent.all()
    gate.go_on.set()
    planned = tools.sent.wait("open")
    assert isinstance(planned, Planned)
    tools.settle()
    assert planned.texts == ("first " + "".join(words) + "end.",)
    (ids,) = sequences(tools.sent.all(LLM, "open"))
    assert planned.num_text_tokens == len(ids)
    assert (planned.num_segments, planned.cache_hit) == (1, False)
    assert tools.sent.all()[-1] is planned


def test_pieces_of_many_requests_keep_their_order_under_load(tools: Bench, wav: bytes) -> None:
    generator = random.Random(1)
    texts = {f"open {number}": LONG * (1 + number % 3) for number in range(8)}
    waiting = {
        name: [text[start : start + 7] for start in range(0, len(text), 7)] for name, text in texts.items()
    }
    for name in texts:
        tools.service.take(request(name, "", prompt_wav=wav, text_open=True, sampling=Sampling(seed=3)))
    while waiting:
        name = generator.choice([*waiting])
        piece = waiting[name].pop(0)
        if not waiting[name]:
            del waiting[name]
        tools.service.take(TextAppend(name, piece, end=name not in waiting))
    for name in texts:
        assert isinstance(tools.sent.wait(name), Planned)
    tools.settle()
    by_length: dict[int, list[tuple[int, ...]]] = {}
    for name, text in texts.items():
        ids = sequences(tools.sent.all(LLM, name))
        assert len(ids) > 1
        assert by_length.setdefault(len(text), ids) == ids


@pytest.mark.parametrize(
    ("pieces", "voice"),
    [(["你", "好，我是 Anna。"], "mei"), (["Hel", "lo world 你好"], "anna"), (["1", "2"], "anna")],
)
def test_without_a_voice_the_first_text_chooses_one(tools: Bench, pieces: list[str], voice: str) -> None:
    tools.service.take(request("open", "", text_open=True))
    for piece in pieces:
        tools.service.take(TextAppend("open", piece))
    tools.service.take(TextAppend("open", "", end=True))
    success(tools, request("named", voice=voice))
    tools.sent.wait("open")
    tools.settle()
    assert tools.tasks("open")[0].voice == tools.tasks("named")[0].voice


@pytest.mark.parametrize("pieces", [[], ["", " "], ["😀"]], ids=repr)
@pytest.mark.parametrize("voice", ["anna", None])
def test_an_open_text_that_says_nothing_has_no_segments(
    tools: Bench, pieces: list[str], voice: str | None
) -> None:
    """Upstream waited for ever for text that had ended before it began."""
    tools.service.take(request("open", "", voice=voice, text_open=True))
    for piece in pieces:
        tools.service.take(TextAppend("open", piece))
    tools.service.take(TextAppend("open", "", end=True))
    planned = tools.sent.wait("open")
    assert isinstance(planned, Planned)
    assert (planned.num_segments, planned.texts) == (0, ())
    assert not tools.sent.all(LLM)


@pytest.mark.parametrize("voice", ["anna", None])
def test_the_limit_of_text_holds_for_all_pieces(folder: Path, voice: str | None) -> None:
    with bench(folder, max_text_chars=100) as tools:
        tools.service.take(request("open", "", voice=voice, text_open=True))
        for _ in range(11):
            tools.service.take(TextAppend("open", "hello 12. "))
        answer = tools.sent.wait("open")
        assert isinstance(answer, RequestFailed)
        assert answer.code == "text_too_long"
        tools.service.take(TextAppend("open", "more", end=True))
        tools.settle()
        sent = tools.sent.all(request_id="open")
        assert sent[-2:] == [Abort("open"), answer]
        assert sequences(sent[:-2], complete=False)


def test_the_limit_of_recordings_is_the_servers(folder: Path) -> None:
    with bench(folder, max_prompt_s=2.0) as tools:
        answer = failure(tools, request("r", prompt_wav=sound_file(tone(2.5), 24_000)))
        assert answer.code == "prompt_too_long"
        assert "limit 2 s" in answer.message


def test_nothing_follows_an_abort(tools: Bench, wav: bytes, gate: Gate) -> None:
    tools.service.take(request("whole", prompt_wav=wav))
    tools.service.take(request("open", "hello ", prompt_wav=wav, text_open=True))
    assert gate.reached.wait(10)
    for name in ("whole", "open"):
        tools.service.take(Abort(name))
    gate.go_on.set()
    tools.settle()
    tools.service.take(TextAppend("open", "more", end=True))
    tools.settle()
    assert tools.sent.all() == [Abort("whole"), Abort("open")]


def test_open_requests_of_a_worker_that_died_are_given_up(tools: Bench) -> None:
    tools.service.take(request("open", "hello ", voice="anna", text_open=True))
    tools.service.take(PeerLost(Stage.HTTP, 7, 7))
    deadline = time.monotonic() + 30
    while tools.service.load() != (0, 0.0, 1):  # it is of another worker
        assert time.monotonic() < deadline, tools.service.load()
        time.sleep(0.002)
    tools.service.take(PeerLost(Stage.HTTP, 0, 0))
    tools.service.take(TextAppend("open", "more", end=True))
    tools.settle()
    assert tools.service.load() == (0, 0.0, 0)
    assert tools.sent.all(LLM, "open")[-1] == Abort("open")


def test_an_abort_comes_after_all_that_was_sent(tools: Bench) -> None:
    for number in range(40):
        tools.service.take(request(f"whole {number}", LONG, voice="anna"))
        tools.service.take(request(f"open {number}", LONG, voice="anna", text_open=True))
        time.sleep(0.001 * (number % 5))
        tools.service.take(TextAppend(f"open {number}", LONG))
        for kind in ("whole", "open"):
            tools.service.take(Abort(f"{kind} {number}"))
    tools.settle()
    for number in range(40):
        for kind in ("whole", "open"):
            messages = tools.sent.all(LLM, f"{kind} {number}")
            assert messages[-1] == Abort(f"{kind} {number}")
            assert messages.count(messages[-1]) == 1


def test_what_is_unknown_is_passed_on_or_left(tools: Bench) -> None:
    tools.service.take(Abort("unknown"))
    tools.service.take(TextAppend("unknown", "text", end=True))
    success(tools, request("closed", voice="anna"))
    tools.settle()
    tools.service.take(TextAppend("closed", "more"))
    tools.settle()
    assert tools.sent.all()[0] == Abort("unknown")
    assert len(tools.sent.all(LLM)) == 2


def test_a_deadline_that_passes_in_the_queue_is_told(folder: Path, wav: bytes, gate: Gate) -> None:
    with bench(folder, num_threads=1) as tools:
        tools.service.take(request("slow", prompt_wav=wav))
        assert gate.reached.wait(10)
        tools.service.take(request("waiting", prompt_wav=b"other", timeout_s=0.05))
        tools.service.take(request("open", "", prompt_wav=b"other", text_open=True, timeout_s=0.05))
        time.sleep(0.06)
        queued, oldest_s, running = tools.service.load()
        assert (queued, running) == (2, 1)
        assert oldest_s >= 0.06
        tools.service.tend()
        answers = [tools.sent.wait(name) for name in ("waiting", "open")]  # not behind the slow one
        gate.go_on.set()
        assert isinstance(tools.sent.wait("slow"), Planned)
        tools.settle()
        assert {getattr(answer, "code", None) for answer in answers} == {"timeout"}
        assert not tools.tasks("waiting")


def test_a_deadline_that_passes_while_a_voice_is_encoded_is_told_once(
    tools: Bench, wav: bytes, gate: Gate
) -> None:
    tools.service.take(request("r", prompt_wav=wav, timeout_s=0.05))
    assert gate.reached.wait(10)
    time.sleep(0.06)
    gate.go_on.set()
    tools.service.tend()
    tools.settle()
    tools.service.tend()
    (answer,) = tools.sent.all()
    assert isinstance(answer, RequestFailed)
    assert answer.code == "timeout"


def test_an_open_request_past_its_deadline_is_aborted_further_on(tools: Bench) -> None:
    tools.service.take(request("open", "hello world ", voice="anna", text_open=True, timeout_s=0.2))
    time.sleep(0.25)
    tools.service.tend()
    failed = tools.sent.wait("open")
    tools.settle()
    assert isinstance(failed, RequestFailed)
    assert tools.sent.all()[-2:] == [Abort("open"), failed]


def test_an_id_that_is_in_use_does_not_disturb_its_owner(
    tools: Bench, wav: bytes, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    tools.service.take(request("r", prompt_wav=wav))
    assert gate.reached.wait(10)
    tools.service.take(request("r", voice="anna"))
    gate.go_on.set()
    assert isinstance(tools.sent.wait("r"), Planned)
    tools.settle()
    assert len(tools.tasks("r")) == 1
    assert "in use" in caplog.text


def test_closing_fails_what_is_left(folder: Path, wav: bytes, gate: Gate) -> None:
    with bench(folder, num_threads=1) as tools:
        tools.service.take(request("running", prompt_wav=wav))
        tools.service.take(request("queued", prompt_wav=wav))
        tools.service.take(request("open", "", voice="anna", text_open=True))
        assert gate.reached.wait(10)
        threading.Timer(0.05, gate.go_on.set).start()
        tools.service.close()
        answers = [tools.sent.wait(name) for name in ("running", "queued", "open")]
        assert {getattr(answer, "code", None) for answer in answers} == {"unavailable"}
        assert not tools.sent.all(LLM)


def test_a_hanging_native_library_is_noticed(folder: Path, wav: bytes, gate: Gate) -> None:
    with bench(folder, num_threads=1) as tools:
        assert tools.service.stuck_s() == 0.0
        tools.service.take(request("hanging", prompt_wav=wav))
        assert gate.reached.wait(10)
        time.sleep(0.02)
        assert tools.service.stuck_s() >= 0.02
        gate.go_on.set()


def test_log_lines_end_in_milliseconds_and_hold_no_text(
    tools: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        success(tools, request("whole", "quick fox", voice="anna"))
        tools.service.take(request("open", "quick ", voice="anna", text_open=True))
        tools.service.take(TextAppend("open", "fox", end=True))
        tools.sent.wait("open")
        failure(tools, request("bad", "quick fox", voice="nobody"))
        tools.settle()
    lines = [line for line in caplog.messages if "cost_time" in line]
    assert len(lines) == 2
    assert all(line.endswith("ms") and float(line.split()[-1].removesuffix("ms")) >= 0 for line in lines)
    assert "fox" not in caplog.text
