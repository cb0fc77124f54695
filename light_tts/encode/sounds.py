"""Sounds of the lexicon, pinyin with tone numbers and ARPAbet, as tokens of a model."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from itertools import groupby

from light_tts.encode.pronunciation import single_phonemes, syllables

_TONES = {"a": "āáǎà", "e": "ēéěè", "i": "īíǐì", "o": "ōóǒò", "u": "ūúǔù", "ü": "ǖǘǚǜ"}
_INITIALS = "zh ch sh b p m f d t n l g k h j q x r z c s y w".split()


def is_pinyin(sound: str) -> bool:
    return sound[0].islower()


def phonetic_symbols(sounds: Sequence[str], vocabulary: Container[str]) -> list[str]:
    """Symbols of the bundled voice. Raises KeyError with a sound that it has no symbol for."""
    symbols: list[str] = []
    for pinyin, group in groupby(sounds, key=is_pinyin):
        run = list(group)
        parts = [f"z_{sound.replace('ü', 'v')}" for sound in run] if pinyin else syllables(run)
        for part in parts:
            known = [part] if part in vocabulary or pinyin else single_phonemes(part)
            missing = next((symbol for symbol in known if symbol not in vocabulary), None)
            if missing is not None:
                raise KeyError(missing.partition("_")[2])
            symbols += known
    return symbols


def bracketed_tokens(sounds: Sequence[str], tokens: Container[str]) -> Iterator[str]:
    """CosyVoice3's tokens: [K] [UW1], and for pinyin initial and final, [ch] [óng]. Raises KeyError as above."""
    for sound in sounds:
        for part in _initial_and_final(sound) if is_pinyin(sound) else [sound]:
            if f"[{part}]" not in tokens:
                raise KeyError(sound)
            yield f"[{part}]"


def _initial_and_final(syllable: str) -> list[str]:
    """ "chong2" -> ["ch", "óng"], "er2" -> ["ér"]."""
    letters, tone = syllable[:-1].replace("v", "ü"), int(syllable[-1])
    initial = next((start for start in _INITIALS if letters.startswith(start)), "")
    final = letters.removeprefix(initial)
    if tone == 5 or not final:
        return [part for part in (initial, final) if part]
    # The mark stands on a, o or e, else on the last vowel: iu and ui alike.
    vowel = next((v for v in "aoe" if v in final), None) or next(
        (v for v in reversed(final) if v in _TONES), final[-1]
    )
    marked = _TONES[vowel][tone - 1] if vowel in _TONES else vowel
    at = final.rfind(vowel)
    final = final[:at] + marked + final[at + 1 :]
    return [part for part in (initial, final.replace("üè", "vè")) if part]
