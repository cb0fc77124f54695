"""What the language model is asked for is the same, whether one process does all or several do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from light_tts.llm.pump import EnginePump
from light_tts.llm.request import LengthLimits, SequenceRequest
from light_tts.messages import LlmTask, Sampling, TextAppend
from light_tts.models.config import SamplingConfig
from light_tts.planning import open_request, sequence_requests
from light_tts.request import SynthesisRequest
from light_tts.synthesizer import LightTTS
from test.encode.support import LLM, Bench, bench, request, sequences

LONG = "hello world quick fox, hello 12 worlds. " * 5
SAMPLING = Sampling(
    seed=11,
    temperature=0.7,
    top_p=0.6,
    top_k=9,
    win_size=4,
    tau_r=0.5,
    min_token_text_ratio=1.0,
    max_token_text_ratio=3.0,
)


@pytest.fixture(scope="module")
def engine(model_dir: Path) -> LightTTS:
    return LightTTS(model_dir, "cpu")


@pytest.fixture(scope="module")
def tools(model_dir: Path) -> Iterator[Bench]:
    with bench(model_dir) as made:
        yield made


@pytest.fixture(scope="module")
def wav(golden: Path) -> bytes:
    return (golden / "fixtures" / "prompt_24k.wav").read_bytes()


def own_request(wav: bytes, text: str) -> SynthesisRequest:
    return SynthesisRequest(
        text=text,
        prompt_audio=wav,
        prompt_text="ok.",
        seed=11,
        temperature=0.7,
        top_p=0.6,
        top_k=9,
        win_size=4,
        tau_r=0.5,
        min_token_text_ratio=1.0,
        max_token_text_ratio=3.0,
    )


def asked(task: LlmTask, engine: LightTTS) -> SequenceRequest:
    """As the LLM process understands it."""
    return SequenceRequest.of_task(task, engine.config.llm.sampling)


def test_a_request_is_the_same_work_for_the_server_as_for_light_tts(
    engine: LightTTS, tools: Bench, wav: bytes
) -> None:
    tools.service.take(request("whole", LONG, prompt_wav=wav, prompt_text="ok.", sampling=SAMPLING))
    planned = tools.sent.wait("whole")
    tools.settle()
    plan = engine._planner.plan(own_request(wav, LONG))
    own = sequence_requests(plan, engine.config.llm.sampling)
    tasks = tools.tasks("whole")
    assert getattr(planned, "num_segments", None) == len(own) == len(tasks) > 1
    assert [asked(task, engine) for task in tasks] == own


def test_text_in_pieces_is_the_same_work_for_the_server_as_for_light_tts(
    engine: LightTTS, tools: Bench, wav: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `LightTTS.stream_text`, which has all text of a sequence before the next one begins."""
    added: list[SequenceRequest] = []
    texts: dict[int, tuple[int, ...]] = {}
    add, append = EnginePump.add, EnginePump.append_text

    def adding(self: EnginePump, asked: SequenceRequest) -> int:
        sequence_id = add(self, asked)
        added.append(asked)
        texts[sequence_id] = ()
        return sequence_id

    def appending(self: EnginePump, sequence_id: int, ids: tuple[int, ...]) -> None:
        texts[sequence_id] += ids
        append(self, sequence_id, ids)

    monkeypatch.setattr(EnginePump, "add", adding)
    monkeypatch.setattr(EnginePump, "append_text", appending)
    pieces = [word + " " for word in LONG.split()]
    options = own_request(wav, "")
    fields = {name: getattr(options, name) for name in options.__dataclass_fields__ if name != "text"}
    assert list(engine.stream_text(pieces, **fields))

    tools.service.take(
        request("open", "", prompt_wav=wav, prompt_text="ok.", sampling=SAMPLING, text_open=True)
    )
    for piece in pieces:
        tools.service.take(TextAppend("open", piece))
    tools.service.take(TextAppend("open", "", end=True))
    tools.sent.wait("open")
    tools.settle()
    assert sequences(tools.sent.all(LLM, "open")) == [*texts.values()]
    assert len(added) > 1
    tasks = tools.tasks("open")
    assert [replace(asked(task, engine), text=()) for task in tasks] == added
    assert None not in {task.end_of_prompt_id for task in tasks}


def test_the_models_own_values_stand_for_what_a_request_leaves_open(tools: Bench, wav: bytes) -> None:
    plan = tools.planner.plan(SynthesisRequest(text="quick fox.", prompt_audio=wav, top_k=3, seed=5))
    model = SamplingConfig(top_p=0.5, top_k=7, win_size=8, tau_r=0.9)
    (own,) = sequence_requests(plan, model)
    assert own.sampling is not None
    assert (own.sampling.top_p, own.sampling.top_k, own.sampling.win_size) == (0.5, 3, 8)
    assert (own.sampling.tau_r, own.sampling.seed) == (0.9, 5)
    assert own.limits == LengthLimits()
    opened = open_request(plan, 1, model)
    assert opened.text == ()
    assert opened.sampling is not None
    assert opened.sampling.seed == plan.segment_seed(1)
