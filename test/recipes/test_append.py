"""Utterances added to a table that exists: its rows stay, nothing is said twice, and what was rare is not any more."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from recipes.mini.append_settings import AppendSettings
from recipes.mini.errors import RecipeError
from recipes.mini.jobs_table import Job, Jobs, Speaker, append_jobs, write_jobs
from recipes.mini.prepare import append, name_lists, text
from recipes.mini.prepare.append import Heard, append_text, shares
from recipes.mini.prepare.jobs import SpellingEncoder
from recipes.mini.prepare.lexicon import rare_words, read_lexicon
from recipes.mini.prepare.longer import around_words, linked
from recipes.mini.prepare.name_sentences import NameSentences, short_phrase
from recipes.mini.prepare.sentences import key
from recipes.mini.prepare.text import TextSources
from recipes.mini.prepare.vocabulary import read_vocabulary
from recipes.mini.settings import Settings

TOKENIZER = Path(__file__).parents[1] / "encode" / "data" / "phonetic" / "tokenizer.json"
ALPHABET = {character: number for number, character in enumerate("_ abcdefghijklmnopqrstuvwxyz.,?!'")}
SPEAKERS = [Speaker(((0, 1.0),), (((0, 1.0),), ((1, 1.0),))) for _ in range(3)]
VOICES = ["a", "b"]


def table(folder: Path, vocabulary: Sequence[str], texts: Sequence[str]) -> None:
    encoder = SpellingEncoder(vocabulary)
    jobs = [
        Job([1, 2, 3 + number], (ids := encoder.ids(spoken), ids, [5, *ids]), 0, number % 3, 1.0 + number / 8)
        for number, spoken in enumerate(texts)
    ]
    write_jobs(folder, jobs, SPEAKERS, VOICES, vocabulary, {"seed": 7})


@pytest.fixture(scope="module")
def vocabulary() -> list[str]:
    return read_vocabulary(TOKENIZER)


def test_rows_that_exist_keep_their_bytes(tmp_path: Path, vocabulary: list[str]) -> None:
    table(tmp_path, vocabulary, ["The dog came home.", "Yes!", "我们回家。"])
    before = load_file(tmp_path / "jobs.safetensors")
    header = json.loads((tmp_path / "jobs.json").read_text("utf-8"))
    added = [Job([9, 8], ([40], [], [41, 42]), 1, 2, 0.5), Job([7], ([43], [44], []), 0, 0, 0.9)]
    append_jobs(tmp_path, added, {"seed": 9})
    after = load_file(tmp_path / "jobs.safetensors")
    for name, values in before.items():
        assert after[name].dtype == values.dtype
        assert after[name][: len(values)].tobytes() == values.tobytes()
    jobs = Jobs(tmp_path)
    assert len(jobs) == 5
    assert jobs.teacher_ids(3).tolist() == [9, 8]
    assert [jobs.ids(3, variant).tolist() for variant in range(3)] == [[40], [40], [41, 42]]
    assert [jobs.ids(4, variant).tolist() for variant in range(3)] == [[43], [44], [43]]
    assert (jobs.language[3], jobs.speaker[3], jobs.speed[3]) == (1, 2, 0.5)
    told = json.loads((tmp_path / "jobs.json").read_text("utf-8"))
    assert told.pop("added") == [{"first": 3, "num_jobs": 2, "seed": 9}]
    assert told.pop("num_jobs") == 5
    assert told.items() <= header.items()


def test_a_job_that_does_not_fit_the_table_changes_nothing(tmp_path: Path, vocabulary: list[str]) -> None:
    table(tmp_path, vocabulary, ["Yes!"])
    before = (tmp_path / "jobs.safetensors").read_bytes()
    with pytest.raises(RecipeError, match="speaker 3"):
        append_jobs(tmp_path, [Job([1], ([1], [], []), 0, 3, 1.0)], {})
    with pytest.raises(RecipeError, match="symbols"):
        append_jobs(tmp_path, [Job([1], ([len(vocabulary)], [], []), 0, 0, 1.0)], {})
    assert (tmp_path / "jobs.safetensors").read_bytes() == before


def test_what_was_joined_in_the_table_counts_as_said(tmp_path: Path, vocabulary: list[str]) -> None:
    table(tmp_path, vocabulary, ["The dog came home. Is the cat here?", "你好。"])
    encoder, heard = SpellingEncoder(vocabulary), Heard(Jobs(tmp_path))
    assert heard.has(encoder.ids("Is the cat here?"))
    assert heard.has(encoder.ids("你好！ The dog came home."))
    assert not heard.has(encoder.ids("The dog came home, is the cat here?"))
    assert heard.is_new(encoder.ids("你好。 The cat came home."))
    assert not heard.is_new(encoder.ids("The cat came home!"))


def test_rare_syllables_are_brought_up_to_what_is_wanted() -> None:
    counts = Counter({"ma1": 100, "pie3": 1})
    words = ["pie3 ma1", "pie3 zhuai1", "zhuai1", "ma1 ma1"]
    chosen = rare_words(words, str.split, counts, 6, {"ma1", "pie3", "zhuai1", "nowhere"})
    counts.update(symbol for word in chosen for symbol in word.split())
    assert counts["pie3"] >= 6
    assert counts["zhuai1"] >= 6
    assert "ma1 ma1" not in chosen
    assert set(chosen[:2]) <= {"pie3 ma1", "pie3 zhuai1", "zhuai1"}
    assert chosen == rare_words(
        words, str.split, Counter({"ma1": 100, "pie3": 1}), 6, {"ma1", "pie3", "zhuai1"}
    )


def test_words_are_read_in_the_order_of_preference(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.tsv"
    path.write_text("zh\t的\t900\nzh\t电脑\t5\nen\tzoo\t0\nzh\t大脑\t50\nen\tant\t0\n", "utf-8")
    assert read_lexicon(path).chinese == ["大脑", "电脑", "的"]
    assert read_lexicon(path).english == ["ant", "zoo"]
    path.write_text("zh\t的\n", "utf-8")
    with pytest.raises(RecipeError, match="not language, word, count"):
        read_lexicon(path)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_rare_word_is_said(language: str) -> None:
    words = [chr(0x4E00 + k) for k in range(40)] if language == "zh" else [f"w{k}x" for k in range(40)]
    sentences = list(around_words(words, language, random.Random(1)))
    assert all(any(word in sentence.lower() for sentence in sentences) for word in words)


def test_long_sentences_are_as_long_as_wanted_and_have_one_end() -> None:
    english = [f"The dog number {'very ' * (k % 9)}old came home." for k in range(300)]
    questions = ["Is it here?", 'He said "no" to me.']
    made = list(linked([*questions, *english], "en", (20, 30), random.Random(1)))
    assert len(made) > 20
    assert all(len(re.findall(r"(?:dog|very|number|old|came|home|the)\b", text, re.I)) >= 20 for text in made)
    assert all(len(text.split()) <= 30 + 8 for text in made)  # with the words between the clauses
    assert all(len(re.findall(r"[.!?]", text)) == 1 and text.endswith(".") for text in made)
    assert all(text[0] == "T" and "T" not in text[1:] for text in made)
    plain = ["It is a very old dog.", "She has seen all of it now."] * 400
    assert (
        len(list(linked(plain, "en", (20, 30), random.Random(2)))) > 100
    )  # none is stuck when it is nearly full
    chinese = list(linked(["我们今天回家了。"] * 50, "zh", (20, 30), random.Random(1)))
    assert all(20 <= len(re.findall(r"[\u4e00-\u9fff]", text)) <= 36 and text[-1] == "。" for text in chinese)


def test_names_fill_every_slot_and_are_no_names_of_the_tests() -> None:
    names = NameSentences("")
    for make in (names.english, names.chinese):
        sentences = [make(random.Random(k)) for k in range(300)]
        assert sentences == [make(random.Random(k)) for k in range(300)]
        assert not any(re.search(r"[{}|]", sentence) for sentence in sentences)
        assert len(set(sentences)) > 280
    every = NameSentences(
        "".join(f"{given}{name}".lower() for given in name_lists.GIVEN for name in ("Abbott",))
    )
    assert not any(every.english_name(random.Random(k)).split()[-1] == "Abbott" for k in range(2000))
    assert any(
        name[:2] in name_lists.FU_XING for k in range(50) if (name := names.chinese_name(random.Random(k)))
    )


def test_phrases_are_short() -> None:
    for k in range(100):
        assert len(short_phrase(random.Random(k), "en").split()) <= 20
        assert len(key(short_phrase(random.Random(k), "zh"))) <= 30


def test_shares_leave_room_for_running_text() -> None:
    found = shares(Settings.default())
    assert 0 < sum(found.values()) < 0.8
    assert found["zh words"] > found["en words"]
    assert all(share >= 0 for share in found.values())


class FakePrograms:
    """Stands for the prepare environment: a dictionary of three words, and letters for phonemes."""

    def __call__(self, _python: Path, module: str, options: Sequence[object]) -> None:
        values = dict(zip(options[::2], options[1::2], strict=True))
        out = Path(str(values["--out"]))
        if module.endswith("lexicon"):
            out.write_text("zh\t拽着\t9\nzh\t撇嘴\t9\nen\tzephyr\t0\n", "utf-8")
            return
        rows = [json.loads(line) for line in Path(str(values["--texts"])).read_text("utf-8").splitlines()]
        lines = [json.dumps({"text": row["text"], "phonemes": _letters(row)}) for row in rows]
        (out / "phonemes-00.jsonl").write_text("".join(f"{line}\n" for line in lines), "utf-8")


def _letters(row: dict[str, list[str]]) -> str:
    return " ".join(row["syllables"]) or str(row["text"]).lower()


@pytest.fixture
def prepared(
    tmp_path: Path, vocabulary: list[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, TextSources]:
    """A WORK with a table, and running text of which the table has some."""
    rng = random.Random(3)
    nouns = "dog cat bird horse teacher doctor baker child river house garden window bridge".split()
    verbs = "sees likes finds hears paints follows misses draws".split()
    english = sorted(
        {f"The {rng.choice(nouns)} {rng.choice(verbs)} the old {rng.choice(nouns)}." for _ in range(900)}
    )
    subjects, objects = "我你他她谁", "书花车狗猫茶树门水船"
    chinese = [f"{a}们今天{verb}了一{c}。" for a in subjects for verb in "买卖看画送找" for c in objects]
    lists = tmp_path / "sentences"
    lists.mkdir()
    (lists / "sent_en.txt").write_text("\n".join(english), "utf-8")
    (lists / "sent_zh.txt").write_text("\n".join(chinese), "utf-8")
    work = tmp_path / "work"
    table(work / "text", vocabulary, [*english[:50], *chinese[:50]])
    (work / "text" / "held_out.jsonl").write_text(
        json.dumps({"lang": "en", "text": english[60]}) + "\n", "utf-8"
    )
    tests = tmp_path / "tests.jsonl"
    they = next(
        sentence for sentence in chinese[50:] if sentence.startswith("他们")
    )  # sounds like one with 她们
    tests.write_text(json.dumps({"text": they}, ensure_ascii=False) + "\n", "utf-8")
    monkeypatch.setattr(append, "run_program", FakePrograms())
    monkeypatch.setattr(text, "run_program", FakePrograms())
    monkeypatch.setattr(append.packages, "fetch", lambda *_: None)
    monkeypatch.setattr(append, "teacher_alphabet", lambda _: ALPHABET)
    # a tiny list has no words that stand between various others
    monkeypatch.setattr(
        append, "tone_contrast", lambda rng, words: f"{rng.choice('买卖')}，{rng.choice('书树')}。"
    )
    monkeypatch.setattr(append, "short_chinese", lambda rng, words: f"{rng.choice(objects)}。")
    return work, TextSources(tmp_path, Path("python"), lists, (tests,))


def test_append_adds_new_utterances_and_repeats_from_the_seed(prepared: tuple[Path, TextSources]) -> None:
    work, sources = prepared
    before, first = load_file(work / "text" / "jobs.safetensors"), Jobs(work / "text")
    saved = {path: path.read_bytes() for path in (work / "text").iterdir()}
    assert append_text(Settings.tiny(), work, sources, 60, 1) == 160
    after, jobs = load_file(work / "text" / "jobs.safetensors"), Jobs(work / "text")
    assert all(np.array_equal(after[name][: len(values)], values) for name, values in before.items())
    assert (jobs.vocabulary, jobs.voices, jobs.speakers) == (first.vocabulary, first.voices, first.speakers)
    assert set(jobs.speaker[100:].tolist()) == {0, 1, 2}
    encoder, heard = SpellingEncoder(jobs.vocabulary), Heard(first)
    added = [jobs.ids(job).tolist() for job in range(100, 160)]
    assert all(heard.is_new(ids) for ids in added)  # neither in the table nor twice in what was added
    kept_out = [
        json.loads(path.read_text("utf-8"))["text"]
        for path in (work / "text" / "held_out.jsonl", *sources.exclude)
    ]
    assert not any(heard.has(encoder.ids(kept)) for kept in kept_out)
    symbols = {jobs.vocabulary[number] for ids in added for number in ids}
    assert {"z_zhuai1", "z_pie3"} & symbols

    for path, content in saved.items():
        path.write_bytes(content)
    once = after["teacher_ids"].tobytes()
    append_text(Settings.tiny(), work, sources, 60, 1)
    assert load_file(work / "text" / "jobs.safetensors")["teacher_ids"].tobytes() == once
    assert append_text(Settings.tiny(), work, sources, 20, 1) == 180  # and on from there, other ones
    later = Jobs(work / "text")
    assert all(heard.is_new(later.ids(job).tolist()) for job in range(160, 180))


def test_append_refuses_what_it_cannot_do_and_leaves_the_table(prepared: tuple[Path, TextSources]) -> None:
    work, sources = prepared
    before = (work / "text" / "jobs.safetensors").read_bytes()
    with pytest.raises(RecipeError, match="--append 0"):
        append_text(Settings.tiny(), work, sources, 0)
    with pytest.raises(RecipeError, match="--vocabulary"):
        append_text(Settings.tiny(), work, replace(sources, vocabulary=TOKENIZER), 5)
    running_only = replace(
        Settings.tiny(),
        append=AppendSettings(
            names=0.0, words=0.0, long=0.0, numbers=0.0, switched=0.0, short=0.0, tones=0.0
        ),
    )
    with pytest.raises(RecipeError, match=r"only .* new utterances"):
        append_text(running_only, work, sources, 3000)
    assert (work / "text" / "jobs.safetensors").read_bytes() == before


def test_running_text_is_drawn_lazily() -> None:
    assert (
        len(list(islice(linked(iter(["It is a very old dog."] * 999), "en", (10, 20), random.Random(0)), 5)))
        == 5
    )
