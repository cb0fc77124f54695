"""Normalised text cut into segments that the language model speaks in one go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from math import ceil

import regex

from light_tts.encode.normalise.english_words import BEFORE_NUMBER, NEVER_LAST

MIN_LAST, MIN_PIECE, TARGET_PIECE = 20, 60, 80
"""Segment lengths, in characters for Chinese and in tokens otherwise. A segment ends when it is over MIN_PIECE and the
next sentence would take it over TARGET_PIECE; a last segment under MIN_LAST joins the one before it."""

_CLOSERS = r"[\"'”’)\]}）】」』》〉]*"
_END = regex.compile(rf"(?P<marks>[.?!;:。？！；：、…]+){_CLOSERS}\s*")
_ENGLISH_MARKS = frozenset(".?!;:…。？！")
_WORD_BEFORE = regex.compile(r"(?<![\p{L}\p{N}])[\p{L}.]*\p{L}$")
_WORD = regex.compile(r"[\p{L}\p{N}\p{Co}]")  # Co: a word of the user's lexicon
_ENDED = regex.compile(rf"[.?!。？！…]{_CLOSERS}$")
_LOOSE_END = regex.compile(r"[\s,，、;；:：\-–—]+$")
_PHRASE = regex.compile(r"[^,，、;；:：。.!?！？…]*[,，、;；:：。.!?！？…]+\s*|[^,，、;；:：。.!?！？…]+")
_SPACED_WORD = regex.compile(r"\S+\s*|\s+")


def split(text: str, chinese: bool, count_tokens: Callable[[str], int], max_tokens: int) -> list[str]:
    """Segments of `text`, cut after sentence marks, none above max_tokens tokens.

    Adjacent marks stay together, and no cut is made inside decimals, times, abbreviations and addresses. A sentence
    that is too long is cut at commas, else at spaces, else anywhere. Parts without a letter or digit are left out.
    """
    length = len if chinese else count_tokens
    pieces = _merge((sentence, length(sentence)) for sentence in sentences(text, chinese))
    if pieces:
        pieces[-1] = _closed(pieces[-1], chinese)
    segments = (
        segment.strip() for piece in pieces for segment in cap(piece.strip(), count_tokens, max_tokens)
    )
    return [segment for segment in segments if _WORD.search(segment)]


def sentences(text: str, chinese: bool) -> list[str]:
    """`text` cut after sentence marks; joined, the parts are the text again."""
    parts, start = [], 0
    for match in _END.finditer(text):
        if _ends_sentence(match, chinese):
            parts.append(text[start : match.end()])
            start = match.end()
    return [*parts, text[start:]] if start < len(text) else parts


def _ends_sentence(match: regex.Match[str], chinese: bool) -> bool:
    """The marks end a sentence, rather than belonging to a number, an abbreviation or an address."""
    marks = match["marks"]
    if not marks.isascii():
        return chinese or not _ENGLISH_MARKS.isdisjoint(marks)
    following = match.string[match.end() : match.end() + 1]
    glued = match.end() == match.end("marks") and following.isascii() and following != ""
    if glued:
        return marks[-1] in "?!" and not following.islower() and following not in "/@_-%"
    return marks != "." or not following or not _is_abbreviation(match, following)


def _is_abbreviation(match: regex.Match[str], following: str) -> bool:
    before = _WORD_BEFORE.search(match.string[max(0, match.start() - 24) : match.start()])
    if before is None:
        return False
    word = before.group()
    if following.isdigit():
        return word in BEFORE_NUMBER or word in NEVER_LAST
    return word in NEVER_LAST or "." in word or (len(word) == 1 and word.isupper() and word != "I")


def _merge(parts: Iterable[tuple[str, int]]) -> list[str]:
    pieces: list[str] = []
    current, length = "", 0
    for part, part_length in parts:
        if length + part_length > TARGET_PIECE and length > MIN_PIECE:
            pieces.append(current)
            current, length = "", 0
        current, length = current + part, length + part_length
    if pieces and length < MIN_LAST:
        pieces[-1] += current
    elif current:
        pieces.append(current)
    return pieces


def _closed(piece: str, chinese: bool) -> str:
    """With a full stop, unless it ends in a mark that ends a sentence."""
    piece = piece.rstrip()
    if _ENDED.search(piece[-20:]) or not _WORD.search(piece):
        return piece
    return _LOOSE_END.sub("", piece) + ("。" if chinese else ".")


def cap(piece: str, count_tokens: Callable[[str], int], max_tokens: int) -> Iterator[str]:
    """Parts of `piece` of at most max_tokens tokens and of about the same length; joined, they are `piece` again."""
    total = count_tokens(piece)
    if total <= max_tokens:
        yield piece
        return
    target = ceil(total / ceil(total / max_tokens))
    current, length = "", 0
    for atom, atom_length in _atoms(piece, count_tokens, max_tokens):
        limit = target if length > target // 2 else max_tokens
        if current and length + atom_length > limit:
            yield current
            current, length = "", 0
        current, length = current + atom, length + atom_length
    if current:
        yield current


def _atoms(piece: str, count_tokens: Callable[[str], int], max_tokens: int) -> Iterator[tuple[str, int]]:
    """Phrases between commas; of one that is long, the words; of a long word, runs of letters."""
    for phrase in _PHRASE.findall(piece):
        num_tokens = count_tokens(phrase)
        if num_tokens <= max_tokens // 2:
            yield phrase, num_tokens
            continue
        for word in _SPACED_WORD.findall(phrase):
            yield from _runs(word, count_tokens, max_tokens // 4)


def _runs(word: str, count_tokens: Callable[[str], int], max_tokens: int) -> Iterator[tuple[str, int]]:
    num_tokens = count_tokens(word)
    if num_tokens <= max_tokens or len(word) == 1:
        yield word, num_tokens
        return
    size = max(1, len(word) * max_tokens // num_tokens)
    for start in range(0, len(word), size):
        yield from _runs(word[start : start + size], count_tokens, max_tokens)
