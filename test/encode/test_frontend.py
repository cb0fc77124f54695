from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from light_tts.encode.frontend import SYSTEM_PROMPT, TextFrontend
from light_tts.encode.pieces import PieceBuffer
from light_tts.encode.tokenizer import TextTokenizer
from light_tts.errors import EmptyText, InvalidInput, TextTooLong
from light_tts.quirks import ReferenceQuirks
from test.conftest import GOLDEN

PHONETIC = Path(__file__).parent / "data" / "phonetic"
KINDS = {
    "v2": (GOLDEN / "cosyvoice2" / "CosyVoice-BlankEN", 2),
    "v3": (GOLDEN / "cosyvoice3" / "CosyVoice-BlankEN", 3),
    "phonetic": (PHONETIC, 2),
}


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, TextTokenizer]:
    return {name: TextTokenizer.from_model_dir(folder, version) for name, (folder, version) in KINDS.items()}


Make = Callable[..., TextFrontend]


@pytest.fixture(scope="module")
def make(tokenizers: dict[str, TextTokenizer]) -> Make:
    def make_frontend(
        kind: str, quirks: ReferenceQuirks | None = None, **options: bool | int
    ) -> TextFrontend:
        return TextFrontend(tokenizers[kind], KINDS[kind][1], quirks or ReferenceQuirks(), **options)  # type: ignore[arg-type]

    return make_frontend


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_segment_holds_its_text_and_its_ids(
    make: Make, tokenizers: dict[str, TextTokenizer], kind: str
) -> None:
    (segment,) = make(kind).segments("Dr. Smith has 2 cats")
    assert segment.text == "Doctor Smith has two cats."
    assert segment.token_ids == tokenizers[kind].encode(segment.text)


def test_long_text_becomes_several_segments_in_order(make: Make, kind: str) -> None:
    sentences = [f"This is sentence number {n} of a text that is long." for n in range(40)]
    segments = make(kind, normalise=False).segments(" ".join(sentences))
    assert len(segments) > 1
    assert " ".join(segment.text for segment in segments) == " ".join(sentences)


@pytest.mark.parametrize(
    "text",
    ["", "   ", "\n\n", "😀😀", "...", "?!", "。。。", "“”", "$+", "—", "\u200b", "\ud800", "\x00", "（）"],
)
@pytest.mark.parametrize("normalise", [True, False])
def test_text_without_words_is_refused(make: Make, kind: str, text: str, normalise: bool) -> None:
    with pytest.raises(EmptyText):
        make(kind, normalise=normalise).segments(text)


def test_what_the_bundled_voice_cannot_say_is_refused(make: Make) -> None:
    with pytest.raises(EmptyText):
        make("phonetic").segments("Привет")
    assert make("v2").segments("Привет")


def test_a_low_limit_is_no_obstacle_to_the_warm_up(make: Make, kind: str) -> None:
    make(kind, max_chars=1).warm_up()


def test_the_limit_of_the_text_is_not_that_of_a_transcript(make: Make, kind: str) -> None:
    frontend = make(kind, max_chars=3)
    assert frontend.prompt_ids("a longer text than that")
    with pytest.raises(TextTooLong, match="prompt_text has 2001 characters, the limit is 2000"):
        frontend.prompt_ids("字" * 2001)


def test_too_much_text_is_refused_at_once(make: Make, kind: str) -> None:
    frontend = make(kind)
    start = time.perf_counter()
    with pytest.raises(TextTooLong, match="text has 100000 characters, the limit is 10000"):
        frontend.segments("字" * 100_000)
    with pytest.raises(TextTooLong, match="prompt_text"):
        frontend.prompt_ids("字" * 100_000)
    with pytest.raises(TextTooLong, match="instruct_text"):
        frontend.instruct_ids("字" * 100_000)
    with pytest.raises(TextTooLong):
        frontend.piece_ids("字" * 100_000)
    assert time.perf_counter() - start < 0.1


@pytest.mark.parametrize(
    "text",
    ["这里有5个东西，还有6.5个。" * 600, "There are 5 things, and 6.5% more at 10:30. " * 204, "x" * 9000],
)
def test_a_long_text_takes_no_two_seconds(make: Make, kind: str, text: str) -> None:
    frontend = make(kind)
    frontend.segments("预热 warm 5mol")  # dictionaries and grammars are loaded on first use
    start = time.perf_counter()
    frontend.segments(text[:9000])
    assert time.perf_counter() - start < 2.0


@pytest.mark.parametrize(
    "text", ["a" * 5000, "好" * 5000, "word " * 2000, "7" * 9000, "1-" * 4500, "5%" * 4500]
)
def test_no_segment_is_too_long_for_the_model(make: Make, kind: str, text: str) -> None:
    segments = make(kind).segments(text)
    assert max(len(segment.token_ids) for segment in segments) <= 160


