"""The files of a tokenizer directory: tokenizer.json, or vocab.json + merges.txt + tokenizer_config.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from light_tts.errors import CorruptFile, InvalidModelConfig, ModelNotFound

# Qwen2's pre-tokenisation: contractions, letters with one leading sign, single digits, signs, line breaks, spaces.
_QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """What a tokenizer directory holds."""

    vocabulary: dict[str, int]
    added: dict[str, int]
    """Special tokens that the files define beside the vocabulary."""
    bpe: Tokenizer | None
    """Byte-level BPE without any special token; None if the vocabulary is one of whole symbols."""


def read_tokenizer_files(folder: Path) -> TokenizerFiles:
    """Raises ModelNotFound, CorruptFile or InvalidModelConfig, each naming the file."""
    if not folder.is_dir():
        raise ModelNotFound(f"no tokenizer directory {folder}")
    if (folder / "tokenizer.json").exists():
        return _read_single_file(folder / "tokenizer.json")
    vocabulary = _as_vocabulary(_read_json(folder / "vocab.json"), folder / "vocab.json")
    bpe = _build_qwen2(vocabulary, folder / "merges.txt")
    return TokenizerFiles(vocabulary, _read_added(folder / "tokenizer_config.json"), bpe)


def _read_single_file(path: Path) -> TokenizerFiles:
    document = _read_json(path)
    model = document.get("model")
    kind = model.get("type") if isinstance(model, dict) else None
    if not isinstance(model, dict) or kind not in ("BPE", "WordLevel"):
        raise InvalidModelConfig(f"{path}: model type {kind!r}; BPE and WordLevel can be read")
    vocabulary = _as_vocabulary(model.get("vocab"), path)
    if kind == "WordLevel":
        return TokenizerFiles(vocabulary, {}, None)
    # Special tokens are looked for elsewhere: the library must not see them in a user's text.
    plain = document | {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
    try:
        bpe = Tokenizer.from_str(json.dumps(plain))
    except Exception as error:  # the library raises nothing narrower
        raise CorruptFile(f"{path}: {error}") from error
    return TokenizerFiles(vocabulary, _added_from_list(document.get("added_tokens"), path), bpe)


def _build_qwen2(vocabulary: dict[str, int], merges_path: Path) -> Tokenizer:
    merges = _read_merges(merges_path)
    try:
        tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    except Exception as error:  # the library raises nothing narrower
        raise CorruptFile(f"{merges_path} does not fit vocab.json: {error}") from error
    tokenizer.normalizer = normalizers.NFC()
    words = pre_tokenizers.Split(Regex(_QWEN2_WORDS), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, to_bytes])
    return tokenizer


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError as error:
        raise ModelNotFound(f"missing file {path}") from error
    except UnicodeDecodeError as error:
        raise CorruptFile(f"{path}: {error}") from error


def _read_json(path: Path) -> dict[str, object]:
    try:
        document = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise CorruptFile(f"{path}: {error}") from error
    if not isinstance(document, dict):
        raise CorruptFile(f"{path}: expected an object, found {type(document).__name__}")
    return document


def _read_merges(path: Path) -> list[tuple[str, str]]:
    merges = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip() or line.startswith("#version"):
            continue
        left, _, right = line.rstrip("\r").partition(" ")
        if not left or not right or " " in right:
            raise CorruptFile(f"{path}:{number}: expected two tokens, found {line[:40]!r}")
        merges.append((left, right))
    return merges


def _read_added(path: Path) -> dict[str, int]:
    """Special tokens of tokenizer_config.json: {"added_tokens_decoder": {"151643": {"content": ...}}}."""
    listed = _read_json(path).get("added_tokens_decoder", {})
    if not isinstance(listed, dict):
        raise CorruptFile(f"{path}: added_tokens_decoder is no object")
    entries = [
        entry | {"id": _integer(token_id)} for token_id, entry in listed.items() if isinstance(entry, dict)
    ]
    return _added_from_list(entries, path)


def _integer(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _added_from_list(listed: object, path: Path) -> dict[str, int]:
    added: dict[str, int] = {}
    for entry in listed if isinstance(listed, list) else []:
        content, token_id = (
            (entry.get("content"), entry.get("id")) if isinstance(entry, dict) else (None, None)
        )
        if not isinstance(content, str) or not isinstance(token_id, int) or token_id < 0:
            raise CorruptFile(f"{path}: added token without content or id: {str(entry)[:80]}")
        added[content] = token_id
    return added


def _as_vocabulary(value: object, path: Path) -> dict[str, int]:
    if not isinstance(value, dict) or not value:
        raise CorruptFile(f"{path}: no vocabulary")
    for token, token_id in value.items():
        if not isinstance(token_id, int) or token_id < 0:
            raise CorruptFile(f"{path}: id of token {token[:40]!r} is {token_id!r}")
    return value


def vocabulary_size(vocabulary: Mapping[str, int]) -> int:
    """One more than the largest id."""
    return max(vocabulary.values(), default=-1) + 1
