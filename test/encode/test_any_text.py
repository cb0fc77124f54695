"""Whatever text comes: no error but a named one, no long wait, and nothing that can be spoken is left unspoken."""

from __future__ import annotations

import re
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from light_tts.encode.frontend import TextFrontend
from light_tts.encode.normalise.markup import plain
from light_tts.encode.tokenizer import TextTokenizer
from light_tts.errors import EmptyText
from light_tts.quirks import ReferenceQuirks

MAX_CHARS = 10_000
BOUND_S = 5.0
"""CPU time for the longest text. The worst that was found takes 1.2 s on one busy core; quadratic rules take 10 s."""

_FRAGMENTS = (
    "Dr. |St. |U.S. |$1,000.50|10:30|2024年|3月|50%|1/2|a@b.com|[breath]|http://x.com/|5km|你好| word|1st|No.|-5℃|VIII|"
    "'90s|1990s|<a |<a x=|<a href=\"|&amp;|&|[|](|[a](|![|<|>|</|<!--|<script>|*|_|`|#|\n|- |1.|+1 |-|/|.|,|:|@|_a|a_|"
    ".py|a.|转|0|1-|(|)|（|）|~|—|=|x|×|²|^|★|→|①|½|ａ|😀|\u200d|I|V|X| I|PM|'s|第|¥|$|€|，|。|！|?|!|…|\"|“|A&B|US|"
    "C++|v1.|ext. | x1|α|www.|年|月|日|点|个|零|幺|气温|最高|电话|call |a 1 |"
    "\ud800|\U000f0001|〇|㐀|٣|ﬁ|𝐀|<b>|</b>|<br>"
)
FRAGMENTS = [*_FRAGMENTS.split("|"), "|"]
TEXT = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=200),
    st.lists(st.sampled_from(FRAGMENTS), max_size=30).map("".join),
)
# What the bundled voice can say. Of the Han characters up to U+9FA5 it lacks ten, obsolete units and the like.
SPEAKABLE = re.compile("[A-Za-z0-9\u4e00-\u9fa5]")
LACKING = re.compile("[兙兡嗧桛烪瓧瓰瓱瓼甅]")


@pytest.fixture(scope="module")
def frontend() -> TextFrontend:
    tokenizer = TextTokenizer.from_model_dir(Path(__file__).parent / "data" / "phonetic", 2)
    frontend = TextFrontend(tokenizer, 2, ReferenceQuirks(), max_chars=MAX_CHARS)
    frontend.warm_up()
    return frontend


def speakable(text: str) -> bool:
    """By plain means: characters of what a reader sees, in their usual form, without those of private use."""
    seen = unicodedata.normalize(
        "NFKC", "".join(c for c in plain(text) if unicodedata.category(c) not in ("So", "Sk"))
    )
    return SPEAKABLE.search(LACKING.sub("", seen)) is not None


@settings(max_examples=400, deadline=None)
@given(text=TEXT, language=st.sampled_from([None, "zh", "en", "ja"]))
@example("<b>A</b>", None)
@example("🅰1️⃣", None)
@example("@", "zh")
@example("0", "en")
def test_what_can_be_spoken_is_spoken(frontend: TextFrontend, text: str, language: str | None) -> None:
    try:
        segments = frontend.segments(text, language)
    except EmptyText:
        assert not speakable(text)
        return
    assert all(segment.token_ids and segment.text for segment in segments)
    assert not re.search("[\U000f0000-\U0010ffff]", "".join(segment.text for segment in segments))


@settings(max_examples=25, deadline=None)
@given(unit=st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=5).map("".join).filter(bool))
@example("²")
@example("7")
@example("1.")
@example("最高½")
@example("<a ")
@example('<a b="')
@example("<script>")
@example("<!--")
@example("[")
@example("![")
@example("[a](")
@example("&a")
@example("| ")
@example("\n")
@example("* ")
@example("a@")
@example("a.")
@example("1-")
@example("(")
@example("A ")
def test_the_longest_text_takes_bounded_time(frontend: TextFrontend, unit: str) -> None:
    text = (unit * (MAX_CHARS // len(unit) + 1))[:MAX_CHARS]
    start = time.thread_time()
    try:
        frontend.segments(text)
    except EmptyText:
        assert not speakable(text)
    assert time.thread_time() - start < BOUND_S


def test_characters_of_other_forms_are_spoken(frontend: TextFrontend) -> None:
    def ids(text: str) -> list[int]:
        return frontend.segments(text)[0].token_ids

    assert ids("二〇二四") == ids("二零二四")
    assert ids("٣ cats") == ids("3 cats")
    assert ids("𝐇𝐞𝐥𝐥𝐨 ﬁsh") == ids("Hello fish")
    assert ids("⼈") == ids("人")
    assert ids("㐀") != []
