"""Batches of streams that differ in how much they have heard and how much arrives now.

Time axis of one call, row b: past (right-aligned, left-padded to max_past) | new (left-aligned, right-padded)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Frames:
    """Which frames exist, and which may attend to which.

    past_lens: (B,) int64 frames that earlier calls have already processed
    new_lens: (B,) int64 valid frames of this call
    num_new: padded length of this call, >= new_lens.max()
    chunk: streaming attention chunk in frames, counted from absolute frame 0: frame i sees frames below
        (i // chunk + 1) * chunk. 0: every frame sees every valid frame.
    """

    past_lens: Tensor
    new_lens: Tensor
    num_new: int
    chunk: int = 0
    max_past: int = 0

    @classmethod
    def whole(cls, lens: Tensor, num_frames: int, chunk: int = 0) -> Frames:
        """A batch without a past: right-padded rows of `lens` valid frames."""
        return cls(torch.zeros_like(lens), lens, num_frames, chunk)

    @property
    def uniform(self) -> bool:
        """True when no row is padded. Reads the lengths: keep them on the CPU."""
        return bool((self.new_lens == self.num_new).all()) and bool((self.past_lens == self.max_past).all())

    def scaled(self, factor: int) -> Frames:
        """The same frames after upsampling by `factor`."""
        return Frames(
            self.past_lens * factor,
            self.new_lens * factor,
            self.num_new * factor,
            self.chunk * factor,
            self.max_past * factor,
        )

    def positions(self, device: torch.device | None = None) -> Tensor:
        """(B, num_new) absolute frame index of each new frame."""
        steps = torch.arange(self.num_new)
        return (self.past_lens.cpu()[:, None] + steps).to(device)

    def valid(self, device: torch.device | None = None) -> Tensor:
        """(B, num_new) bool: False on right padding."""
        return (torch.arange(self.num_new) < self.new_lens.cpu()[:, None]).to(device)

    def attention_mask(self, device: torch.device | None = None) -> Tensor | None:
        """(B, 1, num_new, max_past + num_new) bool, True = may attend; None when everything may.

        Padded queries see the first valid key only, so that no softmax row is empty.
        """
        last = self.max_past + self.num_new - 1
        if self.uniform and (self.chunk == 0 or self.max_past // self.chunk == last // self.chunk):
            return None
        past, new = self.past_lens.cpu()[:, None], self.new_lens.cpu()[:, None]
        query = past + torch.arange(self.num_new)  # (B, Tq) absolute
        key = torch.arange(-self.max_past, self.num_new) + past  # (B, Tk) absolute
        key_ok = (key >= 0) & (key < past + new)
        mask = key_ok[:, None, :].expand(-1, self.num_new, -1)
        if self.chunk:
            border = (query // self.chunk + 1) * self.chunk
            mask = mask & (key[:, None, :] < border[:, :, None])
        padded = (query >= past + new)[:, :, None]
        mask = torch.where(padded, key[:, None, :] == 0, mask)
        return mask[:, None].to(device)


def join_past(past: Tensor | None, new: Tensor, dim: int) -> Tensor:
    """`past` then `new` along the time axis `dim`; `past` None stands for length 0."""
    return new if past is None else torch.cat([past, new], dim=dim)


def next_past(joined: Tensor, frames: Frames, dim: int) -> Tensor:
    """What the next call gets as past: the valid part of `joined`, right-aligned again.

    joined: (B, ..., max_past + num_new, ...) with time at `dim`
    Returns time length (past_lens + new_lens).max(), rows right-aligned.
    """
    length = int((frames.past_lens + frames.new_lens).max())
    return _right_aligned(joined, frames, dim, length)


def next_tail(joined: Tensor, frames: Frames, dim: int, length: int) -> Tensor:
    """The last `length` valid frames of each row of `joined` = tail (`length` frames) ++ new (num_new).

    This is the left context of a causal convolution; a stream's first tail is zeros.
    """
    if bool((frames.new_lens == frames.num_new).all()):
        return joined.narrow(dim, joined.shape[dim] - length, length).clone()
    start = frames.new_lens.to(joined.device)
    index = start[:, None] + torch.arange(length, device=joined.device)
    return _gather_time(joined, index, dim)


def _right_aligned(joined: Tensor, frames: Frames, dim: int, length: int) -> Tensor:
    total = joined.shape[dim]
    if bool((frames.new_lens == frames.num_new).all()):
        return joined.narrow(dim, total - length, length)
    end = (frames.new_lens + (total - frames.num_new)).to(joined.device)
    index = end[:, None] - length + torch.arange(length, device=joined.device)
    return _gather_time(joined, index.clamp(min=0), dim)


def _gather_time(x: Tensor, index: Tensor, dim: int) -> Tensor:
    """Pick time steps per row. x: (B, ...), index: (B, L); `dim` is x's time axis."""
    dim = dim % x.ndim
    shape = [1] * x.ndim
    shape[0], shape[dim] = index.shape
    expand = list(x.shape)
    expand[dim] = index.shape[1]
    return x.gather(dim, index.reshape(shape).expand(expand))
