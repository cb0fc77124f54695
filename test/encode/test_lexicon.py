from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from light_tts.cli import main
from light_tts.encode.frontend import TextFrontend
from light_tts.encode.lexicon import MAX_BYTES, MAX_ENTRIES, InvalidLexicon, Lexicon
from light_tts.encode.sounds import bracketed_tokens
from light_tts.encode.tokenizer import TextTokenizer
from light_tts.quirks import ReferenceQuirks
from light_tts.server.startup_checks import check_lexicon
from test.conftest import GOLDEN

PHONETIC = Path(__file__).parent / "data" / "phonetic"
FOLDERS = {"v2": (GOLDEN / "cosyvoice2" / "CosyVoice-BlankEN", 2),
           "v3": (GOLDEN / "cosyvoice3" / "CosyVoice-BlankEN", 3),
           "phonetic": (PHONETIC, 2)}  # fmt: skip
FILE = """\ufeff# names\r
kubectl\tcube control\r

SQL\tsequel
重庆\t/chong2 qing4/
重\t众
Nguyen\t/W IH1 N/
C#\tsee sharp
GPT-4o\tG P T four oh
nginx\tengine x
"""


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, TextTokenizer]:
    return {kind: TextTokenizer.from_model_dir(*where) for kind, where in FOLDERS.items()}


def _read(tmp_path: Path, text: str | bytes) -> Lexicon:
    path = tmp_path / "words.tsv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Lexicon.read(path)


@pytest.fixture
def lexicon(tmp_path: Path) -> Lexicon:
    return _read(tmp_path, FILE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Use kubectl now", "Use cube control now"),
        ("Kubectl, KUBECTL!", "cube control, cube control!"),
        ("kubectls and mykubectl", "kubectls and mykubectl"),
        ("SQL, sql", "sequel, sql"),
        ("我用kubectl。", "我用cube control。"),
        ("C# and C#7", "see sharp and see sharp7"),
        ("GPT-4o is new", "G P T four oh is new"),
        ("nginx.org, a.nginx, nginx.", "nginx.org, a.nginx, engine x."),
        ("x_nginx nginx@a", "x_nginx nginx@a"),
        ("nginx's", "engine x's"),
        ("很重", "很众"),
    ],
)
def test_whole_words_are_replaced(lexicon: Lexicon, text: str, expected: str) -> None:
    assert lexicon.apply(text) == expected


def test_the_longest_word_wins_and_what_was_put_in_is_not_read_again(tmp_path: Path) -> None:
    words = _read(tmp_path, "New York\tnoo yawk\nnew\told\nold\tnew\n人工\t甲\n人工智能\t乙\n")
    assert words.apply("new New York 人工智能人工") == "old noo yawk 乙甲"


def test_a_word_as_written_goes_before_one_in_any_case(tmp_path: Path) -> None:
    words = _read(tmp_path, "us\tuhs\nUS\tU S\n")
    assert words.apply("us Us US") == "uhs uhs U S"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\tb\nno tab here", r"words\.tsv:2: 0 tabs"),
        ("a\tb\tc", "1: 2 tabs"),
        ("\tb", "1: the word '' has no letter"),
        ("a\t", "1: the respelling '' has no letter"),
        ("!!\tb", "1: the word '!!' has no letter"),
        ("a" * 65 + "\tb", "1: the word has 65 characters, the limit is 64"),
        ("a\t" + "b" * 201, "1: the respelling has 201 characters, the limit is 200"),
        ("ab\tx\n# c\nab\ty", "3: 'ab' is already in line 1"),
        ("a\t/K UW/", "1: 'UW' is no sound"),
        ("a\t/chong/", "1: 'chong' is no sound"),
        ("a\t/K UW1", "1: sounds begin and end with /"),
        (b"ok\tfine\na\t\xff", "2: no UTF-8: byte 3"),
        ("a\tb\n" * 1 + "x" * MAX_BYTES, "more than 1000000 bytes"),
        ("".join(f"w{n}\tx\n" for n in range(MAX_ENTRIES + 1)), "10001: more than 10000 words"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(InvalidLexicon, match=message):
        _read(tmp_path, content)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidLexicon, match=r"none\.tsv cannot be read: No such file"):
        Lexicon.read(tmp_path / "none.tsv")
    with pytest.raises(InvalidLexicon, match="Is a directory"):
        Lexicon.read(tmp_path)


def test_the_server_looks_at_it_before_any_process_starts(tmp_path: Path, lexicon: Lexicon) -> None:
    check_lexicon(None, GOLDEN / "cosyvoice2")
    check_lexicon(tmp_path / "words.tsv", GOLDEN / "cosyvoice3")
    with pytest.raises(InvalidLexicon, match=r"words\.tsv:5: this model has no token"):
        check_lexicon(tmp_path / "words.tsv", GOLDEN / "cosyvoice2")


def test_the_command_line_looks_at_it_before_the_model_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "words.tsv").write_text("a\tb\nwrong\n")
    status = main(["say", "hi", "-o", str(tmp_path / "o.wav"), "--lexicon", str(tmp_path / "words.tsv")])
    assert status == 2
    assert "words.tsv:2: 0 tabs" in capsys.readouterr().err


