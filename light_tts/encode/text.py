"""Request text made ready for the tokenizer: which language, normalised how, cut where."""

from __future__ import annotations

import re
from collections.abc import Callable

import regex

from light_tts.encode import split as product_split
from light_tts.encode.lexicon import Lexicon
from light_tts.encode.normalise import chinese, english, reference
from light_tts.encode.normalise.clean import clean, join_lines
from light_tts.encode.normalise.markup import plain
from light_tts.encode.normalise.wetext import Verbaliser
from light_tts.quirks import ReferenceQuirks

_HAN = re.compile("[\u4e00-\u9fff]")
_FULL_WIDTH_MARKS = "，。！？；：、“”‘’《》（）…"
_LETTERS = regex.compile(r"\p{Han}|[\p{L}--\p{Han}][\p{L}\p{M}'’-]*", flags=regex.V1)
_NO_HAN = regex.compile(rf"[^\p{{Han}}{_FULL_WIDTH_MARKS}]+")
_LATIN_WORD = regex.compile(r"[A-Za-z]{2,}")
_CHINESE_MARKS_ONLY = re.compile("[^A-Za-z]*[，。！？；：、][^A-Za-z]*")
_HAN_RUN = re.compile("[\u4e00-\u9fff]+")
_SMALL_WORD = regex.compile(r"(?<![\p{L}\p{N}'])[a-z]{2,}(?![\p{L}\p{N}])")
_LATIN_ENDS = regex.compile(r"(?s)[^\p{L}\p{N}]*+[A-Za-z].*?[A-Za-z0-9][^\p{L}\p{N}]*+$")
_LANGUAGES = {"zh": "zh", "cmn": "zh", "yue": "zh", "wuu": "zh", "chinese": "zh", "en": "en", "english": "en"}

OTHER = "other"
"""A language whose numbers nobody here can read: they are left to the language model."""


def language_of(text: str, language: str | None = None) -> str:
    """ "zh", "en" or OTHER. language: as the request gives it ("zh-CN"); None or "auto" decides by the text: Chinese if
    there is any Chinese character in it."""
    name = re.split("[-_]", language.lower())[0] if language else "auto"
    if name == "auto":
        return "zh" if _HAN.search(text) or _CHINESE_MARKS_ONLY.fullmatch(text) else "en"
    return _LANGUAGES.get(name, OTHER)


def main_language(text: str) -> str:
    """ "zh" or "en": the language of most of a mixed text. A Chinese character counts as two words in letters, since
    names of products and people stay as they are within Chinese sentences.
    """
    words = _LETTERS.findall(text)
    if not words:
        return language_of(text)
    num_han = sum(_HAN.match(word) is not None for word in words)
    return "zh" if 2 * num_han > len(words) - num_han else "en"


def _without_markup(text: str, tags: re.Pattern[str] | None) -> str:
    parts = tags.split(text) if tags else [text]
    return "".join(part if index % 2 else plain(part) for index, part in enumerate(parts))


def _is_english_with_names(sentence: str) -> bool:
    """An English sentence with a Chinese name in it: it begins and ends in Latin letters, some of them small words."""
    runs = len(_HAN_RUN.findall(sentence))
    if not runs or not _LATIN_ENDS.match(sentence):
        return False
    return len(_SMALL_WORD.findall(sentence)) >= runs and main_language(_HAN_RUN.sub("名", sentence)) == "en"


