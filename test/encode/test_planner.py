from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from light_tts.encode.frontend import SYSTEM_PROMPT
from light_tts.encode.planner import Plan
from light_tts.encode.voice_file import VoiceInfo
from light_tts.encode.voices import VoiceStore
from light_tts.errors import InvalidInput, TextTooLong
from light_tts.messages import Mode
from light_tts.request import MAX_SEED, SynthesisRequest
from test.encode.support import Bench, bench

TEXT = "quick fox."


@pytest.fixture(scope="module")
def wav(golden: Path) -> bytes:
    return (golden / "fixtures" / "prompt_24k.wav").read_bytes()


@pytest.fixture(scope="module")
def folder(model_dir: Path, golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with voices of every kind: with a transcript, without, and with an embedding alone."""
    folder = tmp_path_factory.mktemp("model") / model_dir.name
    shutil.copytree(model_dir, folder)
    shutil.copy(golden / "fixtures" / "prompt_24k.wav", folder / "anna.wav")
    entries = [
        {"name": "anna", "wav": "anna.wav", "text": "ok.", "lang": "en"},
        {"name": "mei", "wav": "anna.wav", "text": "好。", "lang": "zh"},
        {"name": "mute", "wav": "anna.wav", "text": "", "lang": "fr"},
    ]
    (folder / "prompts.json").write_text(json.dumps(entries), "utf-8")
    speaker = {
        "bare": {"embedding": torch.randn(1, 192)},
        "ids": {"embedding": torch.randn(192), "prompt_text": torch.tensor([1, 2])},
    }
    torch.save(speaker, folder / "spk2info.pt")
    return folder


@pytest.fixture(scope="module")
def tools(folder: Path) -> Iterator[Bench]:
    with bench(folder) as made:
        yield made


def version_of(folder: Path) -> int:
    return 2 if (folder / "cosyvoice2.yaml").exists() else 3


def heard(plan: Plan) -> tuple[bool, bool, bool]:
    """Which of them there is: prompt text and prompt speech for the language model, a recording for the flow."""
    return bool(plan.voice.prompt_text), bool(plan.voice.prompt_speech), len(plan.voice.prompt.tokens) > 0


ZERO_SHOT, CROSS_LINGUAL, INSTRUCT, BARE = (
    (True, True, True),
    (False, False, True),
    (True, False, True),
    (False, False, False),
)


@pytest.mark.parametrize(
    ("fields", "mode", "expected"),
    [
        ({"voice": "anna"}, Mode.AUTO, ZERO_SHOT),
        ({"voice": "anna"}, Mode.ZERO_SHOT, ZERO_SHOT),
        ({"voice": "anna"}, Mode.SFT, ZERO_SHOT),
        ({"voice": "anna"}, Mode.CROSS_LINGUAL, CROSS_LINGUAL),
        ({"voice": "mute"}, Mode.AUTO, CROSS_LINGUAL),
        ({"voice": "bare"}, Mode.AUTO, BARE),
        ({"voice": "bare"}, Mode.SFT, BARE),
        ({"voice": "bare"}, Mode.CROSS_LINGUAL, BARE),
        ({"voice": "anna", "instruct_text": "slowly"}, Mode.AUTO, INSTRUCT),
        ({"voice": "anna", "instruct_text": "slowly"}, Mode.INSTRUCT, INSTRUCT),
        ({}, Mode.AUTO, ZERO_SHOT),
        ({"prompt_text": "ok."}, None, ZERO_SHOT),
        ({"prompt_text": "ok."}, Mode.ZERO_SHOT, ZERO_SHOT),
        ({"prompt_text": "ok."}, Mode.CROSS_LINGUAL, CROSS_LINGUAL),
        ({"prompt_text": "  "}, None, CROSS_LINGUAL),
        ({"prompt_text": None}, None, CROSS_LINGUAL),
        ({"instruct_text": "slowly", "prompt_text": None}, None, INSTRUCT),
    ],
)
def test_the_mode_decides_what_the_models_hear(
    tools: Bench,
    wav: bytes,
    fields: dict[str, str],
    mode: Mode | None,
    expected: tuple[bool, bool, bool],
) -> None:
    """Fields with prompt_text stand for a recording."""
    request = SynthesisRequest(
        text=TEXT,
        prompt_audio=wav if "prompt_text" in fields else None,
        mode=mode or Mode.AUTO,
        **fields,  # type: ignore[arg-type]
    )
    plan = tools.planner.plan(request)
    assert heard(plan) == expected
    opened = tools.planner.plan_open(replace(request, text=""))
    assert heard(opened)[1:] == expected[1:]
    assert opened.voice.prompt_speech == plan.voice.prompt_speech
    assert plan.voice.cache_hit is None or request.prompt_audio is not None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mode": Mode.ZERO_SHOT, "voice": "mute"}, "transcript"),
        ({"mode": Mode.ZERO_SHOT, "prompt_audio": b"x"}, "prompt_text"),
        ({"mode": Mode.ZERO_SHOT, "prompt_audio": b"x", "prompt_text": " "}, "prompt_text"),
        ({"mode": Mode.INSTRUCT, "voice": "anna"}, "instruct_text"),
        ({"mode": Mode.CROSS_LINGUAL, "voice": "anna", "instruct_text": "slowly"}, "instruct_text"),
        ({"mode": Mode.SFT}, "voice"),
        ({"mode": Mode.SFT, "prompt_audio": b"x"}, "recording"),
    ],
    ids=str,
)
def test_a_mode_refuses_what_it_cannot_use(tools: Bench, fields: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        tools.planner.plan(SynthesisRequest(text=TEXT, **fields))  # type: ignore[arg-type]


def test_a_voice_without_a_transcript_is_preceded_by_the_system_prompt_in_version_3_only(
    tools: Bench, folder: Path
) -> None:
    """CosyVoice3 degrades without it; users forget it."""
    plan = tools.planner.plan(SynthesisRequest(text=TEXT, voice="mute"))
    opened = tools.planner.plan_open(SynthesisRequest(text="", voice="mute"))
    (segment,) = plan.segments
    if version_of(folder) == 2:
        assert opened.voice.prompt_text == ()
        assert plan.num_text_tokens == len(segment.text)
    else:
        prefix = opened.voice.prompt_text
        assert prefix
        assert segment.text[: len(prefix)] == prefix
        assert plan.num_text_tokens == len(segment.text) - len(prefix)
        given = tools.planner.plan(SynthesisRequest(text=TEXT, voice="anna"))
        assert given.voice.prompt_text[: len(prefix)] == prefix


def test_a_system_prompt_that_is_given_is_not_doubled(tools: Bench, folder: Path, wav: bytes) -> None:
    if version_of(folder) == 2:
        pytest.skip("version 2 has none")
    plain, with_prompt = (
        tools.planner.plan(SynthesisRequest(text=TEXT, prompt_audio=wav, prompt_text=text))
        for text in ("ok.", SYSTEM_PROMPT + "ok.")
    )
    assert plain.voice.prompt_text == with_prompt.voice.prompt_text


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("hello", "anna"),
        ("你好", "mei"),
        ("我用 Python 写代码", "mei"),
        ("Please say 你好 to all of my friends", "anna"),
        ("12", "anna"),
    ],
)
def test_the_default_voice_speaks_the_main_language_of_the_text(tools: Bench, text: str, name: str) -> None:
    chosen = tools.planner.plan(SynthesisRequest(text=text)).voice.prompt_text
    assert chosen == tools.planner.plan(SynthesisRequest(text=text, voice=name)).voice.prompt_text
    opened = tools.planner.plan_open(SynthesisRequest(text=text)).voice.prompt_text
    assert opened == chosen


def test_a_transcript_of_too_many_tokens_is_refused_before_the_recording_is_looked_at(tools: Bench) -> None:
    request = SynthesisRequest(text=TEXT, prompt_audio=b"no audio", prompt_text="好" * 1100)
    with pytest.raises(TextTooLong, match=r"prompt_text has \d+ tokens, the limit is 1000"):
        tools.planner.plan(request)
    request = SynthesisRequest(text=TEXT, voice="anna", instruct_text="好" * 1100)
    with pytest.raises(TextTooLong, match=r"instruct_text has \d+ tokens, the limit is 1000"):
        tools.planner.plan(request)


def test_segments_have_seeds_of_their_own_that_follow_from_the_requests(tools: Bench) -> None:
    request = SynthesisRequest(text="hello world quick fox. " * 60, voice="anna", seed=MAX_SEED)
    first, again = tools.planner.plan(request), tools.planner.plan(request)
    seeds = [segment.seed for segment in first.segments]
    assert len(seeds) > 2
    assert len(set(seeds)) == len(seeds)
    assert seeds == [segment.seed for segment in again.segments]
    assert seeds == [first.segment_seed(number) for number in range(len(seeds))]
    assert all(0 <= seed <= MAX_SEED for seed in seeds)
    drawn = {tools.planner.plan(SynthesisRequest(text=TEXT, voice="anna")).sampling.seed for _ in range(3)}
    assert len(drawn) == 3


def test_a_limit_of_length_makes_room_for_the_other_that_is_given() -> None:
    def ratios(low: float | None, high: float | None) -> tuple[float, float]:
        request = SynthesisRequest(text=TEXT, min_token_text_ratio=low, max_token_text_ratio=high)
        return request.token_text_ratios

    assert ratios(None, None) == (2.0, 20.0)
    assert ratios(None, 1.0) == (1.0, 1.0)
    assert ratios(30.0, None) == (30.0, 30.0)
    assert ratios(1.0, 3.0) == (1.0, 3.0)
    with pytest.raises(InvalidInput, match=r"min_token_text_ratio is 3\.0"):
        ratios(3.0, 1.0)


def test_a_damaged_registered_voice_spoils_neither_the_default_nor_the_list(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"rubbish")
    with bench(folder, voices_dir=tmp_path) as made:
        assert made.planner.plan(SynthesisRequest(text=TEXT)).voice.prompt_speech
        assert "broken" not in [voice.name for voice in made.catalog.list()]
    assert "broken" in caplog.text


def test_a_replaced_or_removed_voice_is_noticed(folder: Path, tmp_path: Path) -> None:
    store = VoiceStore(tmp_path)
    with bench(folder, voices_dir=tmp_path) as made:
        voice = made.catalog.get("anna")
        store.save(replace(voice, info=VoiceInfo(name="new", prompt_text="ok.", language="en")))
        with_text = made.planner.plan(SynthesisRequest(text=TEXT, voice="new"))
        assert made.catalog.get("new") is made.catalog.get("new")
        store.save(replace(voice, info=VoiceInfo(name="new", prompt_text="", language="en")))
        without = made.planner.plan(SynthesisRequest(text=TEXT, voice="new"))
        assert with_text.voice.prompt_speech
        assert not without.voice.prompt_speech
        store.delete("new")
        with pytest.raises(InvalidInput, match="no voice 'new'"):
            made.planner.plan(SynthesisRequest(text=TEXT, voice="new"))
