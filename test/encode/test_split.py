from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from light_tts.encode.split import cap, sentences, split


def words(text: str) -> int:
    return len(text.split())


@pytest.mark.parametrize(
    "text",
    [
        "It is 3.14 km. ", "Dr. Smith came. ", "At 10:30 we left. ", "See e.g. this. ", "In the U.S. we met. ",
        "J. Smith came. ",
        "Go to example.com/a?b=1 now. ", "What?! ", "Well... ", 'He said "go!" ', "Version v2.0 is out. ",
        "No. 5 is alive. ",
        "So do I. ", "Hello!!! ", "(Yes.) ", "See Fig. 3 now. ", "Is it 50%? ", "Wait…… ",
    ],
)  # fmt: skip
def test_a_sentence_is_not_cut_within(text: str) -> None:
    assert sentences(text * 3, chinese=False) == [text] * 3


@pytest.mark.parametrize(
    "text", ["好吗？！", "走了……", "“你好。”", "是3.14。", "10:30到。", "他说：", "第一；"]
)
def test_a_chinese_sentence_is_not_cut_within(text: str) -> None:
    assert sentences(text * 3, chinese=True) == [text] * 3


@given(st.text(st.sampled_from("ab1 .?!,:;。？！，：；、…\"”'()\nDr.")), st.booleans())
def test_the_parts_are_the_text(text: str, chinese: bool) -> None:
    assert "".join(sentences(text, chinese)) == text


def test_sentences_are_joined_to_pieces_of_sixty_to_eighty() -> None:
    text = "one two three four five six seven eight nine ten. " * 20
    pieces = split(text, False, words, 160)
    assert [words(piece) for piece in pieces] == [80, 80, 40]


def test_a_short_last_piece_joins_the_one_before() -> None:
    pieces = split("字" * 70 + "。" + "尾" * 15 + "。", True, len, 160)
    assert pieces == ["字" * 70 + "。" + "尾" * 15 + "。"]
    assert len(split("字" * 70 + "。" + "尾" * 25 + "。", True, len, 160)) == 2


@pytest.mark.parametrize(
    ("text", "chinese", "expected"),
    [
        ("Hello", False, "Hello."),
        ("Hello,", False, "Hello."),
        ("Hello!", False, "Hello!"),
        ('He said "go"', False, 'He said "go".'),
        ('He said "go."', False, 'He said "go."'),
        ("你好", True, "你好。"),
        ("你好、", True, "你好。"),
        ("他说：“走。”", True, "他说：“走。”"),
        ("Is 5%", False, "Is 5%."),
    ],
)
def test_the_last_piece_ends_in_a_mark(text: str, chinese: bool, expected: str) -> None:
    assert split(text, chinese, len, 160) == [expected]


@pytest.mark.parametrize("text", ["", " ", "...", "?!", "—", "“”", "$+"])
def test_text_without_words_gives_no_pieces(text: str) -> None:
    assert split(text, False, len, 160) == []


def test_a_long_sentence_is_cut_at_commas_first() -> None:
    phrase = "one two three four five, "
    pieces = list(cap(phrase * 20, words, 30))
    assert "".join(pieces) == phrase * 20
    assert all(piece.endswith(", ") for piece in pieces)
    assert max(map(words, pieces)) <= 30


def test_a_sentence_without_commas_is_cut_at_spaces() -> None:
    pieces = list(cap("word " * 100, words, 30))
    assert [words(piece) for piece in pieces] == [25] * 4
    assert all(piece.endswith(" ") for piece in pieces)


def test_a_word_without_end_is_cut_anywhere() -> None:
    pieces = list(cap("x" * 5000, len, 160))
    assert "".join(pieces) == "x" * 5000
    assert all(80 <= len(piece) <= 160 for piece in pieces)


@given(st.text(st.sampled_from("ab ,，好。x"), max_size=300), st.integers(4, 40))
def test_no_part_is_over_the_cap_and_nothing_is_lost(text: str, max_tokens: int) -> None:
    pieces = list(cap(text, len, max_tokens))
    assert "".join(pieces) == text
    assert all(len(piece) <= max_tokens for piece in pieces)


@pytest.mark.parametrize(
    "text", ["a. " * 3000, "。" * 9000, "a" * 9000, '."' * 4500, " " * 9000, "a.b" * 3000]
)
def test_time_grows_with_the_text_only(text: str) -> None:
    start = time.perf_counter()
    split(text, False, len, 160)
    assert time.perf_counter() - start < 1.0
