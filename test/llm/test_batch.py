from __future__ import annotations

import pytest
import torch

from light_tts.llm.batch import Feed, embed, pack
from light_tts.llm.sequence import SOS, TASK_ID, speech_symbols, text_symbols
from test.support.random_lm import random_lm


@pytest.mark.parametrize("version", [2, 3])
@torch.inference_mode()
def test_each_symbol_gets_its_own_tables_row(version: int) -> None:
    model = random_lm(version)
    symbols = [SOS, *text_symbols([7, 3]), TASK_ID, *speech_symbols([3, 60]), *text_symbols([3])]
    out = embed(model, symbols)
    assert torch.equal(out[0], model.embed_special("sos")[0])
    assert torch.equal(out[[1, 2, 6]], model.embed_text(torch.tensor([7, 3, 3])))
    assert torch.equal(out[3], model.embed_special("task_id")[0])
    assert torch.equal(out[4:6], model.embed_speech(torch.tensor([3, 60])))
    assert torch.equal(embed(model, [SOS]), out[:1])


@torch.inference_mode()
def test_feeds_are_packed_in_order() -> None:
    model = random_lm()
    embeddings, batch = pack(model, [Feed(text_symbols([1, 2]), 10, 0), Feed(speech_symbols([5]), 30, 4)])
    assert torch.equal(embeddings[:2], model.embed_text(torch.tensor([1, 2])))
    assert torch.equal(embeddings[2:], model.embed_speech(torch.tensor([5])))
    assert batch.positions.tolist() == [0, 1, 4]
    assert batch.slots.tolist() == [10, 11, 34]
