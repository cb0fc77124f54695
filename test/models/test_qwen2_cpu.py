from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from light_tts.models.bundled import resolve_model_dir
from light_tts.models.config import Qwen2Config
from light_tts.models.kv_cache import ForwardBatch, KVCache
from light_tts.models.loader import load_speech_lm
from light_tts.models.model_yaml import read_model_config
from light_tts.models.qwen2 import Qwen2Model
from light_tts.models.qwen2_cpu import FlatQwen2
from test.support.random_lm import random_lm

SHAPES = [
    Qwen2Config(11, 24, 40, 3, 6, 2),
    Qwen2Config(11, 80, 96, 2, 5, 1),
    Qwen2Config(11, 32, 80, 2, 4, 4, rms_norm_eps=1e-1, rope_theta=100.0),
]
SLOTS = 60

Forward = Callable[[Tensor, ForwardBatch, KVCache], Tensor]


def _model(cfg: Qwen2Config, *, half: bool = False) -> Qwen2Model:
    torch.manual_seed(3)
    model = Qwen2Model(cfg)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
            if half:
                parameter.copy_(parameter.half())
    return model


def _speak(forward: Forward, cfg: Qwen2Config, *, int8: bool = False) -> list[Tensor]:
    """Two prompts, the second in two pieces while the first speaks, then both speak."""
    torch.manual_seed(4)
    cache = KVCache(cfg, SLOTS, None, torch.float32, int8=int8)
    results = []
    for spans in (
        [(20, 0, 7)],
        [(20, 7, 1), (40, 0, 5)],
        [(20, 8, 1), (40, 5, 6)],
        [(20, 9, 1), (40, 11, 1)],
    ):
        batch = ForwardBatch.pack(spans)
        x = torch.randn(len(batch.positions), cfg.hidden_size)
        results.append(forward(x, batch, cache))
    return results


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("cfg", SHAPES)
@torch.inference_mode()
def test_it_is_the_model_up_to_the_order_of_sums(cfg: Qwen2Config, half: bool) -> None:
    model = _model(cfg, half=half)
    torch.testing.assert_close(_speak(FlatQwen2(model), cfg), _speak(model, cfg), atol=2e-5, rtol=1e-5)


@torch.inference_mode()
def test_it_is_the_model_with_eight_bit_keys_and_values() -> None:
    """A number near the middle between two of the 255 steps may fall to either side: one step of one number."""
    cfg = SHAPES[1]
    model = _model(cfg)
    flat, plain = _speak(FlatQwen2(model), cfg, int8=True), _speak(model, cfg, int8=True)
    torch.testing.assert_close(flat, plain, atol=0.03, rtol=0)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("cfg", SHAPES)
@torch.inference_mode()
def test_a_sequence_does_not_depend_on_the_others_to_the_last_bit(cfg: Qwen2Config, half: bool) -> None:
    flat, x = FlatQwen2(_model(cfg, half=half)), torch.randn(9, 14, cfg.hidden_size)
    starts = [14 * row for row in range(9)]
    alone = []
    for row, start in enumerate(starts):
        cache = KVCache(cfg, 200, None, torch.float32)
        flat(x[row, :13], ForwardBatch.pack([(start, 0, 13)]), cache)
        alone.append(flat(x[row, 13:], ForwardBatch.pack([(start, 13, 1)]), cache))
    for together in (2, 3, 9):
        cache = KVCache(cfg, 200, None, torch.float32)
        flat(
            x[:together, :13].flatten(0, 1), ForwardBatch.pack([(s, 0, 13) for s in starts[:together]]), cache
        )
        out = flat(x[:together, 13], ForwardBatch.pack([(s, 13, 1) for s in starts[:together]]), cache)
        assert torch.equal(out, torch.cat(alone[:together]))


@pytest.mark.parametrize("cfg", SHAPES)
@torch.inference_mode()
def test_rows_that_nobody_wants_change_neither_the_others_nor_the_cache(cfg: Qwen2Config) -> None:
    """Attention of one query adds up in another order than that of many."""
    flat, x = FlatQwen2(_model(cfg)), torch.randn(12, cfg.hidden_size)
    batch = ForwardBatch.pack([(0, 0, 4), (10, 0, 5), (20, 0, 3)])
    caches = [KVCache(cfg, SLOTS, None, torch.float32) for _ in range(2)]
    whole, some = flat(x, batch, caches[0]), flat(x, batch, caches[1], [3, 11])
    torch.testing.assert_close(some, whole[[3, 11]], atol=1e-5, rtol=1e-5)
    next_step = ForwardBatch.pack([(0, 4, 1), (10, 5, 1), (20, 3, 1)])
    after = [flat(x[:3], next_step, cache) for cache in caches]
    assert torch.equal(*after)
    assert flat(x, batch, caches[0], []).shape == (0, cfg.hidden_size)


@torch.inference_mode()
def test_positions_beyond_the_first_table_are_served() -> None:
    cfg, length = SHAPES[1], 1500
    model, x = _model(cfg), torch.randn(1501, cfg.hidden_size)
    results = []
    for forward in (FlatQwen2(model), model):
        cache = KVCache(cfg, length + 1, None, torch.float32)
        forward(x[:length], ForwardBatch.pack([(0, 0, length)]), cache)
        results.append(forward(x[length:], ForwardBatch.pack([(0, length, 1)]), cache))
    torch.testing.assert_close(*results, atol=1e-4, rtol=0)


def test_weights_in_other_precisions_are_refused() -> None:
    with pytest.raises(ValueError, match="float32"):
        FlatQwen2(_model(SHAPES[0]).bfloat16())


@torch.no_grad()
def test_it_runs_where_a_prepared_language_model_has_a_cache_and_no_other_weights_since() -> None:
    model = random_lm().prepare()
    x, batch = torch.randn(5, 24), ForwardBatch.pack([(0, 0, 5)])
    flat, plain = model(x, batch, model.new_cache(9)), model.qwen(x, batch, model.new_cache(9))
    assert not torch.equal(flat, plain)
    torch.testing.assert_close(flat, plain, atol=2e-5, rtol=1e-5)
    assert model(x, batch, model.new_cache(9), [4]).shape == (1, 24)
    for parameter in model.qwen.layers[1].parameters():
        parameter.mul_(0.9)
    after = model.qwen(x, batch, model.new_cache(9))
    assert not torch.allclose(after, plain, atol=1e-2)
    assert torch.equal(model(x, batch, model.new_cache(9)), after)


@torch.inference_mode()
def test_the_bundled_voices_scores_are_those_of_the_modules() -> None:
    """Its log-probabilities span some 20; 2e-4 is what float32 leaves open after six layers."""
    folder = resolve_model_dir(None)
    model = load_speech_lm(folder, read_model_config(folder).llm, torch.device("cpu"), torch.float32)
    x = torch.cat([model.embed_text(torch.arange(40)), model.embed_speech(torch.arange(90))])
    batches = [ForwardBatch.pack([(5, 0, 129)]), ForwardBatch.pack([(5, 129, 1)])]
    scores = []
    for _ in range(2):
        cache = model.new_cache(140)
        model(x[:129], batches[0], cache)
        scores.append(model.logits(model(x[129:], batches[1], cache)).log_softmax(-1))
        model.prepare()
    torch.testing.assert_close(*scores, atol=2e-4, rtol=0)
