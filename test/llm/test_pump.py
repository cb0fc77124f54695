from __future__ import annotations

from pathlib import Path

import pytest
import torch

from light_tts.llm.engine import Engine, FinishedEvent, TokenEvent
from light_tts.llm.pump import EnginePump
from light_tts.llm.request import SamplingParams, SequenceRequest
from light_tts.models.loader import load_speech_lm
from light_tts.models.model_yaml import read_model_config


@pytest.fixture
def pump(model_dir: Path) -> EnginePump:
    config = read_model_config(model_dir).llm
    model = load_speech_lm(model_dir, config, torch.device("cpu"), torch.float32)
    return EnginePump(Engine(model, 4096, 4))


def request(seed: int) -> SequenceRequest:
    return SequenceRequest((3, 4, 5), sampling=SamplingParams(seed=seed))


def tokens(pump: EnginePump, sequence_id: int) -> list[int]:
    return [event.token for event in pump.take(sequence_id) if isinstance(event, TokenEvent)]


def test_events_wait_for_their_own_caller(pump: EnginePump) -> None:
    first, second = pump.add(request(1)), pump.add(request(2))
    alone = pump.run([first])[first]
    assert isinstance(alone[-1], FinishedEvent)
    waited = pump.run([second])[second]
    assert isinstance(waited[-1], FinishedEvent)
    again = pump.add(request(2))
    assert [e.token for e in waited if isinstance(e, TokenEvent)] == [
        e.token for e in pump.run([again])[again] if isinstance(e, TokenEvent)
    ]


def test_closing_frees_slots_and_forgets_events(pump: EnginePump) -> None:
    free = pump.num_free_slots
    sequence_id = pump.add(request(1))
    assert pump.step()
    assert pump.num_free_slots < free
    pump.close(sequence_id)
    assert pump.num_free_slots == free
    assert not pump.step()
    pump.close(sequence_id)  # twice is harmless
    with pytest.raises(KeyError):
        pump.take(sequence_id)


def test_a_sequence_without_text_makes_no_steps(pump: EnginePump) -> None:
    sequence_id = pump.add(SequenceRequest((), max_text_tokens=20, sampling=SamplingParams(seed=1)))
    assert not pump.step()
    pump.append_text(sequence_id, (3, 4, 5, 6, 7))
    pump.end_text(sequence_id)
    while pump.step():
        pass
    assert tokens(pump, sequence_id)


def test_a_sequence_that_waits_for_text_does_not_wait_for_the_others(pump: EnginePump) -> None:
    waiting = pump.add(SequenceRequest((), max_text_tokens=20, sampling=SamplingParams(seed=1)))
    other = pump.add(request(2))
    assert not pump.step(waiting)
    assert tokens(pump, other) == []
    assert pump.step()
    pump.append_text(waiting, (3, 4, 5, 6, 7))
    assert pump.step(waiting)
    assert pump.step(other)
    pump.close(waiting)
    assert not pump.step(waiting)
