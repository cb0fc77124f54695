"""Sentences of several clauses made from short ones, and sentences around single words."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence

_HAN = re.compile(r"[\u4e00-\u9fff]")
_MIN_CLAUSE = {"en": 6, "zh": 7}  # words, characters
_LINKS = {
    "en": (", and ", ", and ", ", but ", ", so ", ", while ", " because ", ", then ", ", although ", "; "),
    "zh": ("，", "，", "，", "，而且", "，所以", "，可是", "，然后", "，因为", "；"),
}
# Written small inside a sentence; other first words may be names.
_PLAIN_STARTS = frozenset(
    "the a an he she it we they you this that these those there my your his her our their its some many most "
    "all each every one two no nobody everyone if when while after before in on at by for from with what how "
    "why where who is are was were do does did can could will would please let not as to of".split()
)
_WORD_FRAMES = {
    "en": (
        "{a}.",
        "{a}, {b}.",
        "{a}, {b} and {c}.",
        "{a}, {b}, {c}.",
        "The word is {a}.",
        "Please write {a}, and then {b}.",
        "How do you spell {a}?",
        "I said {a}, not {b}.",
        "She read the words {a}, {b} and {c} aloud.",
        'What does "{a}" mean?',
        "Between {a} and {b} there was only {c}.",
        "He talked about {a} and {b} all evening.",
        "Is it {a} or {b}?",
    ),
    "zh": (
        "{a}。",
        "{a}，{b}。",
        "{a}、{b}、{c}。",
        "{a}，{b}，{c}。",
        "请再说一遍：{a}。",
        "“{a}”是什么意思？",
        "我说的是“{a}”，不是“{b}”。",
        "书上写着“{a}”和“{b}”。",
        "老师在黑板上写了“{a}”、“{b}”和“{c}”。",
        "“{a}”怎么写？",
        "他一直在说“{a}”，没有说“{b}”。",
        "这几个词是：{a}，{b}，{c}。",
        "先读“{a}”，再读“{b}”。",
    ),
}


def linked(
    sentences: Iterable[str], language: str, size: tuple[int, int], rng: random.Random
) -> Iterator[str]:
    """Long sentences, each from as many statements of `sentences` as it takes, very short ones apart, until those end.

    size: (least, most) words of an English sentence, characters of a Chinese one
    """
    clauses: list[str] = []
    length, wanted = 0, rng.randint(*size)
    for sentence in sentences:
        own = _size(sentence, language)
        if not _is_statement(sentence) or not _MIN_CLAUSE[language] <= own <= size[1]:
            continue
        if length >= wanted or length + own > size[1]:
            if length >= size[0]:
                yield _link(clauses, language, rng)
            clauses, length, wanted = [], 0, rng.randint(*size)
        clauses.append(sentence)
        length += own


def around_words(words: Sequence[str], language: str, rng: random.Random) -> Iterator[str]:
    """Sentences that say the words in their order, one to three in each."""
    frames = _WORD_FRAMES[language]
    place = 0
    while place < len(words):
        frame = rng.choice(frames)
        here = dict(zip("abc", [*words[place : place + 3], *words[:2]], strict=False))
        text = frame.format(**here)
        yield text[0].upper() + text[1:]
        place += sum(slot in frame for slot in ("{a}", "{b}", "{c}"))


def _size(sentence: str, language: str) -> int:
    return len(_HAN.findall(sentence)) if language == "zh" else len(sentence.split())


def _is_statement(sentence: str) -> bool:
    """One sentence with a full stop that can stand inside another."""
    body = sentence[:-1]
    return sentence[-1:] in (".", "。") and not re.search(r"[.!?;:\"。！？；：“”《》]", body)


def _link(clauses: Sequence[str], language: str, rng: random.Random) -> str:
    text = clauses[0][:-1]
    for clause in clauses[1:]:
        text += rng.choice(_LINKS[language]) + _inside(clause)[:-1]
    return text + clauses[0][-1]


def _inside(clause: str) -> str:
    first = re.split(r"[\s']", clause, maxsplit=1)[0]
    return clause[0].lower() + clause[1:] if first.lower() in _PLAIN_STARTS else clause
