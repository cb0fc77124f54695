"""From phonemised sentences to utterances, with the product's front end and a made-up teacher alphabet."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from recipes.mini.errors import RecipeError
from recipes.mini.prepare.jobs import MAX_TEACHER_IDS, Pools, Sentence, SpellingEncoder, make_jobs
from recipes.mini.prepare.vocabulary import read_vocabulary
from recipes.mini.settings import TextSettings

TOKENIZER = Path(__file__).parents[1] / "encode" / "data" / "phonetic" / "tokenizer.json"
ALPHABET = {character: number for number, character in enumerate("_ abcdefghijklmnopqrstuvwxyz.,?!")}
SETTINGS = TextSettings(num_jobs=40, num_speakers=20)


@pytest.fixture(scope="module")
def vocabulary() -> list[str]:
    return read_vocabulary(TOKENIZER)


@pytest.fixture(scope="module")
def encoder(vocabulary: list[str]) -> SpellingEncoder:
    return SpellingEncoder(vocabulary)


def pools(num: int = 80) -> Pools:
    english = [
        Sentence(f"The {word} came home.", "en", f"the {word} came home.") for word in ["dog", "cat"] * num
    ]
    chinese = [Sentence("我们回家了。", "zh", "wo men hui jia le.") for _ in range(2 * num)]
    short = [Sentence("你好！", "zh", "ni hao!") for _ in range(20)]
    return Pools(english, chinese, [(0.25, short)])


def test_jobs_repeat_from_the_seed(encoder: SpellingEncoder) -> None:
    once = make_jobs(pools(), SETTINGS, 5, encoder, ALPHABET)
    assert len(once) == 40
    assert once == make_jobs(pools(), SETTINGS, 5, encoder, ALPHABET)
    assert once != make_jobs(pools(), SETTINGS, 6, encoder, ALPHABET)


def test_supplements_get_their_share_and_text_and_phonemes_stay_together(
    encoder: SpellingEncoder, vocabulary: list[str]
) -> None:
    jobs = make_jobs(pools(), SETTINGS, 5, encoder, ALPHABET)
    letters = {number: character for character, number in ALPHABET.items()}
    spoken = ["".join(letters[number] for number in job.teacher_ids) for job in jobs]
    assert spoken.count("ni hao!") == 10
    for job, phonemes in zip(jobs, spoken, strict=True):
        symbols = [vocabulary[number] for number in job.ids[0]]
        assert symbols.count("z_jia1") == phonemes.count("jia")
        assert symbols.count("e_HH_OW1") == phonemes.count("home")
        assert 0 <= job.speaker < 20
        assert 0.88 <= job.speed <= 1.15


def test_utterances_too_long_for_the_teacher_are_left_out(encoder: SpellingEncoder) -> None:
    long = Sentence("The dog came home.", "en", "a" * (MAX_TEACHER_IDS + 1))
    fits = Sentence("The dog came home.", "en", "a" * MAX_TEACHER_IDS)
    jobs = make_jobs(Pools([], [], [(1.0, [long, fits])]), SETTINGS, 5, encoder, ALPHABET)
    assert [len(job.teacher_ids) for job in jobs] == [MAX_TEACHER_IDS]


def test_words_are_spelled_letter_by_letter_where_chosen(
    encoder: SpellingEncoder, vocabulary: list[str]
) -> None:
    ids = encoder.ids("It's NASA dog, 你好。", spelled=1.0, rng=random.Random(0))
    symbols = [vocabulary[number] for number in ids]
    assert symbols[:3] == ["l_i", "l_t", "l_s"]
    assert symbols[-7:] == ["l_d", "l_o", "l_g", ",", "z_ni3", "z_hao3", "."]
    assert "l_n" not in symbols  # an acronym is letters already
    assert encoder.ids("你好，我们回家。", 1.0, random.Random(0)) == encoder.ids("你好，我们回家。")


def test_every_character_must_be_readable(encoder: SpellingEncoder) -> None:
    assert encoder.reads_all_of("我们回家。")
    assert not encoder.reads_all_of("?!")
    assert encoder.syllables("我们 go 家。") == ["wo3", "men5", "jia1"]


def test_vocabulary_with_gaps_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text('{"model": {"vocab": {"a": 0, "b": 2}}}', "utf-8")
    with pytest.raises(RecipeError, match=r"0\.\.1"):
        read_vocabulary(path)
    path.write_text("[]", "utf-8")
    with pytest.raises(RecipeError, match="no tokenizer"):
        read_vocabulary(path)
