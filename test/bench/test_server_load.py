"""Utterances of one fixed length."""

from __future__ import annotations

from pathlib import Path

import pytest

from light_tts.bench.random_model import write_settings
from light_tts.bench.server_load import TEXT, checked, fixed_length
from light_tts.encode.frontend import TextFrontend
from light_tts.encode.tokenizer import TextTokenizer
from light_tts.errors import InvalidInput
from light_tts.llm.request import LengthLimits
from light_tts.loadtest.client import Level, Outcome
from light_tts.quirks import ReferenceQuirks


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("num_tokens", [1, 50, 250, 750])
def test_least_and_most_tokens_are_the_number_asked_for(
    version: int, num_tokens: int, tmp_path: Path
) -> None:
    write_settings(tmp_path, f"cosyvoice{version}-0.5b")
    fields = fixed_length(tmp_path, version, num_tokens)
    tokenizer = TextTokenizer.from_model_dir(tmp_path / "CosyVoice-BlankEN", version)
    (segment,) = TextFrontend(tokenizer, version, ReferenceQuirks()).segments(TEXT)
    limits = LengthLimits(float(fields["min_token_text_ratio"]), float(fields["max_token_text_ratio"]))
    text = len(segment.token_ids)
    assert limits.min_len(text) == limits.max_len(text) == num_tokens


def test_a_length_out_of_the_apis_range_is_refused(tmp_path: Path) -> None:
    write_settings(tmp_path, "mini")
    with pytest.raises(InvalidInput, match=r"100000 speech tokens are .* limit 100"):
        fixed_length(tmp_path, 2, 100_000)


def test_an_answer_of_another_length_is_a_failure() -> None:
    outcomes = tuple(Outcome(1.0, 0.1, audio_s, 0.0, True) for audio_s in (10.0, 9.96))
    level = checked(Level(True, 2, 1.0, outcomes), 10.0)
    assert [outcome.fault for outcome in level.outcomes] == [None, "9.96 s of audio, 10.00 s were asked for"]
