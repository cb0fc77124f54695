"""What to decode next, and what with it. Pure functions of what is ready; no torch.

Order: what has been due for too long; then voices and first chunks, oldest first; then later chunks by the moment when
the listener's buffer runs dry, and whole segments among them as if theirs ran dry some seconds after they were ready.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

STARVING_S = 5.0  # overdue by so much, work goes before first chunks: no order may let anything wait for ever
WHOLE_PATIENCE_S = 10.0  # nobody listens yet: chunks of playing streams may go first for so long
MAX_PADDING = 1.5  # a batch is as long as its longest member: at most so many times the work of its members
FIRST_CHUNK_GROWTH = 2  # a first chunk waits for no batch mate more than twice its size


class Kind(Enum):
    """Only work of one kind makes a batch; voices are computed one by one."""

    VOICE = "voice"
    CHUNK = "chunk"
    WHOLE = "whole"


@dataclass(frozen=True, slots=True)
class Work:
    """Something that could be done now.

    key: (request id, segment), or (voice key, -1)
    first: nothing of the request has been heard yet
    due_s: since when it waits, of a voice or first chunk; when it is needed, of the rest; both monotonic
    size: speech tokens to compute, those of the prompt included where they are computed again
    """

    key: tuple[str, int]
    kind: Kind
    due_s: float
    size: int
    first: bool = False


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """max_tokens: of a batch of whole segments, padding included"""

    max_size: int
    max_tokens: int


def whole_due(ready_s: float, deadline_s: float) -> float:
    """When a whole segment is due: soon enough that a short deadline can still be met."""
    return ready_s + min(WHOLE_PATIENCE_S, max(0.0, deadline_s - ready_s) / 4)


def rank(work: Work, now_s: float) -> tuple[int, float, tuple[str, int]]:
    """The smallest goes first."""
    if now_s - work.due_s > STARVING_S:
        lane = 0
    elif work.first or work.kind is Kind.VOICE:
        lane = 1
    else:
        lane = 2
    return lane, work.due_s, work.key


def next_batch(
    ready: Iterable[Work], now_s: float, limits: BatchLimits, *, whole_allowed: bool = True
) -> list[Work]:
    """The most urgent work and what goes with it, most urgent first; empty where nothing is ready."""
    order = sorted(
        (work for work in ready if whole_allowed or work.kind is not Kind.WHOLE),
        key=lambda work: rank(work, now_s),
    )
    if not order:
        return []
    batch = order[:1]
    if batch[0].kind is Kind.VOICE:
        return batch
    for work in order[1:]:
        if len(batch) >= limits.max_size:
            break
        if _fits(batch, work, limits):
            batch.append(work)
    return batch


def _fits(batch: Sequence[Work], work: Work, limits: BatchLimits) -> bool:
    leader = batch[0]
    if work.kind is not leader.kind:
        return False
    if leader.first and work.size > FIRST_CHUNK_GROWTH * leader.size:
        return False
    sizes = [member.size for member in batch] + [work.size]
    padded = max(sizes) * len(sizes)
    if work.kind is Kind.WHOLE and padded > limits.max_tokens:
        return False
    return padded <= MAX_PADDING * sum(sizes)
