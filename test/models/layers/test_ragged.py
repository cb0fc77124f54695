from __future__ import annotations

import pytest
import torch
from torch import Tensor

from light_tts.models.layers.ragged import Frames, join_past, next_past, next_tail


def lens(*values: int) -> Tensor:
    return torch.tensor(values)


def ragged() -> Frames:
    """Rows with 4 + 3, 0 + 2 and 6 + 1 frames."""
    return Frames(lens(4, 0, 6), lens(3, 2, 1), num_new=3, chunk=0, max_past=6)


def may_attend(frames: Frames, row: int, query: int, key: int) -> bool:
    """The definition, one pair at a time. query: column of the new frames, key: column of past + new."""
    past, new = int(frames.past_lens[row]), int(frames.new_lens[row])
    i, j = past + query, past + key - frames.max_past  # absolute
    if query >= new:
        return j == 0
    border = (i // frames.chunk + 1) * frames.chunk if frames.chunk else past + new
    return 0 <= j < min(border, past + new)


@pytest.mark.parametrize("chunk", [0, 1, 2, 4, 5, 100])
@pytest.mark.parametrize(
    ("past", "new", "num_new"),
    [((0,), (5,), 5), ((4,), (4,), 4), ((3,), (4,), 4), ((4, 0, 6), (3, 2, 1), 3), ((0, 0), (3, 5), 6)],
)
def test_attention_mask_follows_the_definition(
    chunk: int, past: tuple[int, ...], new: tuple[int, ...], num_new: int
) -> None:
    frames = Frames(lens(*past), lens(*new), num_new, chunk, max(past))
    mask = frames.attention_mask()
    expected = torch.tensor(
        [
            [[may_attend(frames, b, q, k) for k in range(frames.max_past + num_new)] for q in range(num_new)]
            for b in range(len(past))
        ]
    )
    if mask is None:
        assert expected.all()
    else:
        assert torch.equal(mask[:, 0], expected)
        assert mask.any(dim=-1).all(), "a query without any key makes NaN"


@pytest.mark.parametrize(("past", "new", "chunk"), [(0, 7, 0), (0, 4, 4), (4, 4, 4), (9, 3, 4), (3, 1, 4)])
def test_no_mask_is_built_when_every_frame_sees_all(past: int, new: int, chunk: int) -> None:
    assert Frames(lens(past, past), lens(new, new), new, chunk, past).attention_mask() is None


def test_a_new_frame_past_the_border_needs_a_mask() -> None:
    assert Frames(lens(3), lens(2), 2, 4, 3).attention_mask() is not None


def test_positions_count_from_each_rows_start() -> None:
    assert ragged().positions().tolist() == [[4, 5, 6], [0, 1, 2], [6, 7, 8]]


def test_valid_marks_right_padding() -> None:
    assert ragged().valid().tolist() == [[True] * 3, [True, True, False], [True, False, False]]


def test_scaled_multiplies_every_length() -> None:
    frames = Frames(lens(25, 0), lens(10, 25), 25, 25, 25).scaled(2)
    assert frames.past_lens.tolist() == [50, 0]
    assert frames.new_lens.tolist() == [20, 50]
    assert (frames.num_new, frames.chunk, frames.max_past) == (50, 50, 50)


def test_whole_has_no_past() -> None:
    frames = Frames.whole(lens(3, 5), 5, chunk=2)
    assert frames.past_lens.tolist() == [0, 0]
    assert (frames.num_new, frames.chunk, frames.max_past, frames.uniform) == (5, 2, 0, False)


def numbered(frames: Frames) -> Tensor:
    """(B, max_past + num_new) holding each column's absolute frame index, -1 where there is none."""
    past, new = frames.past_lens[:, None], frames.new_lens[:, None]
    absolute = torch.arange(-frames.max_past, frames.num_new) + past
    return absolute.where((absolute >= 0) & (absolute < past + new), -1)


@pytest.mark.parametrize(
    "frames",
    [
        Frames(lens(2), lens(3), 3, 0, 2),
        Frames(lens(4, 0, 6), lens(3, 2, 1), 3, 0, 6),
        Frames(lens(4, 0, 6), lens(3, 3, 3), 3, 0, 6),
        Frames(lens(0, 0), lens(1, 4), 4, 0, 0),
        Frames(lens(0, 8), lens(4, 1), 5, 0, 8),
    ],
)
@pytest.mark.parametrize("dim", [1, 2])
def test_next_past_is_the_valid_part_right_aligned(frames: Frames, dim: int) -> None:
    joined = numbered(frames)
    shaped = joined[:, :, None].expand(-1, -1, 3) if dim == 1 else joined[:, None].expand(-1, 3, -1)
    kept = next_past(shaped, frames, dim=dim)
    kept = kept[:, :, 0] if dim == 1 else kept[:, 0]
    totals = (frames.past_lens + frames.new_lens).tolist()
    assert kept.shape[1] == max(totals)
    for row, total in zip(kept, totals, strict=True):
        assert row[len(row) - total :].tolist() == list(range(total))


@pytest.mark.parametrize("new", [(5, 5), (5, 1), (2, 0)])
def test_next_tail_is_the_last_valid_frames(new: tuple[int, int]) -> None:
    tail = torch.tensor([[-3, -2, -1], [-30, -20, -10]])
    frames = Frames(lens(7, 7), lens(*new), 5, 0, 7)
    arriving = torch.arange(5).expand(2, -1)
    kept = next_tail(torch.cat([tail, arriving], dim=1), frames, dim=1, length=3)
    for row in range(2):
        heard = tail[row].tolist() + list(range(new[row]))
        assert kept[row].tolist() == heard[-3:]


def test_join_past_of_nothing_is_the_new_part() -> None:
    x = torch.randn(1, 4)
    assert join_past(None, x, dim=1) is x
    assert torch.equal(join_past(x, x, dim=1), torch.cat([x, x], dim=1))
