from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
import torch

from light_tts.encode.frontend import TextFrontend
from light_tts.encode.open_text import MAX_SEQUENCE_TOKENS, OpenText, TextStep, opening
from light_tts.encode.planner import Plan, PlannedVoice
from light_tts.encode.text import main_language
from light_tts.encode.tokenizer import TextTokenizer
from light_tts.errors import TextTooLong
from light_tts.messages import Sampling
from light_tts.models.flow.flow_state import FlowPrompt
from light_tts.quirks import ReferenceQuirks
from test.encode.test_frontend import KINDS

LONG = "Hello 12 world, quick fox. " * 40


@pytest.fixture(params=KINDS)
def plan(request: pytest.FixtureRequest) -> Plan:
    folder, version = KINDS[request.param]
    frontend = TextFrontend(TextTokenizer.from_model_dir(folder, version), version, ReferenceQuirks())
    voice = PlannedVoice(FlowPrompt.without_recording(torch.zeros(192)), "key")
    return Plan(voice, (), 0, 1.0, Sampling(seed=0), frontend)


def steps(text: OpenText, pieces: Iterable[str]) -> list[TextStep]:
    return [step for piece in pieces for step in text.push(piece)] + [*text.end()]


def check(all_steps: list[TextStep]) -> list[tuple[int, ...]]:
    """Ids of each sequence; every sequence is opened once, ended once, and holds something."""
    found: list[tuple[int, ...]] = []
    is_open = False
    for step in all_steps:
        assert step.opens is not is_open
        if step.opens:
            found.append(())
        assert step.sequence == len(found) - 1
        found[-1] += step.ids
        is_open = not step.ends
    assert not is_open
    assert all(found)
    return found


def test_short_text_is_one_sequence(plan: Plan) -> None:
    text = OpenText(plan)
    (ids,) = check(steps(text, ["Hello ", "12", " worlds"]))
    assert text.num_text_tokens == len(ids)
    assert text.texts == ("Hello 12 worlds",)


def test_long_text_becomes_several_sequences_that_end_with_sentences(plan: Plan) -> None:
    text = OpenText(plan)
    found = check(steps(text, [word + " " for word in LONG.split()]))
    assert len(found) > 1
    assert all(len(ids) <= MAX_SEQUENCE_TOKENS for ids in found)
    assert sum(map(len, found)) == text.num_text_tokens
    assert " ".join(text.texts) == LONG.strip()
    assert all(spoken.endswith(".") for spoken in text.texts)


def test_text_without_an_end_is_cut_somewhere(plan: Plan) -> None:
    found = check(steps(OpenText(plan), ["hello world " * 300]))
    assert len(found) > 1
    assert max(map(len, found)) <= MAX_SEQUENCE_TOKENS


def test_no_sequence_is_longer_than_the_language_model_is_told(plan: Plan) -> None:
    generator = random.Random(0)
    pieces = ["".join(generator.choice("0123456789 .,a") for _ in range(64)) for _ in range(60)]
    text = OpenText(plan)
    found = check(steps(text, pieces))
    assert sum(map(len, found)) == text.num_text_tokens
    assert len(text.texts) == len(found)
    assert max(map(len, found)) <= MAX_SEQUENCE_TOKENS


@pytest.mark.parametrize("pieces", [[], [""], ["  ", "\n"], ["😀", "🎉"]], ids=repr)
def test_nothing_to_say_opens_no_sequence(plan: Plan, pieces: list[str]) -> None:
    text = OpenText(plan)
    found = check(steps(text, pieces))
    assert found == []
    assert text.texts == ()


def test_the_limit_holds_for_all_pieces_together(plan: Plan) -> None:
    text = OpenText(plan, max_chars=10)
    list(text.push("12345"))
    list(text.push("67890"))
    with pytest.raises(TextTooLong, match=r"11 characters .* 10"):
        list(text.push("1"))


def test_the_opening_does_not_depend_on_how_text_is_cut() -> None:
    text = "1. iPhone 很好用，你说呢？"
    found = {opening(text[:length]) for length in range(len(text) + 1)}
    assert found == {None, "1. iPhone 很好"}


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("你好，world", "zh"),
        ("我用 Python 写代码", "zh"),
        ("iPhone 15 Pro Max 很好", "zh"),
        ("Please say 你好 to my friends", "en"),
        ("It means 是.", "en"),
        ("don't", "en"),
        ("12, 13", "en"),
        ("12，13。", "zh"),
        ("", "en"),
    ],
)
def test_the_main_language_of_mixed_text_is_that_of_most_of_it(text: str, language: str) -> None:
    assert main_language(text) == language
