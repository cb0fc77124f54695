"""Utterances that running text lacks: single words, words that differ in tone alone, and series of them."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

_HAN_RUN = re.compile(r"[\u4e00-\u9fff]+")
_MIN_COUNT = 4  # occurrences that make a word of the sentences a common one
_COHESION = 40  # times as often together as chance would have it
_MIN_NEIGHBOURS = 4
_FIXED_ENGLISH = (
    "Yes|No|Hello|Thanks|Thank you|Okay|Really|Good morning|Good night|Goodbye|Sorry|Please|Never|Maybe|Of course"
    "|Certainly|Exactly|Absolutely|Wait|Stop|Listen|Help|Welcome|Congratulations|Why|When|Where|Who|What|How much"
    "|Come in|Sit down|Not yet|Right now|Excuse me|I see|You too|Me neither|Cheers|Wonderful|Perfect|Great|Sure"
)
_FIXED_CHINESE = (
    "你好|谢谢|再见|对不起|没关系|是的|不是|好的|可以|不行|请问|为什么|什么时候|在哪儿|真的吗|早上好|晚安|欢迎|当然"
    "|太好了|等一下|快点|小心|加油|没问题|不客气|知道了|明天见|好久不见|恭喜|干杯|走吧|来了|好|对|行|嗯|不|有|没有|谁"
)
_NUMERALS = "zero one two three four five six seven eight nine ten eleven twelve twenty thirty hundred thousand".split()
_TONES = ("{a}，{b}。", "我说的是{a}，不是{b}。", "是{a}还是{b}？", "{a}和{b}不一样。", "先说{a}，再说{b}。")


@dataclass(frozen=True, slots=True)
class Words:
    """english, chinese: common words; tone_groups: words of the same syllables that differ in tone."""

    english: list[str]
    chinese: list[str]
    tone_groups: list[list[str]]


def common_words(english: Sequence[str], chinese: Sequence[str]) -> Words:
    """Words of the sentences.

    Chinese ones are pairs of characters that occur together far more often than apart, between various others:
    half of a longer word always has the same neighbour.
    """
    counted = Counter(
        word for line in english for word in re.findall(r"(?<![\w'-])[a-z]{3,}(?![\w'-])", line)
    )
    single, pairs, neighbours = _characters(chinese)
    total = sum(single.values())
    words = sorted(
        pair
        for pair, count in pairs.items()
        if count >= _MIN_COUNT
        and count * total >= _COHESION * single[pair[0]] * single[pair[1]]
        and min(len(side) for side in neighbours[pair]) >= _MIN_NEIGHBOURS
    )
    alone = sorted(
        char for char, count in single.items() if count >= 10 * _MIN_COUNT and _has_one_reading(char)
    )
    groups: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for word in [*words, *alone]:
        reading = _reading(word)
        groups[re.sub(r"\d", "", reading)].setdefault(reading, word)  # one word for each tone
    return Words(
        sorted(word for word, count in counted.items() if count >= _MIN_COUNT),
        words,
        [list(group.values()) for _, group in sorted(groups.items()) if len(group) > 1],
    )


def _characters(
    chinese: Sequence[str],
) -> tuple[Counter[str], Counter[str], dict[str, tuple[set[str], set[str]]]]:
    """How often single characters and pairs occur, and what stands before and after each pair."""
    single: Counter[str] = Counter()
    pairs: Counter[str] = Counter()
    neighbours: defaultdict[str, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
    for line in chinese:
        for run in _HAN_RUN.findall(line):
            single.update(run)
            for k in range(len(run) - 1):
                pair = run[k : k + 2]
                pairs[pair] += 1
                before, after = neighbours[pair]
                before.add(run[k - 1] if k else "")
                after.add(run[k + 2] if k + 2 < len(run) else "")
    return single, pairs, neighbours


def short_english(rng: random.Random, words: Words) -> str:
    """One word or a set phrase, in a third of the cases a number, or a series of two or three words."""
    kind = rng.random()
    if kind < 0.3:
        return _finished(rng, rng.choice(_FIXED_ENGLISH.split("|")), ".!?")
    if kind < 0.45:
        return _finished(rng, ", ".join(rng.choices(_NUMERALS, k=rng.randint(1, 4))).capitalize(), ".")
    series = rng.choices(words.english, k=1 if kind < 0.85 else rng.randint(2, 3))
    return _finished(rng, ", ".join(series).capitalize(), ".?")


def short_chinese(rng: random.Random, words: Words) -> str:
    """One word or a set phrase, or a series of two or three words."""
    kind = rng.random()
    if kind < 0.3:
        return _finished(rng, rng.choice(_FIXED_CHINESE.split("|")), "。！？")
    return _finished(
        rng, "，".join(rng.choices(words.chinese, k=1 if kind < 0.8 else rng.randint(2, 3))), "。？"
    )


def tone_contrast(rng: random.Random, words: Words) -> str:
    """Two to four words of the same syllables: only the tones tell them apart."""
    group = rng.choice(words.tone_groups)
    chosen = rng.sample(group, k=min(len(group), rng.choice((2, 2, 3, 4))))
    if len(chosen) > 2 or rng.random() < 0.3:
        return "，".join(chosen) + "。"
    return rng.choice(_TONES).format(a=chosen[0], b=chosen[1])


def _finished(rng: random.Random, text: str, marks: str) -> str:
    return text + (marks[0] if rng.random() < 0.7 else rng.choice(marks))


def _has_one_reading(char: str) -> bool:
    """Alone, nobody can know which of several readings is meant."""
    from pypinyin.pinyin_dict import pinyin_dict

    return "," not in pinyin_dict.get(ord(char), ",")


def _reading(word: str) -> str:
    """Syllables with tone numbers, as the product reads them."""
    from pypinyin import Style, lazy_pinyin

    return " ".join(lazy_pinyin(word, style=Style.TONE3, neutral_tone_with_five=True, v_to_u=True))
