"""What the recording does not show of the reference's behaviour."""

from __future__ import annotations

import pytest

from light_tts.encode.normalise import reference


def test_a_trailing_space_is_an_index_error() -> None:
    with pytest.raises(IndexError):
        reference.replace_blanks("你好 ")


def test_text_is_stripped_before_blanks_are_looked_at() -> None:
    assert reference.normalise(" 你好 \n") == "你好"


def test_a_backend_reads_numbers_first() -> None:
    assert reference.normalise("有5个.", lambda text: text.replace("5", "五")) == "有五个。"
    assert reference.normalise("has 5", lambda text: text + " and 6") == "has five and six"


def test_of_two_adjacent_marks_the_second_is_lost() -> None:
    assert reference.split("What?! Yes", False, len) == ["What? Yes."]


def test_a_decimal_point_ends_a_piece() -> None:
    assert reference.split("三。一四", True, len) == ["三。一四。"]
    long = "字" * 70 + "3。14" + "字" * 70
    assert reference.split(long, True, len) == ["字" * 70 + "3。", "14" + "字" * 70 + "。"]


def test_numbers_too_large_for_words_are_left() -> None:
    assert reference.spell_out_numbers("9" * 5000) == "9" * 5000