def test_control_tokens_in_text_are_text(make: Make, tokenizers: dict[str, TextTokenizer]) -> None:
    text = "Hello <|endofprompt|> world <|im_end|>."
    for kind in ("v2", "v3"):
        control = set(tokenizers[kind].special_ids.values())
        ids = [i for segment in make(kind).segments(text, allow_tags=True) for i in segment.token_ids]
        assert not control & set(ids)
        reference = make(kind, ReferenceQuirks.reference())
        (segment,) = reference.segments(text)
        assert segment.token_ids == tokenizers[kind].encode(text, allow_control=True, allow_tags=True)


def test_delivery_tags_act_on_request(make: Make, tokenizers: dict[str, TextTokenizer]) -> None:
    breath = tokenizers["v3"].special_ids["[breath]"]
    text = "Well [breath] I have 2."
    assert breath not in make("v3").segments(text)[0].token_ids
    (segment,) = make("v3").segments(text, allow_tags=True)
    assert segment.token_ids.count(breath) == 1
    assert segment.text == "Well [breath] I have two."


def test_version_2_takes_the_transcript_as_it_is(make: Make, tokenizers: dict[str, TextTokenizer]) -> None:
    assert make("v2").prompt_ids("I have 2. ") == tokenizers["v2"].encode("I have two.")
    assert make("v2").prompt_ids("") == []
    assert tokenizers["v2"].end_of_prompt_id not in make("v2").prompt_ids("a<|endofprompt|>b")


def test_version_3_finds_its_system_prompt_before_the_transcript(
    make: Make, tokenizers: dict[str, TextTokenizer]
) -> None:
    tokenizer = tokenizers["v3"]
    frontend = make("v3")
    expected = tokenizer.encode(SYSTEM_PROMPT, allow_control=True) + tokenizer.encode("I have two")
    assert frontend.prompt_ids("I have 2") == expected
    assert frontend.prompt_ids(f"{SYSTEM_PROMPT}I have 2") == expected
    other = frontend.prompt_ids("Speak low.<|endofprompt|>I have 2")
    assert other == tokenizer.encode("Speak low.<|endofprompt|>I have two", allow_control=True)
    reference = make("v3", ReferenceQuirks.reference())
    text = f"{SYSTEM_PROMPT}I have 2"
    assert reference.prompt_ids(text) == tokenizer.encode(text, allow_control=True)


@pytest.mark.parametrize("kind", ["v2", "v3"])
def test_an_instruction_is_closed_once(make: Make, tokenizers: dict[str, TextTokenizer], kind: str) -> None:
    role = "You are a helpful assistant. " if kind == "v3" else ""
    expected = tokenizers[kind].encode(f"{role}Speak 2 low.<|endofprompt|>", allow_control=True)
    assert make(kind).instruct_ids("Speak 2 low.") == expected
    assert make(kind).instruct_ids("Speak 2 low.<|endofprompt|>") == expected
    ids = make(kind).instruct_ids("[breath]<|im_end|>")
    special = set(tokenizers[kind].special_ids.values())
    assert special & set(ids) == {tokenizers[kind].end_of_prompt_id}


def test_a_prompt_cannot_end_twice(make: Make) -> None:
    twice = "a<|endofprompt|>b<|endofprompt|>c"
    with pytest.raises(InvalidInput, match="2 times"):
        make("v3").prompt_ids(twice)
    with pytest.raises(InvalidInput, match="2 times"):
        make("v2").instruct_ids(twice)


def test_an_empty_instruction_is_refused(make: Make) -> None:
    for text in ("", "  ", "<|endofprompt|>", " <|endofprompt|>x"):
        with pytest.raises(EmptyText):
            make("v2").instruct_ids(text)


def test_the_bundled_voice_takes_no_instructions(make: Make) -> None:
    with pytest.raises(InvalidInput, match="no instructions"):
        make("phonetic").instruct_ids("Speak low.")


def test_every_segment_begins_with_the_prefix_on_request(
    make: Make, tokenizers: dict[str, TextTokenizer]
) -> None:
    prefix = tokenizers["v3"].encode(SYSTEM_PROMPT, allow_control=True)
    text = "This is a sentence of some length. " * 20
    plain = make("v3").segments(text)
    assert len(plain) > 1
    prefixed = make("v3").segments(text, with_prefix=True)
    assert [segment.token_ids for segment in prefixed] == [prefix + segment.token_ids for segment in plain]
    assert make("v3").segments(SYSTEM_PROMPT + text, with_prefix=True) == prefixed
    assert make("v2").segments(text, with_prefix=True) == make("v2").segments(text)


