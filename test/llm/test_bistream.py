from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from light_tts.errors import GenerationFailed, InvalidInput, TextTooLong
from light_tts.llm.bistream import BistreamSequence
from light_tts.llm.request import LengthLimits, SequenceRequest
from light_tts.llm.sequence import FinishReason, Symbol
from light_tts.models.config import Qwen2Config, SamplingConfig, SpeechLMConfig
from light_tts.quirks import ReferenceQuirks

V, END_OF_PROMPT = 61, 49
CONFIGS = {
    version: SpeechLMConfig(version, Qwen2Config(50, 8, 8, 1, 1, 1), V, SamplingConfig())
    for version in (2, 3)
}
FIXED, REFERENCE = ReferenceQuirks(), ReferenceQuirks.reference()


def _sequence(
    version: int = 2,
    quirks: ReferenceQuirks = FIXED,
    *,
    prompt_text: Sequence[int] = (),
    prompt_speech: Sequence[int] = (),
    limits: LengthLimits | None = None,
    max_text_tokens: int = 40,
) -> BistreamSequence:
    request = SequenceRequest(
        (),
        tuple(prompt_text),
        tuple(prompt_speech),
        limits=limits or LengthLimits(),
        max_text_tokens=max_text_tokens,
    )
    return BistreamSequence(CONFIGS[version], request, quirks, END_OF_PROMPT)


def _shown(symbols: Iterable[Symbol] | None) -> str:
    """`sos t1 s5 task_id`."""
    names = {"text": "t{}", "speech": "s{}"}
    return " ".join(names.get(kind, kind.value).format(token) for kind, token in symbols or ())


def _block(sequence: BistreamSequence, tokens: Iterable[int] = range(15)) -> None:
    """Accept a whole block's speech and the fill that must follow it."""
    for token in tokens:
        assert sequence.constraint().forced is None
        sequence.accept(token)
    fill = sequence.constraint().forced
    assert fill is not None
    assert sequence.accept(fill) is None


def _texts(first: int, count: int) -> str:
    return " ".join(f"t{token}" for token in range(first, first + count))


def test_a_block_of_speech_follows_every_five_text_tokens_then_the_rest() -> None:
    sequence = _sequence()
    sequence.append_text((1, 2, 3, 4))
    assert sequence.next_feed() is None
    sequence.append_text((5, 6))
    assert _shown(sequence.next_feed()) == "sos t1 t2 t3 t4 t5"
    _block(sequence)
    assert sequence.next_feed() is None
    sequence.append_text((7, 8, 9, 10))
    assert _shown(sequence.next_feed()) == "t6 t7 t8 t9 t10"
    _block(sequence)
    sequence.append_text((11,))
    sequence.end_text()
    assert _shown(sequence.next_feed()) == "t11 task_id"
    sequence.accept(30)
    assert _shown(sequence.next_feed()) == "s30"
    assert sequence.accept(V) is None
    assert sequence.finish_reason is FinishReason.STOP
    assert sequence.emitted == [*range(15), *range(15), 30]
    fill = CONFIGS[2].fill_id
    assert sequence.history == [*range(15), fill, *range(15), fill, 30]


def test_an_early_fill_ends_the_block_and_the_next_one_is_as_long_as_ever() -> None:
    sequence = _sequence()
    sequence.append_text(tuple(range(1, 11)))
    sequence.next_feed()
    sequence.accept(20)
    assert sequence.accept(CONFIGS[2].fill_id) is None
    assert _shown(sequence.next_feed()) == _texts(6, 5)
    _block(sequence)
    assert sequence.emitted == [20, *range(15)]


def test_the_prompt_is_the_beginning_of_the_first_block() -> None:
    sequence = _sequence(prompt_text=range(1, 5), prompt_speech=range(40, 60))
    sequence.append_text((5, 6, 7, 8, 9))
    assert sequence.next_feed() is None, "20 speech tokens of the prompt need two blocks of text"
    sequence.append_text((10,))
    speech = [" ".join(f"s{token}" for token in part) for part in (range(40, 55), range(55, 60))]
    assert _shown(sequence.next_feed()) == f"sos {_texts(1, 5)} {speech[0]} {_texts(6, 5)} {speech[1]}"
    _block(sequence, range(10))