def _frontend(
    tokenizers: dict[str, TextTokenizer], kind: str, lexicon: Lexicon, **options: bool
) -> TextFrontend:
    return TextFrontend(tokenizers[kind], FOLDERS[kind][1], ReferenceQuirks(), lexicon=lexicon, **options)


def test_sounds_become_symbols_of_the_bundled_voice(
    tokenizers: dict[str, TextTokenizer], lexicon: Lexicon
) -> None:
    (segment,) = _frontend(tokenizers, "phonetic", lexicon).segments("我在重庆见Nguyen。")
    assert segment.text == "我在重庆见Nguyen。"
    tokenizer = tokenizers["phonetic"]
    middle = tokenizer.sound_ids(["chong2", "qing4"])
    assert segment.token_ids == [
        *tokenizer.encode("我在"), *middle, *tokenizer.encode("见"), *tokenizer.encode("win"),
        *tokenizer.encode("。", continues=True),
    ]  # fmt: skip


def test_a_possessive_follows_sounds(tokenizers: dict[str, TextTokenizer], lexicon: Lexicon) -> None:
    (segment,) = _frontend(tokenizers, "phonetic", lexicon).segments("Nguyen's dog.")
    assert segment.text == "Nguyen's dog."
    assert segment.token_ids == tokenizers["phonetic"].encode("wins dog.")


def test_sounds_become_tokens_of_cosyvoice3(tokenizers: dict[str, TextTokenizer], lexicon: Lexicon) -> None:
    (segment,) = _frontend(tokenizers, "v3", lexicon).segments("去重庆。")
    special = tokenizers["v3"].special_ids
    expected = [special[f"[{part}]"] for part in ("ch", "óng", "q", "ìng")]
    assert [token for token in segment.token_ids if token in special.values()] == expected


def test_every_syllable_that_pypinyin_knows_is_told_to_cosyvoice3(
    tokenizers: dict[str, TextTokenizer],
) -> None:
    vocabulary = [symbol[2:] for symbol in tokenizers["phonetic"]._encoder._vocabulary if symbol[:2] == "z_"]  # type: ignore[attr-defined]
    unknown = []
    for syllable in vocabulary:
        try:
            list(bracketed_tokens([syllable], tokenizers["v3"].special_ids))
        except KeyError:
            unknown.append(syllable)
    assert len(unknown) < 0.06 * len(vocabulary), unknown


def test_a_model_without_sounds_refuses_them_at_once(
    tokenizers: dict[str, TextTokenizer], lexicon: Lexicon
) -> None:
    with pytest.raises(InvalidLexicon, match=r"words\.tsv:5: this model has no token for 'chong2'"):
        _frontend(tokenizers, "v2", lexicon)


@pytest.mark.parametrize("kind", FOLDERS)
def test_respellings_work_with_every_model(
    tokenizers: dict[str, TextTokenizer], kind: str, tmp_path: Path
) -> None:
    words = _read(tmp_path, "kubectl\tcube control\n")
    (segment,) = _frontend(tokenizers, kind, words).segments("Run kubectl 2 times.")
    assert segment.text == "Run cube control two times."
    assert (
        _frontend(tokenizers, kind, words).prompt_ids("kubectl")[-2:]
        == tokenizers[kind].encode("cube control")[-2:]
    )


def test_text_that_is_not_normalised_knows_no_lexicon(
    tokenizers: dict[str, TextTokenizer], lexicon: Lexicon
) -> None:
    off = _frontend(tokenizers, "phonetic", lexicon, normalise=False)
    bare = TextFrontend(tokenizers["phonetic"], 2, ReferenceQuirks(), normalise=False)
    text = "kubectl 重庆 \U000f0002 Nguyen"
    assert [s.token_ids for s in off.segments(text)] == [s.token_ids for s in bare.segments(text)]


def test_characters_of_private_use_are_no_way_to_words(
    tokenizers: dict[str, TextTokenizer], lexicon: Lexicon
) -> None:
    frontend = _frontend(tokenizers, "phonetic", lexicon)
    assert frontend.segments("你\U000f0002好")[0].token_ids == frontend.segments("你好")[0].token_ids


def test_a_full_lexicon_costs_little(tmp_path: Path) -> None:
    choose = random.Random(1)
    names = {"".join(choose.choices("abcdefgh", k=choose.randint(3, 12))) for _ in range(9000)}
    words = _read(tmp_path, "".join(f"{name}\tx\n" for name in names))
    text = " ".join(choose.choices(sorted(names), k=1000))[:10_000]
    start = time.thread_time()
    assert words.apply(text)
    assert words.apply("a" * 10_000) == "a" * 10_000
    assert time.thread_time() - start < 1.0


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=80), word=st.text(min_size=1, max_size=5))
def test_text_without_the_word_stays(text: str, word: str) -> None:
    lexicon = Lexicon()
    assert lexicon.apply(text) == lexicon.written(text) == text