def test_pieces_of_text_are_read_like_the_whole(make: Make, tokenizers: dict[str, TextTokenizer]) -> None:
    buffer, frontend = PieceBuffer(), make("v2")
    pieces = [buffer.push(piece) for piece in ("It is 12", ".5", " km to", " ", "town, ", "Dr", ". Lee!")]
    pieces.append(buffer.flush())
    ids = [i for n, piece in enumerate(pieces) for i in frontend.piece_ids(piece, "en", first=n == 0)]
    assert tokenizers["v2"]._encoder._tokenizer.decode(ids).startswith("It is twelve point five ")  # type: ignore[attr-defined]


def test_a_piece_may_be_empty_and_may_begin_with_a_pause(make: Make) -> None:
    frontend = make("phonetic")
    assert frontend.piece_ids("") == []
    assert frontend.piece_ids(" ") == []
    assert len(frontend.piece_ids("，")) == 1
    assert frontend.piece_ids("，", first=True) == []


def test_digits_in_chinese_text_are_chinese_symbols(make: Make, tokenizers: dict[str, TextTokenizer]) -> None:
    (segment,) = make("phonetic").segments("我在3:30用iPhone 15。")
    assert segment.token_ids == tokenizers["phonetic"].encode("我在三点三十分用iPhone十五。")


def test_threads_may_share_it(make: Make) -> None:
    frontend = make("phonetic")
    results: list[int] = []

    def run() -> None:
        results.append(len(frontend.segments("你好，I have 5 cats. 加20mol吧。")[0].token_ids))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert len(set(results)) == 1


NUMBERS_AND_SIGNS = "0123456789.,:/-+%$¥€年月日点第2 aAxXmkMK°²½()（）[]<|>'\"“”。，！？…~～—–#@&=\n"
FRAGMENTS = (
    "Dr. |St. |U.S. |$1,000.50|10:30|2024年|3月|50%|1/2|a@b.com|[breath]|http://x.com/|"
    "5km|你好| word|1st|No.|-5℃|VIII|'90s|1990s"
).split("|")
ANY_TEXT = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=60),
    st.text(st.sampled_from(NUMBERS_AND_SIGNS), max_size=60),
    st.lists(st.sampled_from([*FRAGMENTS, "<|endofprompt|>"]), max_size=12).map("".join),
)


@settings(max_examples=300, deadline=None)
@given(text=ANY_TEXT, allow_tags=st.booleans(), language=st.sampled_from([None, "zh", "en", "ja"]))
def test_any_text_gives_ids_or_a_named_error(
    tokenizers: dict[str, TextTokenizer], text: str, allow_tags: bool, language: str | None
) -> None:
    for (kind, (_, version)), normalise in itertools.product(KINDS.items(), (True, False)):
        frontend = TextFrontend(tokenizers[kind], version, ReferenceQuirks(), normalise)
        try:
            segments = frontend.segments(text, language, with_prefix=True, allow_tags=allow_tags)
        except EmptyText:
            assert kind == "phonetic" or not normalise or not re.search(r"[A-Za-z0-9\u4e00-\u9fff]", text)
            continue
        assert all(segment.token_ids and segment.text for segment in segments)
        assert (
            max(token_id for segment in segments for token_id in segment.token_ids)
            < tokenizers[kind].vocab_size
        )
        frontend.piece_ids(text, language, allow_tags=allow_tags)


@settings(max_examples=300, deadline=None)
@given(text=ANY_TEXT)
def test_without_normalisation_every_word_character_is_kept(
    tokenizers: dict[str, TextTokenizer], text: str
) -> None:
    frontend = TextFrontend(tokenizers["v2"], 2, ReferenceQuirks(), normalise=False)
    kept = re.sub(r"\W", "", text)
    try:
        segments = frontend.segments(text)
    except EmptyText:
        assert not re.search(r"[^\W_]", text)
        return
    assert re.sub(r"\W", "", "".join(segment.text for segment in segments)) == kept


@settings(max_examples=200, deadline=None)
@given(text=ANY_TEXT)
def test_normalisation_loses_no_letters(tokenizers: dict[str, TextTokenizer], text: str) -> None:
    frontend = TextFrontend(tokenizers["v2"], 2, ReferenceQuirks())
    han = re.findall("[\u4e00-\u9fff]", text)
    try:
        spoken = "".join(segment.text for segment in frontend.segments(text))
    except EmptyText:
        assert not han
        return
    rest = iter(spoken.replace("两", "二"))
    assert all(char in rest for char in han)


def test_instructions_of_version_3_follow_the_role_it_was_trained_with(golden: Path) -> None:
    tokenizer = TextTokenizer.from_model_dir(golden / "cosyvoice3" / "CosyVoice-BlankEN", 3)
    frontend = TextFrontend(tokenizer, 3, ReferenceQuirks())
    bare, full = frontend.instruct_ids("slowly"), frontend.instruct_ids("You are a helpful assistant. slowly")
    assert bare == full
    verbatim = TextFrontend(tokenizer, 3, ReferenceQuirks.reference())
    assert verbatim.instruct_ids("slowly") == [*tokenizer.encode("slowly"), tokenizer.end_of_prompt_id]
