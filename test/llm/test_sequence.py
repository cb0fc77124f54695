from __future__ import annotations

import pytest

from light_tts.errors import InvalidInput
from light_tts.llm.request import LengthLimits, SequenceRequest
from light_tts.llm.sequence import SOS, TASK_ID, FinishReason, Symbol, SymbolKind, UniSequence
from light_tts.models.config import Qwen2Config, SamplingConfig, SpeechLMConfig
from light_tts.quirks import ReferenceQuirks

V = 61
CONFIGS = {
    version: SpeechLMConfig(version, Qwen2Config(50, 8, 8, 1, 1, 1), V, SamplingConfig())
    for version in (2, 3)
}
QUIRK = ReferenceQuirks(v3_min_len_ignored=True)


def _sequence(
    version: int = 2, quirks: ReferenceQuirks | None = None, limits: LengthLimits | None = None
) -> UniSequence:
    request = SequenceRequest((4, 5), (1, 2, 3), (8, 9), limits=limits or LengthLimits(1, 3))
    return UniSequence(CONFIGS[version], request, quirks or ReferenceQuirks())


def _banned(sequence: UniSequence, version: int) -> list[int]:
    ids = range(V + CONFIGS[version].num_extra_ids)
    return [token for part in sequence.constraint().banned for token in ids[part]]


def test_prompt_is_fed_first_then_each_token() -> None:
    sequence = _sequence()
    text = [Symbol(SymbolKind.TEXT, token) for token in (1, 2, 3, 4, 5)]
    speech = [Symbol(SymbolKind.SPEECH, token) for token in (8, 9)]
    assert sequence.next_feed() == [SOS, *text, TASK_ID, *speech]
    assert sequence.next_feed() == [SOS, *text, TASK_ID, *speech]
    assert sequence.accept(17) == 17
    assert sequence.next_feed() == [Symbol(SymbolKind.SPEECH, 17)]
    assert sequence.emitted == sequence.history == [17]


@pytest.mark.parametrize(("version", "stop"), [(2, V), (2, V + 1), (2, V + 2), (3, V + 1), (3, V + 199)])
def test_every_stop_id_ends_the_sequence_unheard(version: int, stop: int) -> None:
    sequence = _sequence(version)
    for token in (10, 11):
        sequence.accept(token)
    assert stop not in _banned(sequence, version)
    assert sequence.accept(stop) is None
    assert sequence.finish_reason is FinishReason.STOP
    assert sequence.next_feed() is None
    assert sequence.emitted == [10, 11]


@pytest.mark.parametrize("version", [2, 3])
def test_no_stop_id_may_come_before_the_minimum_length(version: int) -> None:
    sequence = _sequence(version)
    stop_ids = list(CONFIGS[version].stop_ids)
    for token in (10, 11):
        assert sequence.constraint().ignore_eos
        assert _banned(sequence, version) == stop_ids
        sequence.accept(token)
    assert not sequence.constraint().ignore_eos
    assert _banned(sequence, version) == []


@pytest.mark.parametrize("version", [2, 3])
def test_with_the_quirk_only_id_v_is_masked_below_the_minimum_length(version: int) -> None:
    sequence = _sequence(version, QUIRK)
    assert sequence.constraint().ignore_eos
    assert _banned(sequence, version) == [V]
    assert (CONFIGS[version].eos_id in _banned(sequence, version)) == (version == 2)


def test_maximum_length_ends_the_sequence_with_the_last_token_heard() -> None:
    sequence = _sequence()
    assert [sequence.accept(token) for token in range(6)] == list(range(6))
    assert sequence.finish_reason is FinishReason.LENGTH
    assert sequence.next_feed() is None


def test_reserved_length_is_what_the_longest_run_feeds() -> None:
    sequence, fed = _sequence(), 0
    while feed := sequence.next_feed():
        fed += len(feed)
        sequence.accept(3)
    assert fed == sequence.max_kv_len


def test_limits_count_text_without_the_prompts() -> None:
    sequence = _sequence(limits=LengthLimits(0, 0.6))
    sequence.accept(1)
    assert sequence.finish_reason is FinishReason.LENGTH


def test_a_maximum_of_zero_ends_at_once() -> None:
    sequence = _sequence(limits=LengthLimits(0, 0))
    assert sequence.next_feed() is None
    assert sequence.finish_reason is FinishReason.LENGTH


def test_complete_text_cannot_grow() -> None:
    with pytest.raises(InvalidInput):
        _sequence().append_text((1,))
    with pytest.raises(InvalidInput):
        _sequence().end_text()
