"""The user's lexicon: words with the respelling or the sounds that they are to be spoken with.

A UTF-8 file, one `word<TAB>respelling` or `word<TAB>/sounds/` a line; sounds are pinyin with tone numbers
(/chong2 qing4/) or ARPAbet with stress (/K UW1 B/). Empty lines and lines that begin with # say nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import regex

from light_tts.encode.normalise.clean import clean
from light_tts.errors import InvalidInput

MAX_BYTES, MAX_ENTRIES, MAX_WORD, MAX_READING = 1_000_000, 10_000, 64, 200

_VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW".split()
_CONSONANTS = frozenset("B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH".split())
_PHONES = _CONSONANTS | {vowel + stress for vowel in _VOWELS for stress in "012"}
_PINYIN = re.compile("[a-zü]{1,6}[1-5]")
_SPEAKABLE = regex.compile(r"[\p{L}\p{N}]")
_WORDY = regex.compile(r"[\p{Latin}\p{N}\p{M}_@]")
_POSSESSIVE = re.compile(r"'s(?![A-Za-z0-9])")
# Characters of private use stand for words with sounds; `clean` has taken those of users out of the text.
_FIRST_MARKER, _FIRST_POSSESSIVE = 0xF0000, 0xF8000
_MARKER = re.compile("([\U000f0000-\U000ffffd])")


class InvalidLexicon(InvalidInput):
    """The lexicon file cannot be used; the message says which line and why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One word. respelling: text in its place; sounds: pinyin or ARPAbet. Exactly one of them is not empty."""

    word: str
    line: int
    respelling: str = ""
    sounds: tuple[str, ...] = ()

    @property
    def ignores_case(self) -> bool:
        """A word in small letters means every spelling, one with capitals only itself."""
        return self.word == self.word.lower()

    @property
    def is_english(self) -> bool:
        """The sounds end in English, so 's may follow."""
        return self.sounds[-1:] != () and self.sounds[-1] in _PHONES