class TextNormaliser:
    """Reads numbers, signs and abbreviations in words, and cuts text into segments. Safe to share by threads."""

    def __init__(
        self,
        count_tokens: Callable[[str], int],
        quirks: ReferenceQuirks,
        *,
        enabled: bool = True,
        max_segment_tokens: int = 160,
        reference_backend: str = "none",
        lexicon: Lexicon | None = None,
    ) -> None:
        """count_tokens: how long text is for the language model; enabled: False leaves the text as it is written;
        reference_backend: what reads numbers in reference mode, "none" or "wetext"; lexicon: words of the user, in all
        but reference mode."""
        self._count_tokens = count_tokens
        self._quirks = quirks
        self._enabled = enabled
        self._max_segment_tokens = max_segment_tokens
        self._reference_backend = reference_backend
        self._verbaliser = Verbaliser()
        self._lexicon = lexicon or Lexicon()

    def normalise(self, text: str, language: str | None = None, tags: re.Pattern[str] | None = None) -> str:
        """`text` as it is spoken, in one piece. tags: what is no text and stays as it is, in one group."""
        if not self._enabled or self._bypassed(text):
            return text
        if self._quirks.split_inside_numbers:
            return self._as_reference(text)
        spoken = language_of(text, language)
        text = join_lines(clean(_without_markup(text, tags)), spoken == "zh")
        return self._read_around_tags(text, spoken, tags).strip().lstrip(" ，、,")

    def split(self, text: str, language: str | None = None, tags: re.Pattern[str] | None = None) -> list[str]:
        """Segments of `text`, normalised; none if there is nothing to say."""
        normalised = self.normalise(text, language, tags)
        if not self._quirks.split_inside_numbers:
            is_chinese = language_of(text, language) == "zh"
            return product_split.split(normalised, is_chinese, self._count_tokens, self._max_segment_tokens)
        if not self._enabled or self._bypassed(text):
            return [text]
        return reference.split(normalised, reference.is_chinese(text), self._count_tokens)

    def normalise_piece(
        self, piece: str, language: str | None = None, tags: re.Pattern[str] | None = None
    ) -> str:
        """A piece of a text whose rest is not known: spoken alike, but with the punctuation and spaces at its ends."""
        if not self._enabled or self._bypassed(piece):
            return piece
        spoken = language_of(piece, language)
        core = clean(_without_markup(piece, tags)).replace("\n", " ")
        core = self._read_around_tags(core.strip(), spoken, tags)
        lead = " " if piece[:1].isspace() and not _HAN.match(core) else ""
        trail = " " if piece[-1:].isspace() and core and core[-1].isascii() else ""
        return lead + core + trail

    def _bypassed(self, text: str) -> bool:
        return not text or (self._quirks.control_tokens_in_text and "<|" in text and "|>" in text)

    def _as_reference(self, text: str) -> str:
        if self._reference_backend == "none":
            return reference.normalise(text)
        language = "zh" if reference.is_chinese(text) else "en"
        return reference.normalise(text, lambda raw: self._verbaliser.whole(raw, language))

    def _read_around_tags(self, text: str, spoken: str, tags: re.Pattern[str] | None) -> str:
        parts = tags.split(text) if tags else [text]
        return "".join(
            part if index % 2 else self._read(self._lexicon.apply(part), spoken)
            for index, part in enumerate(parts)
        )

    def _read(self, text: str, spoken: str) -> str:
        if spoken == "en":
            return english.read(text, self._verbaliser)
        if spoken != "zh":
            return text
        parts = product_split.sentences(text, True)
        text = "".join(self._read_sentence(part) for part in parts)
        return chinese.read(text, self._verbaliser)

    def _read_sentence(self, sentence: str) -> str:
        """English in a sentence that may be Chinese; the Chinese rules come later, for the whole text."""
        if _is_english_with_names(sentence):
            return english.read(sentence, self._verbaliser)
        return _NO_HAN.sub(self._read_english_run, sentence)

    def _read_english_run(self, match: regex.Match[str]) -> str:
        """An English sentence within Chinese text; a single name with a number belongs to the Chinese around it."""
        run = match.group()
        opened = (
            match.start() == 0 or match.string[match.start() - 1] in _FULL_WIDTH_MARKS or run[0] in ".!?;,"
        )
        closed = match.end() == len(match.string) or match.string[match.end()] in _FULL_WIDTH_MARKS
        closed = closed or run.rstrip()[-1:] in tuple(".!?;,")
        if opened and closed and len(_LATIN_WORD.findall(run)) >= 2:
            return english.read(run, self._verbaliser)
        return run
