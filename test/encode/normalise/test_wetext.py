from __future__ import annotations

import threading

import pytest
import wetext

from light_tts.encode.normalise.wetext import Verbaliser


@pytest.fixture(scope="module")
def verbaliser() -> Verbaliser:
    return Verbaliser()


@pytest.mark.parametrize(
    ("text", "language", "words"),
    [
        ("下午3:30开会", "zh", "下午三点三十分开会"),
        ("3 lbs", "en", "three pounds"),
        ('say "5"', "en", 'say "five"'),
        ("a\\b 5", "en", "a\\b five"),
    ],
)
def test_whole_texts_are_read(verbaliser: Verbaliser, text: str, language: str, words: str) -> None:
    assert verbaliser.whole(text, language) == words


@pytest.mark.parametrize("text", ["#5", "", "±5", "\ud800 5", "₹500", "\x00"])
def test_what_it_cannot_read_comes_back(verbaliser: Verbaliser, text: str) -> None:
    assert verbaliser.whole(text, "en") == text


@pytest.mark.parametrize(
    ("text", "language", "words"),
    [
        ("add 20mol now", "en", "add twenty moles now"),
        ("加20mol吧", "zh", "加二十摩尔吧"),
        ("add 3mAh now", "en", "add 3mAh now"),
        ("加3mcg吧", "zh", "加3mcg吧"),
        ("5apples", "en", "5apples"),
    ],
)
def test_only_measures_that_it_knows_are_replaced(
    verbaliser: Verbaliser, text: str, language: str, words: str
) -> None:
    assert verbaliser.units(text, language) == words


def test_grammars_are_loaded_once_and_only_when_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    class Slow:
        def __init__(self, lang: str, **_: object) -> None:
            made.append(lang)

        def normalize(self, text: str) -> str:
            return text.upper()

    monkeypatch.setattr(wetext, "Normalizer", Slow)
    verbaliser = Verbaliser()
    assert not made
    threads = [threading.Thread(target=verbaliser.whole, args=("a", "en")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == ["en"]
