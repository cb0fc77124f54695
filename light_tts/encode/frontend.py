"""Request text to token ids, in segments: what the encode stage hands to the language model."""

from __future__ import annotations

import re
from dataclasses import dataclass

from light_tts.encode.lexicon import InvalidLexicon, Lexicon
from light_tts.encode.special_tokens import END_OF_PROMPT
from light_tts.encode.text import TextNormaliser
from light_tts.encode.tokenizer import TextTokenizer
from light_tts.errors import EmptyText, InvalidInput, TextTooLong
from light_tts.quirks import ReferenceQuirks
from light_tts.request import MAX_PROMPT_CHARS

SYSTEM_PROMPT = f"You are a helpful assistant.{END_OF_PROMPT}"
"""What CosyVoice3 was trained to find before every transcript."""

_ROLE = SYSTEM_PROMPT.removesuffix(END_OF_PROMPT)


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the text that is spoken in one go. num_prefix_ids: how many of the ids are the system prompt's"""

    text: str
    token_ids: list[int]
    num_prefix_ids: int = 0


class TextFrontend:
    """Text of requests to token ids. Safe to share by threads."""

    def __init__(
        self,
        tokenizer: TextTokenizer,
        version: int,
        quirks: ReferenceQuirks,
        normalise: bool = True,
        *,
        max_chars: int = 10_000,
        max_segment_tokens: int = 160,
        max_prompt_tokens: int = 1000,
        lexicon: Lexicon | None = None,
    ) -> None:
        """version: 2 or 3; normalise: read numbers, signs and abbreviations in words; max_chars: longest text of one
        request; max_segment_tokens: longest segment, about 30 s of speech; max_prompt_tokens: longest transcript or
        instruction (nobody says more within 30 s); lexicon: of the user, part of normalisation. Raises InvalidLexicon
        for sounds that the model does not know."""
        self._tokenizer = tokenizer
        self._version = version
        self._controls_in_text = quirks.control_tokens_in_text
        self._max_chars = max_chars
        self._max_prompt_tokens = max_prompt_tokens
        self._lexicon = lexicon or Lexicon()
        self._sounds_in_text = normalise and bool(self._lexicon.entries)
        check_sounds(self._lexicon, tokenizer)
        self._normaliser = TextNormaliser(
            self._count_tokens,
            quirks,
            enabled=normalise,
            max_segment_tokens=max_segment_tokens,
            lexicon=self._lexicon,
        )

    @property
    def end_of_prompt_id(self) -> int | None:
        return self._tokenizer.end_of_prompt_id

    def warm_up(self) -> None:
        """Load dictionaries and grammars now, rather than with the first request."""
        for part in self._normaliser.split("5 things, 20mol, 你好", None, self._tags(False)):
            self._encode(part, False)  # not `segments`: max_chars may be less than this text has

    def segments(
        self, text: str, language: str | None = None, *, with_prefix: bool = False, allow_tags: bool = False
    ) -> list[Segment]:
        """Segments of `text` with their ids, each at least one.

        language: "zh", "en" or another code, by default what the text looks like. with_prefix: every segment begins
        with the system prompt (CosyVoice3 without a transcript of the prompt speech). allow_tags: delivery tags such as
        [breath] act; otherwise they are text. Raises TextTooLong or EmptyText.
        """
        _check_length("text", text, self._max_chars)
        prefix: list[int] = []
        if with_prefix and self._version == 3 and not (self._controls_in_text and END_OF_PROMPT in text):
            text = text.removeprefix(SYSTEM_PROMPT)
            prefix = self.prefix_ids()
        parts = self._normaliser.split(text, language, self._tags(allow_tags))
        encoded = [(part, self._encode(part, allow_tags)) for part in parts]
        segments = [
            Segment(self._lexicon.written(part), prefix + ids, len(prefix)) for part, ids in encoded if ids
        ]
        if not segments:
            raise EmptyText(
                "text holds nothing that can be spoken: no letters or digits that the model knows"
            )
        return segments

    def prefix_ids(self) -> list[int]:
        """What precedes a text that has no transcript before it: CosyVoice3's system prompt, else nothing."""
        return self._encode_system_prompt() if self._version == 3 else []

    def prompt_ids(self, prompt_text: str, language: str | None = None) -> list[int]:
        """Ids of the transcript of the prompt speech, in one piece.

        CosyVoice3 gets its system prompt before it, unless prompt_text begins with one that ends in
        `<|endofprompt|>`. Raises TextTooLong, or InvalidInput if that occurs twice.
        """
        _check_length("prompt_text", prompt_text, MAX_PROMPT_CHARS)
        return self._within_limit("prompt_text", self._prompt_ids(prompt_text, language))

    def _prompt_ids(self, prompt_text: str, language: str | None) -> list[int]:
        if self._version == 2:
            return self._encode(self._normaliser.normalise(prompt_text, language), False)
        if self._controls_in_text and END_OF_PROMPT in prompt_text:
            return self._encode(prompt_text, False)
        system, transcript = self._split_at_end_of_prompt("prompt_text", prompt_text)
        start = (
            self._encode_system_prompt()
            if system is None
            else self._tokenizer.encode(system) + self._end_of_prompt()
        )
        return start + self._encode(self._normaliser.normalise(transcript, language), False)

    def instruct_ids(self, instruct_text: str) -> list[int]:
        """Ids of an instruction, closed by `<|endofprompt|>`, which the text may hold once or not at all.

        CosyVoice3's instructions follow "You are a helpful assistant."; that is put first where it is missing.

        Raises TextTooLong, EmptyText, or InvalidInput if the model takes no instructions.
        """
        _check_length("instruct_text", instruct_text, MAX_PROMPT_CHARS)
        instruction, rest = self._split_at_end_of_prompt("instruct_text", instruct_text)
        if instruction is None:
            instruction, rest = rest, ""
        if not instruction.strip():
            raise EmptyText("instruct_text is empty")
        if self._version == 3 and not self._controls_in_text and not instruction.startswith(_ROLE):
            instruction = f"{_ROLE} {instruction}"
        ids = self._tokenizer.encode(instruction) + self._end_of_prompt() + self._tokenizer.encode(rest)
        return self._within_limit("instruct_text", ids)

    def piece_ids(
        self, text_piece: str, language: str | None = None, *, first: bool = False, allow_tags: bool = False
    ) -> list[int]:
        """Ids of a piece of text that arrives bit by bit; may be empty.

        Pieces hold whole words (see PieceBuffer). first: no text came before, so the piece does not begin with a pause.
        Raises TextTooLong.
        """
        _check_length("text", text_piece, self._max_chars)
        piece = self._normaliser.normalise_piece(text_piece, language, self._tags(allow_tags))
        return self._encode(piece, allow_tags, continues=not first)

    def _encode(self, text: str, allow_tags: bool, continues: bool = False) -> list[int]:
        if self._sounds_in_text:
            return self._encode_with_sounds(text, allow_tags, continues)
        return self._encode_text(text, allow_tags, continues)

    def _encode_with_sounds(self, text: str, allow_tags: bool, continues: bool) -> list[int]:
        ids: list[int] = []
        for part, sounds in self._lexicon.parts(text):
            if sounds:
                ids += self._tokenizer.sound_ids(sounds)
            else:
                ids += self._encode_text(part, allow_tags, continues or bool(ids))
        return ids

    def _encode_text(self, text: str, allow_tags: bool, continues: bool) -> list[int]:
        return self._tokenizer.encode(
            text,
            allow_control=self._controls_in_text,
            allow_tags=allow_tags or self._controls_in_text,
            continues=continues,
        )

    def _count_tokens(self, text: str) -> int:
        return len(self._encode(text, False))

    def _tags(self, allow_tags: bool) -> re.Pattern[str] | None:
        return self._tokenizer.honoured(allow_tags=allow_tags)

    def _within_limit(self, field: str, ids: list[int]) -> list[int]:
        if len(ids) > self._max_prompt_tokens:
            raise TextTooLong(f"{field} has {len(ids)} tokens, the limit is {self._max_prompt_tokens}")
        return ids

    def _split_at_end_of_prompt(self, field: str, text: str) -> tuple[str | None, str]:
        """What stands before and after `<|endofprompt|>`; (None, text) without one."""
        count = text.count(END_OF_PROMPT)
        if count > 1:
            raise InvalidInput(f"{field} holds {END_OF_PROMPT} {count} times, at most 1 is allowed")
        before, mark, after = text.partition(END_OF_PROMPT)
        return (before, after) if mark else (None, text)

    def _end_of_prompt(self) -> list[int]:
        token_id = self._tokenizer.end_of_prompt_id
        if token_id is None:
            raise InvalidInput(f"this model takes no instructions: its tokenizer has no {END_OF_PROMPT}")
        return [token_id]

    def _encode_system_prompt(self) -> list[int]:
        return self._tokenizer.encode(SYSTEM_PROMPT, allow_control=True)


def check_sounds(lexicon: Lexicon, tokenizer: TextTokenizer) -> None:
    """Raises InvalidLexicon for sounds that the model of this tokenizer cannot be told."""
    for entry in lexicon.entries:
        try:
            tokenizer.sound_ids(entry.sounds)
        except KeyError as error:
            raise InvalidLexicon(
                f"{lexicon.source}:{entry.line}: this model has no token for {error.args[0]!r}; "
                "a respelling works with every model"
            ) from error


def _check_length(field: str, text: str, limit: int) -> None:
    if len(text) > limit:
        raise TextTooLong(f"{field} has {len(text)} characters, the limit is {limit}")
