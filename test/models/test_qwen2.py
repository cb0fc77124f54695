from __future__ import annotations

import pytest
import torch
from torch import Tensor

from light_tts.models.config import Qwen2Config
from light_tts.models.kv_cache import ForwardBatch, KVCache
from light_tts.models.qwen2 import Qwen2Model, apply_rotary, rotary_table

SHAPES = [
    Qwen2Config(11, 24, 40, 3, 6, 2),
    Qwen2Config(11, 20, 24, 1, 5, 1),
    Qwen2Config(11, 32, 80, 2, 4, 4, rms_norm_eps=1e-3, rope_theta=100.0),
]


def _model(cfg: Qwen2Config) -> Qwen2Model:
    torch.manual_seed(3)
    model = Qwen2Model(cfg)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def _cache(cfg: Qwen2Config, num_slots: int, dtype: torch.dtype = torch.float32) -> KVCache:
    return KVCache(cfg, num_slots, None, dtype)


def _plain(model: Qwen2Model, x: Tensor) -> Tensor:
    """Qwen2 on one whole sequence (T, hidden), written out."""
    cfg, weights = model.cfg, dict(model.named_parameters())
    mask = torch.ones(len(x), len(x), dtype=torch.bool).tril()
    half = cfg.head_dim // 2
    inverse = cfg.rope_theta ** (-torch.arange(half) / half)
    angles = torch.arange(len(x))[:, None, None] * inverse

    def norm(x: Tensor, name: str) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + cfg.rms_norm_eps).sqrt() * weights[name]

    def heads(x: Tensor, name: str, count: int) -> Tensor:
        return (x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]).view(len(x), count, -1)

    def rotate(x: Tensor) -> Tensor:
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], -1)

    for index in range(cfg.num_hidden_layers):
        name = f"layers.{index}"
        y, attention = norm(x, f"{name}.input_layernorm.weight"), f"{name}.self_attn"
        query = rotate(heads(y, f"{attention}.q_proj", cfg.num_attention_heads))
        groups = cfg.num_attention_heads // cfg.num_key_value_heads
        key = rotate(heads(y, f"{attention}.k_proj", cfg.num_key_value_heads)).repeat_interleave(groups, 1)
        value = heads(y, f"{attention}.v_proj", cfg.num_key_value_heads).repeat_interleave(groups, 1)
        scores = torch.einsum("qhd,khd->hqk", query, key) / cfg.head_dim**0.5
        scores = scores.masked_fill(~mask, -torch.inf).softmax(-1)
        joined = torch.einsum("hqk,khd->qhd", scores, value).flatten(1)
        x = x + joined @ weights[f"{attention}.o_proj.weight"].T
        y = norm(x, f"{name}.post_attention_layernorm.weight")
        gate, up = (y @ weights[f"{name}.mlp.{part}_proj.weight"].T for part in ("gate", "up"))
        x = x + (gate * gate.sigmoid() * up) @ weights[f"{name}.mlp.down_proj.weight"].T
    return norm(x, "norm.weight")


