from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from light_tts.encode.special_tokens import special_tokens
from light_tts.encode.tokenizer import TextTokenizer
from light_tts.errors import CorruptFile, InvalidModelConfig, ModelNotFound
from test.conftest import GOLDEN

DATA = Path(__file__).parent / "data"


def version_of(model_dir: Path) -> int:
    return int(model_dir.name[-1])


@pytest.fixture
def folder(model_dir: Path) -> Path:
    return model_dir / "CosyVoice-BlankEN"


@pytest.fixture
def tokenizer(model_dir: Path, folder: Path) -> TextTokenizer:
    return TextTokenizer.from_model_dir(folder, version_of(model_dir))


@pytest.fixture(scope="module")
def from_one_file() -> TextTokenizer:
    return TextTokenizer.from_model_dir(GOLDEN / "cosyvoice3" / "CosyVoice-BlankEN", 3)


@pytest.fixture(scope="module")
def from_parts(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    """The same tokenizer as the released models ship it: without tokenizer.json."""
    folder = tmp_path_factory.mktemp("model") / "CosyVoice-BlankEN"
    shutil.copytree(GOLDEN / "cosyvoice3" / "CosyVoice-BlankEN", folder)
    (folder / "tokenizer.json").unlink()
    return TextTokenizer.from_model_dir(folder, 3)


@given(text=st.text())
def test_tokenizer_json_and_vocabulary_with_merges_agree(
    from_one_file: TextTokenizer, from_parts: TextTokenizer, text: str
) -> None:
    assert from_one_file.encode(text) == from_parts.encode(text)


def test_both_kinds_of_files_give_the_same_special_ids(
    from_one_file: TextTokenizer, from_parts: TextTokenizer
) -> None:
    assert from_one_file.special_ids == from_parts.special_ids
    assert from_one_file.vocab_size == from_parts.vocab_size


def test_special_tokens_follow_the_base_vocabulary_in_order(
    tokenizer: TextTokenizer, model_dir: Path
) -> None:
    base = len(json.loads((model_dir / "CosyVoice-BlankEN" / "vocab.json").read_text("utf-8")))
    tokens = special_tokens(version_of(model_dir))
    assert len(tokens) == {2: 20, 3: 281}[version_of(model_dir)]
    assert [tokenizer.special_ids[token] for token in tokens] == list(range(base, base + len(tokens)))
    assert tokens[:4] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|endofprompt|>"]
    assert tokenizer.end_of_prompt_id == base + 3
    assert tokenizer.vocab_size == base + len(tokens)


def test_tokens_that_the_files_hold_already_keep_their_ids(tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    shutil.copytree(GOLDEN / "cosyvoice2" / "CosyVoice-BlankEN", folder)
    (folder / "tokenizer.json").unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    config["added_tokens_decoder"]["363"] = {"content": "<tool_call>"}
    config["added_tokens_decoder"]["364"] = {"content": "[breath]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = TextTokenizer.from_model_dir(folder, 2)
    assert tokenizer.special_ids["[breath]"] == 364
    assert tokenizer.special_ids["<|endofprompt|>"] == 365
    assert tokenizer.encode("<tool_call>", allow_tags=True) == tokenizer.encode("<tool_call>")
    assert tokenizer.encode("<tool_call>", allow_control=True) == [363]


@pytest.mark.parametrize(
    "text", ["<|endofprompt|>", "<|im_start|>", "<|endoftext|>", "[breath]", "<strong>a</strong>"]
)
def test_special_strings_in_text_are_text_by_default(tokenizer: TextTokenizer, text: str) -> None:
    ids = tokenizer.encode(f"say {text} now")
    assert not set(ids) & set(tokenizer.special_ids.values())


def test_delivery_tags_act_only_on_request_and_control_tokens_not_even_then(tokenizer: TextTokenizer) -> None:
    special = tokenizer.special_ids
    ids = tokenizer.encode("[breath]<|im_end|>", allow_tags=True)
    assert ids == [special["[breath]"], *tokenizer.encode("<|im_end|>")]
    assert tokenizer.encode("[breath]<|im_end|>", allow_control=True)[-1] == special["<|im_end|>"]
    assert special["[breath]"] not in tokenizer.encode("[breath]<|im_end|>", allow_control=True)


def test_halves_of_surrogate_pairs_are_dropped(tokenizer: TextTokenizer) -> None:
    assert tokenizer.encode("a\ud800b\udfff") == tokenizer.encode("ab")


def test_letters_are_composed_before_they_are_encoded(tokenizer: TextTokenizer) -> None:
    assert tokenizer.encode("cafe\u0301") == tokenizer.encode("café")


def test_a_vocabulary_larger_than_the_embedding_is_refused(tokenizer: TextTokenizer) -> None:
    tokenizer.check_fits(tokenizer.vocab_size)
    with pytest.raises(InvalidModelConfig, match=str(tokenizer.vocab_size)):
        tokenizer.check_fits(tokenizer.vocab_size - 1)


def test_a_vocabulary_of_whole_symbols_takes_phonemes() -> None:
    folder = DATA / "phonetic"
    tokenizer = TextTokenizer.from_model_dir(folder, 2)
    vocabulary = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    assert tokenizer.encode("你好, cat") == [
        vocabulary[s] for s in ("z_ni3", "z_hao3", ",", "e_K_AE1", "c_T")
    ]
    assert tokenizer.end_of_prompt_id is None
    assert tokenizer.vocab_size == len(vocabulary)


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "tokenizer_config.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "tokenizer"
    shutil.copytree(GOLDEN / "cosyvoice2" / "CosyVoice-BlankEN", folder)
    (folder / "tokenizer.json").unlink()
    (folder / name).unlink()
    with pytest.raises(ModelNotFound, match=name):
        TextTokenizer.from_model_dir(folder, 2)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="nowhere"):
        TextTokenizer.from_model_dir(tmp_path / "nowhere", 2)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"model": {"type": "BPE"}}',
        '{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}',
        '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}}',
        '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "added_tokens": [{"id": 1}]}',
        "\udcff",
    ],
)
def test_an_unreadable_file_is_corrupt(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(CorruptFile, match=r"tokenizer\.json"):
        TextTokenizer.from_model_dir(tmp_path, 2)


@pytest.mark.parametrize("merges", ["a", "a b c", "a zzz"])
def test_merges_that_do_not_fit_are_corrupt(tmp_path: Path, merges: str) -> None:
    folder = tmp_path / "tokenizer"
    shutil.copytree(GOLDEN / "cosyvoice2" / "CosyVoice-BlankEN", folder)
    (folder / "tokenizer.json").unlink()
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    with pytest.raises(CorruptFile, match=r"merges\.txt"):
        TextTokenizer.from_model_dir(folder, 2)


def test_another_kind_of_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Unigram", "vocab": []}}')
    with pytest.raises(InvalidModelConfig, match="Unigram"):
        TextTokenizer.from_model_dir(tmp_path, 2)