def test_tokens_that_mean_nothing_are_banned_in_each_phase() -> None:
    for version, cfg in CONFIGS.items():
        sequence, ids = _sequence(version), range(V + cfg.num_extra_ids)
        sequence.append_text((1, 2, 3, 4, 5))
        sequence.end_text()
        sequence.next_feed()
        constraint = sequence.constraint()
        assert constraint.ignore_eos
        allowed = set(ids) - {token for part in constraint.banned for token in ids[part]}
        assert allowed == {*range(V), cfg.fill_id}
        sequence.accept(cfg.fill_id)
        sequence.next_feed()
        constraint = sequence.constraint()
        assert not constraint.ignore_eos
        allowed = set(ids) - {token for part in constraint.banned for token in ids[part]}
        assert allowed == {*range(V), cfg.eos_id}


@pytest.mark.parametrize("version", [2, 3])
def test_a_token_that_means_nothing_is_a_named_error(version: int) -> None:
    cfg = CONFIGS[version]
    sequence = _sequence(version)
    sequence.append_text((1, 2, 3, 4, 5))
    sequence.end_text()
    sequence.next_feed()
    with pytest.raises(GenerationFailed, match=str(cfg.eos_id)):
        sequence.accept(cfg.eos_id)
    sequence.accept(cfg.fill_id)
    sequence.next_feed()
    with pytest.raises(GenerationFailed, match=str(cfg.fill_id)):
        sequence.accept(cfg.fill_id)


def test_the_rest_ends_at_twenty_tokens_per_text_token() -> None:
    sequence = _sequence(limits=LengthLimits(0, 5))
    sequence.append_text((1, 2, 3, 4, 5, 6))
    sequence.end_text()
    sequence.next_feed()
    _block(sequence)
    sequence.next_feed()
    for token in range(15):
        assert sequence.finish_reason is None
        sequence.accept(token)
    assert sequence.finish_reason is FinishReason.LENGTH
    assert len(sequence.emitted) == 30


def test_text_that_ends_without_ever_coming_gives_nothing() -> None:
    sequence = _sequence(3, prompt_text=[*range(1, 9), END_OF_PROMPT, *range(1, 9)])
    assert sequence.next_feed() is None, "prompt text alone is not spoken"
    sequence.end_text()
    assert sequence.next_feed() is None
    assert sequence.finish_reason is FinishReason.STOP
    assert sequence.emitted == []


def test_too_much_or_unknown_or_late_text_is_refused_and_the_sequence_goes_on() -> None:
    sequence = _sequence(max_text_tokens=6)
    sequence.append_text((1, 2, 3))
    with pytest.raises(TextTooLong, match="limit 6"):
        sequence.append_text((4, 5, 6, 7))
    with pytest.raises(InvalidInput, match="50"):
        sequence.append_text((50,))
    sequence.append_text((4, 5, 6))
    sequence.end_text()
    with pytest.raises(InvalidInput, match="after its end"):
        sequence.append_text((7,))
    assert _shown(sequence.next_feed()) == "sos t1 t2 t3 t4 t5"


def test_version_3_reads_the_instruction_right_after_sos() -> None:
    sequence = _sequence(3, prompt_text=[1, 2, END_OF_PROMPT, 3])
    sequence.append_text((4, 5, 6, 7))
    assert _shown(sequence.next_feed()) == "sos t1 t2 t49 t3 t4 t5 t6 t7"
    sequence = _sequence(2, prompt_text=[1, 2, END_OF_PROMPT, 3])
    sequence.append_text((4,))
    assert _shown(sequence.next_feed()) == "sos t1 t2 t49 t3 t4"


@pytest.mark.parametrize(
    ("quirks", "expected"),
    [(FIXED, "t6 task_id"), (replace(FIXED, bistream_feeds_last_token_twice=True), "s14 t6 task_id")],
)
def test_quirk_last_token_is_fed_twice(quirks: ReferenceQuirks, expected: str) -> None:
    sequence = _sequence(quirks=quirks)
    sequence.append_text((1, 2, 3, 4, 5, 6))
    sequence.end_text()
    sequence.next_feed()
    _block(sequence)
    assert _shown(sequence.next_feed()) == expected


