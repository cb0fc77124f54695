"""Text to token ids: Qwen2's byte-level BPE of the released models, or the phonetic symbols of the bundled voice."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tokenizers import Tokenizer

from light_tts.encode.phonemes import PhonemeEncoder
from light_tts.encode.sounds import bracketed_tokens
from light_tts.encode.special_tokens import END_OF_PROMPT, is_delivery_tag, special_tokens
from light_tts.encode.tokenizer_files import read_tokenizer_files, vocabulary_size
from light_tts.errors import InvalidModelConfig


class TextEncoder(Protocol):
    """Plain text, without any special token in it, to ids."""

    def encode(self, text: str, *, continues: bool) -> list[int]: ...


class TextTokenizer:
    """Ids of text as the language model reads them. No bos, no chat template; safe to share by threads."""

    def __init__(self, encoder: TextEncoder, num_base_tokens: int, special_ids: Mapping[str, int]) -> None:
        """encoder: for plain text, its ids are below num_base_tokens; special_ids: special tokens by their text."""
        self._encoder = encoder
        self.special_ids = dict(special_ids)
        self.vocab_size = max([num_base_tokens - 1, *special_ids.values()]) + 1
        self._special = _matcher(special_ids)
        self._control = _matcher(token for token in special_ids if not is_delivery_tag(token))
        self._tags = _matcher(token for token in special_ids if is_delivery_tag(token))

    @classmethod
    def from_model_dir(cls, folder: Path, version: int) -> TextTokenizer:
        """Read a model's `CosyVoice-BlankEN` directory.

        version: 2 or 3, decides which special tokens are added: those that the files hold keep their ids, the others
        follow in order. Raises ModelNotFound, CorruptFile or InvalidModelConfig, each naming the file.
        """
        files = read_tokenizer_files(folder)
        num_base_tokens = vocabulary_size(files.vocabulary)
        if files.bpe is None:
            return cls(PhonemeEncoder(files.vocabulary), num_base_tokens, {})
        special_ids = dict(files.added)
        following = max(num_base_tokens, vocabulary_size(files.added))
        for token in special_tokens(version):
            known_id = files.vocabulary.get(token, files.added.get(token))
            special_ids[token] = following if known_id is None else known_id
            following += known_id is None
        return cls(_BytePairEncoder(files.bpe), num_base_tokens, special_ids)

    @property
    def end_of_prompt_id(self) -> int | None:
        """Id of `<|endofprompt|>`; None if the model has none (the bundled voice)."""
        return self.special_ids.get(END_OF_PROMPT)

    def check_fits(self, num_embeddings: int) -> None:
        """Raise InvalidModelConfig unless the language model has an embedding for every id."""
        if self.vocab_size > num_embeddings:
            raise InvalidModelConfig(
                f"the tokenizer has {self.vocab_size} tokens, the language model's embedding {num_embeddings} rows"
            )

    def encode(
        self, text: str, *, allow_control: bool = False, allow_tags: bool = False, continues: bool = False
    ) -> list[int]:
        """Ids of `text`; empty for empty text.

        By default special tokens in the text are text like any other. allow_tags honours the delivery tags
        ([breath], <strong>, ...), allow_control the control tokens (`<|...|>`). continues: other text came before, so
        that phonetic symbols may begin with a pause.
        """
        text = drop_surrogates(text)
        honoured = self.honoured(allow_control=allow_control, allow_tags=allow_tags)
        if honoured is None:
            return self._encoder.encode(text, continues=continues)
        ids: list[int] = []
        for index, part in enumerate(honoured.split(text)):
            if index % 2:  # split() puts what the group matched at odd places
                ids.append(self.special_ids[part])
            elif part:
                ids += self._encoder.encode(part, continues=continues or bool(ids))
        return ids

    def sound_ids(self, sounds: Sequence[str]) -> list[int]:
        """Ids of pinyin and ARPAbet, see `lexicon`. Raises KeyError with a sound that the model has no token for."""
        if isinstance(self._encoder, PhonemeEncoder):
            return self._encoder.sound_ids(sounds)
        return [self.special_ids[token] for token in bracketed_tokens(sounds, self.special_ids)]

    def honoured(self, *, allow_control: bool = False, allow_tags: bool = False) -> re.Pattern[str] | None:
        """Matches, in its one group, the special tokens that `encode` would honour; None if there are none."""
        if allow_control:
            return self._special if allow_tags else self._control
        return self._tags if allow_tags else None


class _BytePairEncoder:
    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str, *, continues: bool) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def drop_surrogates(text: str) -> str:
    """Text without halves of surrogate pairs, which UTF-8 cannot express."""
    return text if text.isascii() else text.encode("utf-8", "ignore").decode("utf-8")


def _matcher(tokens: Iterable[str]) -> re.Pattern[str] | None:
    longest_first = sorted(tokens, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest_first))})") if longest_first else None
