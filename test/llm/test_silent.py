from __future__ import annotations

from light_tts.llm.silent import SILENT_TOKENS, SilentTokenFilter


def _kept(tokens: list[int], version: int) -> list[int]:
    silent = SilentTokenFilter(SILENT_TOKENS[version])
    return [token for token in tokens if silent.keeps(token)]


def test_a_run_of_silence_keeps_its_first_five_tokens() -> None:
    assert _kept([7] + [1] * 8 + [7], 3) == [7] + [1] * 5 + [7]
    assert _kept([1, 2, 28, 29, 55, 248, 494], 3) == [1, 2, 28, 29, 55]


def test_any_other_token_starts_the_count_anew() -> None:
    tokens = [1] * 5 + [9] + [2] * 5
    assert _kept(tokens, 3) == tokens


def test_version_2_keeps_everything() -> None:
    assert _kept([1] * 40, 2) == [1] * 40
