"""What the symbols of the text front end have in common: the factors of the embedding in training.

A symbol names its own parts: `z_zhang1` a syllable with tone, `e_S_T_R_EH1` onset and vowel with stress,
`c_NG_K_TH_S` a coda, `l_x` a letter, and punctuation. Symbols that are rare in the corpus learn from those that
share their parts with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

_INITIALS = "zh ch sh b p m f d t n l g k h j q x r z c s".split()  # longest first where one begins another
_ROUNDED = frozenset("jqx")  # after these, u is the sound that is written v elsewhere
_BUZZED = {initial: f"i after {kind}" for kind in ("z c s", "zh ch sh r") for initial in kind.split()}
_CONTRACTED = {"iou": "iu", "uei": "ui", "uen": "un", "ueng": "ong"}


def symbol_features(symbol: str) -> list[str]:
    """Names of the parts of a symbol; consonants count by their distance from the vowel."""
    kind, _, rest = symbol.partition("_")
    match kind:
        case "z" if rest:
            return _syllable(rest)
        case "e" if rest:
            *onset, vowel = rest.split("_")
            return [f"vowel {vowel[:-1]}", f"stress {vowel[-1]}", *_by_place("onset", reversed(onset))]
        case "c" if rest:
            return ["coda", *_by_place("coda", rest.split("_"))]
    return [symbol]


def feature_table(vocabulary: Sequence[str]) -> tuple[Tensor, int]:
    """Features of each symbol by number.

    vocabulary: symbols in the order of their ids
    Returns (symbols, most features) int64, filled up with 0, which is no feature; and one more than the largest number.
    """
    numbers: dict[str, int] = {}
    rows = [
        [numbers.setdefault(name, len(numbers) + 1) for name in symbol_features(symbol)]
        for symbol in vocabulary
    ]
    table = torch.zeros(len(rows), max((len(row) for row in rows), default=1), dtype=torch.int64)
    for index, row in enumerate(rows):
        table[index, : len(row)] = torch.tensor(row)
    return table, len(numbers) + 1


def _syllable(pinyin: str) -> list[str]:
    base, tone = (pinyin[:-1], pinyin[-1]) if pinyin[-1].isdigit() else (pinyin, "5")
    initial, final = _parts(base)
    # The tone is said on the final: their pair is a feature, so that a tone may sound different on each.
    return [f"initial {initial}", f"final {final}", f"tone {tone}", f"final {final}{tone}"]


def _parts(base: str) -> tuple[str, str]:
    """Initial and final of a syllable without tone, the final as it sounds: y and w only spell the start of one."""
    if base.startswith("yu"):
        return "", "v" + base[2:]
    if base[:1] in ("y", "w"):
        glide = "i" if base[0] == "y" else "u"
        final = base[1:] if base[1:].startswith(glide) else glide + base[1:]
        return "", _CONTRACTED.get(final, final)
    initial = next((name for name in _INITIALS if base.startswith(name)), "")
    final = base[len(initial) :]
    if initial in _ROUNDED and final.startswith("u"):
        return initial, "v" + final[1:]
    return initial, _BUZZED.get(initial, final) if final == "i" else final


def _by_place(name: str, consonants: Iterable[str]) -> list[str]:
    return [f"{name} {place} {consonant}" for place, consonant in enumerate(consonants)]
