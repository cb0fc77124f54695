from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from light_tts.encode.pieces import PieceBuffer


def test_a_number_cut_in_two_is_released_as_one() -> None:
    buffer = PieceBuffer()
    assert buffer.push("It is 12") == "It is"
    assert buffer.push(".5 km away") == " 12.5 km"
    assert buffer.flush() == " away"


def test_chinese_is_released_at_once() -> None:
    assert PieceBuffer().push("今天天气") == "今天天气"


def test_an_endless_word_is_not_held_forever() -> None:
    buffer = PieceBuffer()
    assert buffer.push("a" * 1000) == "a" * 1000


def test_a_line_break_behind_a_number_is_a_border_and_nothing_is_said_twice() -> None:
    buffer = PieceBuffer()
    assert buffer.push("room 5\n") + buffer.push("next") + buffer.flush() == "room 5\nnext"


@given(st.lists(st.text(max_size=20), max_size=20))
def test_nothing_is_lost_or_reordered(pieces: list[str]) -> None:
    buffer = PieceBuffer()
    released = "".join(buffer.push(piece) for piece in pieces) + buffer.flush()
    assert released == "".join(pieces)
