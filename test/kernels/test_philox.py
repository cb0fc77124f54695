"""Counted random numbers: the published vectors, the distribution, and that nothing else matters."""

from __future__ import annotations

import torch
from torch import Tensor

from light_tts.kernels.philox import philox, waiting_times


def _word(number: int) -> Tensor:
    return torch.tensor(number)


def test_philox_gives_the_vectors_published_with_random123() -> None:
    def words(counter: tuple[int, ...], key: tuple[int, ...]) -> list[int]:
        c0, c1, c2, c3 = map(_word, counter)
        return [int(word) for word in philox((c0, c1, c2, c3), (_word(key[0]), _word(key[1])))]

    ones = 0xFFFFFFFF
    assert words((0, 0, 0, 0), (0, 0)) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert words((ones,) * 4, (ones,) * 2) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    assert words(pi, (0xA4093822, 0x299F31D0)) == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


def test_waiting_times_are_exponential_and_differ_by_draw_attempt_and_seed() -> None:
    ids, draws = torch.arange(200)[None], torch.arange(500)[:, None]
    seed = _word(12), _word(34)
    times = waiting_times(ids, draws, 0, *seed)
    assert times.dtype == torch.float32
    assert bool((times > 0).all())
    assert abs(float(times.mean()) - 1) < 0.02
    assert abs(float((times < 0.5).float().mean()) - 0.3935) < 0.01  # 1 - exp(-1/2)
    others = [waiting_times(ids, draws, 1, *seed), waiting_times(ids, draws, 0, _word(13), _word(34))]
    others.append(waiting_times(ids, draws + 500, 0, *seed))
    for other in others:
        assert abs(float(torch.corrcoef(torch.stack([times.ravel(), other.ravel()]))[0, 1])) < 0.01


def test_the_smallest_time_over_probability_is_drawn_with_that_probability() -> None:
    chances = torch.tensor([0.5, 0.3, 0.15, 0.05])
    times = waiting_times(torch.arange(4)[None], torch.arange(20_000)[:, None], 0, _word(5), _word(0))
    drawn = (times / chances).argmin(dim=-1).bincount(minlength=4) / 20_000
    torch.testing.assert_close(drawn, chances, atol=0.015, rtol=0)