@pytest.mark.parametrize("cfg", SHAPES)
@torch.inference_mode()
def test_packed_sequences_equal_the_written_out_model_one_by_one(cfg: Qwen2Config) -> None:
    model, lens = _model(cfg), [5, 1, 9]
    x = torch.randn(sum(lens), cfg.hidden_size)
    expected = torch.cat([_plain(model, part) for part in x.split(lens)])
    batch = ForwardBatch.pack([(20, 0, 5), (0, 0, 1), (4, 0, 9)])
    torch.testing.assert_close(model(x, batch, _cache(cfg, 30)), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(model(x, ForwardBatch.whole(lens), None), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("cfg", SHAPES)
@torch.inference_mode()
def test_any_division_into_forwards_gives_the_same(cfg: Qwen2Config) -> None:
    model, x = _model(cfg), torch.randn(12, cfg.hidden_size)
    whole = model(x, ForwardBatch.whole([12]), None)
    for sizes in ([5, 1, 1, 5], [1] * 12, [11, 1]):
        cache, parts, done = _cache(cfg, 16), [], 0
        for size in sizes:
            batch = ForwardBatch.pack([(3, done, size)])
            parts.append(model(x[done : done + size], batch, cache))
            done += size
        torch.testing.assert_close(torch.cat(parts), whole, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_fused_projections_change_neither_results_nor_weights() -> None:
    cfg = SHAPES[0]
    model, x, batch = _model(cfg), torch.randn(7, cfg.hidden_size), ForwardBatch.whole([4, 3])
    before, weights = model(x, batch, None), {k: v.clone() for k, v in model.state_dict().items()}
    model.fuse()
    torch.testing.assert_close(model(x, batch, None), before, atol=1e-5, rtol=0)
    assert model.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


@torch.inference_mode()
def test_weights_that_change_after_fusing_are_used() -> None:
    cfg = SHAPES[0]
    x, batch = torch.randn(4, cfg.hidden_size), ForwardBatch.whole([4])
    model = _model(cfg)
    model.fuse()
    before = model(x, batch, None)
    model.double()
    torch.testing.assert_close(model(x.double(), batch, None).float(), before, atol=1e-5, rtol=0)
    other = {name: value * 1.5 for name, value in _model(cfg).state_dict().items()}
    model = _model(cfg)
    model.fuse()
    model.load_state_dict(other, assign=True)
    fresh = Qwen2Model(cfg)
    fresh.load_state_dict(other)
    torch.testing.assert_close(model(x, batch, None), fresh(x, batch, None), atol=1e-5, rtol=0)


def test_weights_that_change_in_place_after_fusing_are_used() -> None:
    cfg = SHAPES[0]
    x, batch = torch.randn(4, cfg.hidden_size), ForwardBatch.whole([4])
    other = {name: value * 1.5 for name, value in _model(cfg).state_dict().items()}
    fresh = Qwen2Model(cfg)
    fresh.load_state_dict(other)
    model = _model(cfg)
    model.fuse()
    with torch.no_grad():
        model(x, batch, None)
        model.load_state_dict(other)
        torch.testing.assert_close(model(x, batch, None), fresh(x, batch, None), atol=1e-5, rtol=0)
        model.fuse()
        for parameter in (*model.parameters(), *fresh.parameters()):
            parameter.mul_(0.9)
        torch.testing.assert_close(model(x, batch, None), fresh(x, batch, None), atol=1e-5, rtol=0)


@pytest.mark.parametrize("fused", [False, True])
def test_gradients_reach_every_weight_even_after_inference_has_filled_the_tables(fused: bool) -> None:
    cfg = SHAPES[0]
    model, batch = _model(cfg), ForwardBatch.whole([4, 3])
    rotary_table.cache_clear()
    if fused:
        model.fuse()
    with torch.inference_mode():
        model(torch.randn(7, cfg.hidden_size), batch, None)
    model(model.embed_tokens(torch.arange(7)), batch, None).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@torch.inference_mode()
def test_bfloat16_stays_near_float32() -> None:
    cfg = SHAPES[0]
    model, x, batch = _model(cfg), torch.randn(9, cfg.hidden_size), ForwardBatch.pack([(0, 0, 9)])
    expected = model(x, batch, _cache(cfg, 9))
    low = model.bfloat16()(x.bfloat16(), batch, _cache(cfg, 9, torch.bfloat16))
    assert low.dtype == torch.bfloat16
    assert (low.float() - expected).norm() / expected.norm() < 0.05


def test_rotation_depends_on_the_distance_only() -> None:
    cos, sin = rotary_table(5000, 16, 1e6, torch.device("cpu"), torch.float32)
    query, key = torch.randn(2, 1, 1, 16)

    def product(query_position: int, key_position: int) -> float:
        q = apply_rotary(query, (cos[query_position][None], sin[query_position][None]))
        k = apply_rotary(key, (cos[key_position][None], sin[key_position][None]))
        return float((q * k).sum())

    assert product(9, 4) == pytest.approx(product(4905, 4900), abs=1e-3)
    assert product(9, 4) != pytest.approx(product(9, 5), abs=1e-3)


def test_positions_beyond_the_first_table_are_served() -> None:
    cfg = SHAPES[1]
    model, length = _model(cfg), 1500
    x = torch.randn(length, cfg.hidden_size)
    with torch.inference_mode():
        cache = _cache(cfg, length)
        whole = model(x, ForwardBatch.pack([(0, 0, length)]), cache)
        last = model(x[-1:], ForwardBatch.pack([(0, length - 1, 1)]), cache)
    torch.testing.assert_close(last, whole[-1:], atol=1e-4, rtol=0)