def test_quirk_prompt_speech_is_dropped() -> None:
    feeds = []
    for quirks in (FIXED, replace(FIXED, bistream_drops_prompt_speech=True)):
        sequence = _sequence(quirks=quirks, prompt_speech=range(40, 58))
        sequence.append_text(tuple(range(1, 8)))
        sequence.end_text()
        feeds.append(_shown(sequence.next_feed()))
    opening = f"sos {_texts(1, 5)} " + " ".join(f"s{token}" for token in range(40, 55))
    assert feeds == [f"{opening} t6 t7 task_id s55 s56 s57", f"{opening} t6 t7 task_id"]


def test_without_a_single_block_the_input_is_that_of_complete_text() -> None:
    sequence = _sequence(prompt_text=(1, 2), prompt_speech=(40, 41))
    sequence.append_text((3, 4))
    sequence.end_text()
    assert _shown(sequence.next_feed()) == "sos t1 t2 t3 t4 task_id s40 s41"


def test_quirk_version_3_starts_before_text() -> None:
    fixed = _sequence(3, prompt_text=[1, END_OF_PROMPT])
    quirky = _sequence(3, replace(FIXED, bistream_starts_before_text=True), prompt_text=[1, END_OF_PROMPT])
    for sequence in (fixed, quirky):
        sequence.append_text((2,))
    assert fixed.next_feed() is None
    assert _shown(quirky.next_feed()) == "sos t1 t49"
    fixed.append_text((3, 4, 5, 6))
    assert _shown(fixed.next_feed()) == "sos t1 t49 t2 t3 t4 t5 t6"


def test_quirk_a_piece_starts_one_block_only() -> None:
    feeds = []
    for quirks in (FIXED, replace(FIXED, bistream_one_block_per_piece=True)):
        sequence = _sequence(quirks=quirks)
        sequence.append_text(tuple(range(1, 13)))
        sequence.end_text()
        sequence.next_feed()
        _block(sequence)
        feeds.append(_shown(sequence.next_feed()))
    assert feeds == [_texts(6, 5), f"{_texts(6, 7)} task_id"]


def _generated(quirks: ReferenceQuirks, pieces: list[int], tokens: list[int], version: int) -> list[str]:
    """All feeds of a run in which `tokens` decide what the model says; text comes when it is waited for."""
    cfg = CONFIGS[version]
    prompt = [7, END_OF_PROMPT, 8, 9]
    sequence = _sequence(version, quirks, prompt_text=prompt, prompt_speech=range(tokens[0] % 40))
    feeds, fed, step, left = [], 0, 0, list(pieces)
    while sequence.finish_reason is None:
        feed = sequence.next_feed()
        if feed is None and left:
            sequence.append_text((3,) * left.pop(0))
        elif feed is None:
            sequence.end_text()
        else:
            feeds.append(_shown(feed))
            fed += len(feed)
            assert fed <= sequence.max_kv_len <= sequence.longest()
            token = tokens[step % len(tokens)]
            if token >= V:
                token = cfg.fill_id if sequence.constraint().ignore_eos else cfg.eos_id
            forced = sequence.constraint().forced
            sequence.accept(token if forced is None else forced)
            step += 1
    assert len(sequence.emitted) <= max(20 * sum(pieces), 15 * 10)
    return feeds


@given(
    st.lists(st.integers(0, 9), max_size=4),
    st.lists(st.integers(0, V + 2), min_size=1, max_size=30),
    st.sampled_from([2, 3]),
)
def test_reserved_length_is_never_exceeded(pieces: list[int], tokens: list[int], version: int) -> None:
    _generated(FIXED, pieces, tokens, version)
    _generated(REFERENCE, pieces, tokens, version)


@given(
    st.integers(1, 30),
    st.lists(st.integers(1, 9), max_size=12),
    st.lists(st.integers(0, V + 2), min_size=1, max_size=30),
)
def test_how_text_is_cut_makes_no_difference(total: int, cuts: list[int], tokens: list[int]) -> None:
    pieces, left = [], total
    for cut in cuts:
        pieces.append(min(cut, left))
        left -= pieces[-1]
    pieces.append(left)
    assert _generated(FIXED, pieces, tokens, 2) == _generated(FIXED, [total], tokens, 2)
