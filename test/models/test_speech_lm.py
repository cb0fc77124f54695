from __future__ import annotations

from pathlib import Path

import pytest
import torch

from light_tts.models.checkpoint import LM_HEAD, open_checkpoint
from light_tts.models.kv_cache import ForwardBatch
from light_tts.models.loader import load_speech_lm
from light_tts.models.model_yaml import read_model_config
from light_tts.models.speech_lm import SpeechLM
from test.support.random_lm import random_lm


def test_keys_and_shapes_are_the_checkpoints_without_the_unused_head(model_dir: Path) -> None:
    with torch.device("meta"):
        model = SpeechLM(read_model_config(model_dir).llm)
    expected = {name: value.shape for name, value in open_checkpoint(model_dir / "llm.pt").items()}
    del expected[LM_HEAD]
    assert {name: value.shape for name, value in model.state_dict().items()} == expected


def test_special_symbols_come_from_their_own_table_or_from_the_speech_tables_extra_rows() -> None:
    old, new = random_lm(2), random_lm(3)
    assert old.llm_embedding is not None
    assert torch.equal(old.embed_special("sos")[0], old.llm_embedding.weight[0])
    assert torch.equal(old.embed_special("task_id")[0], old.llm_embedding.weight[1])
    size = new.cfg.speech_token_size
    assert torch.equal(new.embed_special("sos")[0], new.speech_embedding.weight[size])
    assert torch.equal(new.embed_special("task_id")[0], new.speech_embedding.weight[size + 2])


@pytest.mark.parametrize(("version", "extra", "bias"), [(2, 3, True), (3, 200, False)])
def test_head_has_the_versions_rows_and_gives_float32(version: int, extra: int, bias: bool) -> None:
    model = random_lm(version).bfloat16()
    logits = model.logits(torch.randn(4, model.cfg.qwen.hidden_size, dtype=torch.bfloat16))
    assert logits.shape == (4, model.cfg.speech_token_size + extra)
    assert logits.dtype == torch.float32
    assert (model.llm_decoder.bias is not None) == bias


@pytest.mark.parametrize(
    "shape",
    [
        {"speech_token_size": 729, "hidden_size": 48, "layers": 3, "heads": 4, "kv_heads": 1},
        {"speech_token_size": 40, "hidden_size": 40, "layers": 1, "heads": 5, "kv_heads": 5, "vocab_size": 9},
        {"hidden_size": 56, "layers": 2, "heads": 14, "kv_heads": 2},
    ],
)
@pytest.mark.parametrize("version", [2, 3])
@torch.inference_mode()
def test_any_shape_decodes_token_by_token_as_at_once(version: int, shape: dict[str, int]) -> None:
    model = random_lm(version, **shape).prepare()
    text = model.embed_text(torch.arange(6))
    speech = model.embed_speech(torch.arange(20))
    x = torch.cat([model.embed_special("sos"), text, model.embed_special("task_id"), speech])
    whole = model.logits(model(x, ForwardBatch.whole([len(x)])))
    cache = model.new_cache(64)
    hidden = [model(x[:10], ForwardBatch.pack([(30, 0, 10)]), cache)]
    for position in range(10, len(x)):
        batch = ForwardBatch.pack([(30, position, 1)])
        hidden.append(model(x[position : position + 1], batch, cache))
    torch.testing.assert_close(model.logits(torch.cat(hidden)), whole, atol=1e-4, rtol=0)


def test_loaded_model_can_be_prepared_in_any_precision(model_dir: Path) -> None:
    cfg = read_model_config(model_dir).llm
    for dtype in (torch.float32, torch.bfloat16):
        model = load_speech_lm(model_dir, cfg, torch.device("cpu"), dtype).prepare()
        with torch.inference_mode():
            out = model(model.embed_text(torch.arange(5)), ForwardBatch.pack([(0, 0, 5)]), model.new_cache(8))
        assert out.dtype == dtype
        assert out.isfinite().all()