class Lexicon:
    """Finds whole words in text. Chinese words are found anywhere, the longest first. Safe to share by threads."""

    def __init__(self, entries: Iterable[Entry] = (), source: str = "lexicon") -> None:
        """source: the file's name, for messages. Raises InvalidLexicon for a word that is there twice."""
        self.entries = tuple(entries)
        self.source = source
        self._exact: dict[str, int] = {}
        self._folded: dict[str, int] = {}
        lengths: dict[str, set[int]] = {}
        for index, entry in enumerate(self.entries):
            words = self._folded if entry.ignores_case else self._exact
            if entry.word in words:
                first = self.entries[words[entry.word]].line
                raise InvalidLexicon(f"{source}:{entry.line}: {entry.word!r} is already in line {first}")
            words[entry.word] = index
            lengths.setdefault(entry.word[0].lower(), set()).add(len(entry.word))
        self._lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}

    @classmethod
    def read(cls, path: Path) -> Lexicon:
        """Read and check a file. Raises InvalidLexicon, which names file and line."""
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise InvalidLexicon(f"{path} cannot be read: {error.strerror}") from error
        if len(raw) > MAX_BYTES:
            raise InvalidLexicon(f"{path} has more than {MAX_BYTES} bytes, which is the limit")
        entries: list[Entry] = []
        for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
            try:
                entry = _parse(line.decode("utf-8").rstrip("\r"), number)
            except UnicodeDecodeError as error:
                raise InvalidLexicon(
                    f"{path}:{number}: no UTF-8: byte {error.start + 1} of the line"
                ) from error
            except InvalidLexicon as error:
                raise InvalidLexicon(f"{path}:{number}: {error}") from error
            if entry is not None:
                entries.append(entry)
            if len(entries) > MAX_ENTRIES:
                raise InvalidLexicon(f"{path}:{number}: more than {MAX_ENTRIES} words, which is the limit")
        return cls(entries, str(path))

    def apply(self, text: str) -> str:
        """Cleaned `text` with respellings in place of words; a word with sounds becomes one marker character."""
        if not self.entries:
            return text
        parts: list[str] = []
        copied = at = 0
        while at < len(text):
            found = self._at(text, at)
            if found is None:
                at += 1
                continue
            index, length = found
            entry, end = self.entries[index], at + length
            reading = entry.respelling
            if entry.sounds:
                possessive = _POSSESSIVE.match(text, end) if entry.is_english else None
                end += len(possessive.group()) if possessive else 0
                reading = chr((_FIRST_POSSESSIVE if possessive else _FIRST_MARKER) + index)
            parts += [text[copied:at], reading]
            copied = at = end
        return "".join(parts) + text[copied:]

    def written(self, text: str) -> str:
        """`text` with the words themselves in place of markers, for people to read."""
        return _MARKER.sub(lambda match: self._word(match.group()), text) if self.entries else text

    def parts(self, text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Text between markers, and the sounds of markers: one of the two is empty."""
        for part in _MARKER.split(text):
            if len(part) == 1 and _MARKER.match(part):
                yield "", self._sounds(part)
            elif part:
                yield part, ()

    def _at(self, text: str, start: int) -> tuple[int, int] | None:
        """Index and length of the longest entry that stands, as a whole word, at `start`."""
        for length in self._lengths.get(text[start].lower(), ()):
            word = text[start : start + length]
            index = self._exact.get(word)
            if index is None:
                index = self._folded.get(word.lower())
            if index is not None and len(word) == length and _is_whole(text, start, start + length):
                return index, length
        return None

    def _word(self, marker: str) -> str:
        code = ord(marker)
        possessive = code >= _FIRST_POSSESSIVE
        index = code - (_FIRST_POSSESSIVE if possessive else _FIRST_MARKER)
        return self.entries[index].word + ("'s" if possessive else "") if index < len(self.entries) else ""

    def _sounds(self, marker: str) -> tuple[str, ...]:
        code = ord(marker)
        index = code - (_FIRST_POSSESSIVE if code >= _FIRST_POSSESSIVE else _FIRST_MARKER)
        if index >= len(self.entries):
            return ()
        sounds = self.entries[index].sounds
        return sounds if code < _FIRST_POSSESSIVE else (*sounds, *_possessive(sounds[-1]))


def _is_whole(text: str, start: int, end: int) -> bool:
    """No letter or digit goes on at either end, and the word is no part of an address. Han needs no borders."""
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    if _WORDY.match(text[start]) and (_WORDY.match(before[-1:]) or _joined(before[::-1])):
        return False
    if not _WORDY.match(text[end - 1]):
        return True
    return not (_WORDY.match(after[:1]) or (_joined(after) and not _POSSESSIVE.match(text, end)))


def _joined(beside: str) -> bool:
    """A point, slash or apostrophe with a letter after it, seen from the word."""
    return len(beside) == 2 and beside[0] in ".'/:" and _WORDY.match(beside[1]) is not None


def _possessive(last: str) -> tuple[str, ...]:
    if last in ("S", "Z", "SH", "CH", "JH", "ZH"):
        return ("IH0", "Z")
    return ("S",) if last in ("P", "T", "K", "F", "TH") else ("Z",)


def _parse(line: str, number: int) -> Entry | None:
    if not line.strip() or line.startswith("#"):
        return None
    fields = line.split("\t")
    if len(fields) != 2:
        raise InvalidLexicon(
            f"{len(fields) - 1} tabs, expected one: word<TAB>respelling or word<TAB>/sounds/"
        )
    word, reading = (clean(field.replace("\n", " ")).strip() for field in fields)
    for name, value, limit in (("word", word, MAX_WORD), ("respelling", reading, MAX_READING)):
        if not _SPEAKABLE.search(value):
            raise InvalidLexicon(f"the {name} {value[:20]!r} has no letter or digit")
        if len(value) > limit:
            raise InvalidLexicon(f"the {name} has {len(value)} characters, the limit is {limit}")
    if not reading.startswith("/"):
        return Entry(word, number, respelling=reading)
    if len(reading) < 3 or not reading.endswith("/"):
        raise InvalidLexicon(f"sounds begin and end with /, found {reading[:40]!r}")
    sounds = tuple(sound.replace("u:", "ü") for sound in reading[1:-1].split())
    for sound in sounds:
        if sound not in _PHONES and not _PINYIN.fullmatch(sound):
            raise InvalidLexicon(
                f"{sound[:20]!r} is no sound: pinyin with its tone (chong2) or ARPAbet, vowels with stress (UW1)"
            )
    return Entry(word, number, sounds=sounds)
