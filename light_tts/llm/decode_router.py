"""Which decode process gets a segment: the least loaded one; of equals, one that has used the voice before."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

_VOICES = 64  # remembered per decode process


@dataclass(slots=True)
class _Peer:
    """open: segments that it has not closed yet; voices: keys, the latest last"""

    open: set[tuple[str, int]] = field(default_factory=set)
    voices: OrderedDict[str, None] = field(default_factory=OrderedDict)

    def use(self, voice: str) -> None:
        self.voices[voice] = None
        self.voices.move_to_end(voice)
        if len(self.voices) > _VOICES:
            self.voices.popitem(last=False)


class DecodeRouter:
    """Knows the decode processes that are there, by index, and what each has in hand."""

    def __init__(self) -> None:
        self._peers: dict[int, _Peer] = {}

    @property
    def indices(self) -> list[int]:
        return sorted(self._peers)

    def load(self, index: int) -> int:
        """Open segments of a process; 0 if it is not there."""
        peer = self._peers.get(index)
        return 0 if peer is None else len(peer.open)

    def choose(self, request_id: str, segment: int, voice: str) -> int | None:
        """Where this segment goes from now on; None where no decode process is there."""
        if not self._peers:
            return None
        index, peer = min(
            self._peers.items(), key=lambda item: (len(item[1].open), voice not in item[1].voices, item[0])
        )
        peer.open.add((request_id, segment))
        peer.use(voice)
        return index

    def close(self, index: int, request_id: str, segment: int) -> None:
        """A process holds nothing of the segment any more. Harmless if it never did."""
        if peer := self._peers.get(index):
            peer.open.discard((request_id, segment))

    def ready(self, index: int) -> None:
        """A process is there. If it was there before, it goes on as it is."""
        self._peers.setdefault(index, _Peer())

    def lost(self, index: int) -> None:
        """A process is gone, with all that it held."""
        self._peers.pop(index, None)
