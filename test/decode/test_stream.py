from __future__ import annotations

import pytest

from light_tts.decode.stream import Chunk, HopPlan, HopSchedule


def chunks(schedule: HopSchedule, total: int, step: int = 1) -> list[Chunk]:
    """Feed `total` tokens, `step` at a time, and collect every chunk."""
    out = []
    for count in range(0, total + 1, step):
        while chunk := schedule.next_chunk(count, ended=False):
            out.append(chunk)
    while chunk := schedule.next_chunk(total, ended=True):
        out.append(chunk)
    return out


def test_reference_plan_gives_the_recorded_chunks() -> None:
    schedule = HopSchedule(HopPlan.reference(25, 3), prompt_tokens=37)
    assert chunks(schedule, 130) == [Chunk(0, 38, False), Chunk(38, 88, False), Chunk(88, 130, True)]
    assert schedule.hop == 100


@pytest.mark.parametrize("prompt", [0, 1, 12, 24, 25, 37, 74, 75, 100])
@pytest.mark.parametrize("plan", [HopPlan(), HopPlan.reference(25, 3)])
def test_chunks_cover_every_token_once_and_end_on_borders(prompt: int, plan: HopPlan) -> None:
    for total in (0, 1, 9, 28, 130, 777):
        found = chunks(HopSchedule(plan, prompt), total)
        assert [c.start for c in found] == [0, *(c.end for c in found[:-1])]
        assert found[-1].end == total
        assert [c.finalize for c in found] == [False] * (len(found) - 1) + [True]
        assert all((prompt + c.end) % plan.chunk == 0 for c in found[:-1])


def test_chunks_do_not_depend_on_how_tokens_arrive() -> None:
    one_by_one = chunks(HopSchedule(HopPlan(), 37), 400)
    in_bursts = chunks(HopSchedule(HopPlan(), 37), 400, step=80)
    assert one_by_one == in_bursts


def test_the_first_chunk_is_short_and_hops_grow_to_the_limit() -> None:
    sizes = [c.end - c.start for c in chunks(HopSchedule(HopPlan(), 32), 1000)]
    assert sizes[0] == 18
    assert sizes[1:4] == [25, 50, 100]
    assert max(sizes) == 100


def test_every_chunk_has_its_look_ahead() -> None:
    schedule = HopSchedule(HopPlan(), 34)
    assert schedule.next_chunk(18, ended=False) is None
    assert schedule.next_chunk(19, ended=False) == Chunk(0, 16, False)


def test_a_grown_hop_starts_the_next_request_only_when_asked() -> None:
    first = HopSchedule(HopPlan.reference(25, 3), 0)
    chunks(first, 500)
    again = HopSchedule(HopPlan.reference(25, 3), 37, hop=first.hop)
    assert chunks(again, 500)[0] == Chunk(0, 163, False)
