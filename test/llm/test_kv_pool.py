from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from light_tts.llm.kv_pool import KVPool, Span


def test_first_span_that_is_long_enough_is_taken() -> None:
    pool = KVPool(10)
    first, second, third = pool.reserve(3), pool.reserve(2), pool.reserve(5)
    assert (first, second, third) == (Span(0, 3), Span(3, 2), Span(5, 5))
    assert first is not None
    pool.release(first)
    assert pool.reserve(4) is None
    assert pool.reserve(2) == Span(0, 2)
    assert pool.num_free == 1


def test_released_neighbours_become_one_span() -> None:
    pool = KVPool(9)
    spans = [span for _ in range(3) if (span := pool.reserve(3))]
    for index in (0, 2, 1):
        pool.release(spans[index])
    assert pool.reserve(9) == Span(0, 9)


def test_only_what_is_reserved_can_be_released() -> None:
    pool = KVPool(4)
    span = pool.reserve(2)
    assert span is not None
    pool.release(span)
    for wrong in (span, Span(0, 4), Span(1, 1)):
        with pytest.raises(ValueError, match="not reserved"):
            pool.release(wrong)
    assert pool.num_free == 4


@pytest.mark.parametrize("length", [0, -1])
def test_nothing_can_neither_be_pooled_nor_reserved(length: int) -> None:
    with pytest.raises(ValueError, match=str(length)):
        KVPool(length)
    with pytest.raises(ValueError, match=str(length)):
        KVPool(5).reserve(length)


def test_a_span_grows_where_it_is_as_far_as_its_neighbour_is_free() -> None:
    pool = KVPool(10)
    first, second = pool.reserve(3), pool.reserve(2)
    assert first is not None
    assert second is not None
    assert pool.extend(first, 4) is None
    longer = pool.extend(second, 6)
    assert longer == Span(3, 6)
    assert pool.num_free == 1
    assert pool.extend(longer, 8) is None
    assert pool.extend(longer, 7) == Span(3, 7)
    assert pool.extend(Span(3, 7), 8) is None
    assert pool.extend(Span(3, 7), 7) is None, "that is no growth"
    with pytest.raises(ValueError, match="not reserved"):
        pool.release(longer)
    pool.release(Span(3, 7))
    pool.release(first)
    assert pool.reserve(10) == Span(0, 10)


def test_it_is_known_what_would_fit_beside_some_spans() -> None:
    pool = KVPool(20)
    kept = [Span(12, 3), Span(4, 2)]
    assert pool.would_fit(6, kept)
    assert not pool.would_fit(7, kept)
    assert pool.would_fit(20, [])
    assert not pool.would_fit(21, [])
    assert pool.would_fit(5, [Span(0, 15)])


@given(st.lists(st.one_of(st.integers(1, 12), st.integers(-5, -1)), max_size=60))
def test_spans_never_overlap_and_everything_comes_back(operations: list[int]) -> None:
    """Positive: reserve that many; negative: release the (-n)th oldest."""
    pool, held = KVPool(30), list[Span]()
    for operation in operations:
        if operation > 0:
            span = pool.reserve(operation)
            if span:
                held.append(span)
            else:
                owned = {slot for s in held for slot in range(s.start, s.stop)}
                fits = range(30 - operation + 1)
                assert not any(owned.isdisjoint(range(start, start + operation)) for start in fits)
        elif -operation <= len(held):
            pool.release(held.pop(-operation - 1))
        slots = [slot for span in held for slot in range(span.start, span.stop)]
        assert len(slots) == len(set(slots))
        assert all(0 <= slot < 30 for slot in slots)
        assert pool.num_free == 30 - len(slots)
    for span in held:
        pool.release(span)
    assert pool.reserve(30) == Span(0, 30)
