from __future__ import annotations

import pytest
import torch
from torch import Tensor

from light_tts.llm.request import SamplingParams
from light_tts.llm.sampler import RasSampler, nucleus, ras_sample, torch_draw
from light_tts.llm.sequence import Constraint


class _Scripted:
    """Draws what it is told to; notes what it was offered."""

    def __init__(self, *picks: int) -> None:
        self.picks = list(picks)
        self.offered: list[Tensor] = []

    def __call__(self, probabilities: Tensor) -> int:
        self.offered.append(probabilities)
        return self.picks.pop(0)


def _log(*probabilities: float) -> Tensor:
    return torch.tensor(probabilities).log()


def test_nucleus_includes_the_id_that_crosses_top_p() -> None:
    probabilities = torch.tensor([0.1, 0.5, 0.1, 0.3])
    ids, values = nucleus(probabilities, 0.7, 25)
    assert ids.tolist() == [1, 3]
    assert values.tolist() == pytest.approx([0.5, 0.3])
    assert nucleus(probabilities, 0.81, 25)[0].tolist() == [1, 3, 0]


def test_nucleus_holds_one_id_at_least_and_top_k_at_most() -> None:
    assert nucleus(torch.tensor([0.9, 0.1]), 0.01, 25)[0].tolist() == [0]
    assert nucleus(torch.full((50,), 0.02), 1.0, 3)[0].tolist() == [0, 1, 2]
    assert nucleus(torch.tensor([0.4, 0.6]), 1.0, 25)[0].tolist() == [1, 0]


def test_equal_probabilities_keep_the_order_of_ids() -> None:
    probabilities = torch.tensor([0.1, 0.2, 0.1, 0.2, 0.1, 0.2, 0.1])
    assert nucleus(probabilities, 1.0, 5)[0].tolist() == [1, 3, 5, 0, 2]


@pytest.mark.parametrize("seed", range(5))
def test_nucleus_equals_sorting_everything(seed: int) -> None:
    torch.manual_seed(seed)
    probabilities = (torch.randn(300) * 2).round(decimals=1).softmax(0)  # with many ties
    values, ids = probabilities.sort(descending=True, stable=True)
    count, mass = 0, torch.tensor(0.0)
    while mass < 0.6 and count < 40:
        mass = mass + values[count]
        count += 1
    assert nucleus(probabilities, 0.6, 40)[0].tolist() == ids[:count].tolist()


def test_a_fresh_id_is_taken_without_a_second_draw() -> None:
    scores, draw = _log(0.1, 0.6, 0.3), _Scripted(1)
    assert ras_sample(scores, [0, 1, 0], SamplingParams(), draw) == 2
    assert scores.isfinite().all()


def test_an_id_in_the_window_is_masked_and_another_drawn_from_all_the_rest() -> None:
    scores, draw = _log(0.1, 0.6, 0.1, 0.2), _Scripted(0, 2)
    assert ras_sample(scores, [1], SamplingParams(top_p=0.5), draw) == 2
    assert draw.offered[0].tolist() == pytest.approx([0.6])
    assert draw.offered[1].tolist() == pytest.approx([0.25, 0, 0.25, 0.5])
    assert scores.isneginf().tolist() == [False, True, False, False]


def test_the_window_ends_after_win_size_ids() -> None:
    params = SamplingParams(win_size=3)
    assert ras_sample(_log(0.9, 0.1), [0, 1, 1, 1], params, _Scripted(0)) == 0
    assert ras_sample(_log(0.9, 0.1), [1, 0, 1, 1], params, _Scripted(0, 1)) == 1


def test_tau_r_sets_how_many_repetitions_are_too_many() -> None:
    params = SamplingParams(win_size=4, tau_r=0.5)
    assert ras_sample(_log(0.9, 0.1), [0, 1, 1, 1], params, _Scripted(0)) == 0
    assert ras_sample(_log(0.9, 0.1), [0, 1, 0, 1], params, _Scripted(0, 1)) == 1


def test_banned_ids_are_never_drawn() -> None:
    constraint = Constraint(banned=(slice(0, 3), slice(4, 6)))
    sampler = RasSampler(SamplingParams(top_p=1.0, seed=0))
    for _ in range(20):
        scores = torch.tensor([9.0, 9.0, 9.0, 0.0, 9.0, 9.0, 0.0]).log_softmax(0)
        assert sampler.pick(scores, [], constraint) in (3, 6)


def test_same_seed_same_tokens_and_other_seeds_others() -> None:
    def draw(seed: int | None) -> list[int]:
        sampler, history = RasSampler(SamplingParams(seed=seed)), list[int]()
        for step in range(30):
            scores = torch.sin(torch.arange(200.0) * (step + 1)).log_softmax(0)
            history.append(sampler.pick(scores, history, Constraint()))
        return history

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)
    assert draw(None) != draw(None)


@pytest.mark.parametrize("number", [1, 2, 7, 8, 16, 25, 729, 6564])
def test_a_draw_is_torchs_multinomial_and_leaves_its_generator_as_that_does(number: int) -> None:
    torch.manual_seed(number)
    generators = [torch.Generator().manual_seed(5) for _ in range(2)]
    draw = torch_draw(generators[0])
    for _ in range(50):
        probabilities = torch.rand(number) * (torch.rand(number) > 0.3)
        probabilities[0] += 1e-3
        expected = int(torch.multinomial(probabilities, 1, replacement=True, generator=generators[1]))
        assert draw(probabilities) == expected
        assert torch.equal(generators[0].get_state(), generators[1].get_state())


def test_low_temperature_sharpens() -> None:
    scores = _log(0.4, 0.35, 0.25)
    cold = RasSampler(SamplingParams(temperature=0.02, seed=1))
    assert {cold.pick(scores.clone(), [], Constraint()) for _ in range(30)} == {0}
    warm = RasSampler(SamplingParams(top_p=1.0, seed=1))
    assert {warm.pick(scores.clone(), [], Constraint()) for _ in range(60)} == {0, 1, 2}


def test_draws_follow_the_probabilities() -> None:
    sampler = RasSampler(SamplingParams(top_p=1.0, seed=3))
    counts = torch.zeros(3)
    for _ in range(2000):
        counts[sampler.pick(_log(0.6, 0.3, 0.1), [], Constraint())] += 1
    torch.testing.assert_close(counts / 2000, torch.tensor([0.6, 0.3, 0.1]), atol=0.04, rtol=0)
