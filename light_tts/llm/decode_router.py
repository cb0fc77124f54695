"""Which decode process gets a segment: the least loaded one; of equals, one that has used the voice before."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

_VOICES = 64  # remembered per decode process


@dataclass(slots=True)
class _Peer:
    """open: segments that it has not closed yet, and whose they are; voices: keys, the latest last"""

    open: dict[tuple[str, int], str] = field(default_factory=dict)
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

    def choose(self, request_id: str, segment: int, voice: str, owner: str) -> int | None:
        """Where this segment goes from now on; None where no decode process is there. owner: who hears its audio"""
        if not self._peers:
            return None
        index, peer = min(
            self._peers.items(), key=lambda item: (len(item[1].open), voice not in item[1].voices, item[0])
        )
        peer.open[request_id, segment] = owner
        peer.use(voice)
        return index

    def close(self, index: int, request_id: str, segment: int) -> None:
        """A process holds nothing of the segment any more. Harmless if it never did."""
        if peer := self._peers.get(index):
            peer.open.pop((request_id, segment), None)

    def ready(self, index: int) -> None:
        """A process is there. If it was there before, it goes on as it is."""
        self._peers.setdefault(index, _Peer())

    def requests_of(self, owner: str) -> set[str]:
        """Requests that have open segments somewhere."""
        return {
            request_id
            for peer in self._peers.values()
            for (request_id, _), whose in peer.open.items()
            if whose == owner
        }

    def lost(self, index: int) -> dict[tuple[str, int], str]:
        """A process is gone, with all that it held. Returns these segments and whose they are."""
        peer = self._peers.pop(index, None)
        return {} if peer is None else peer.open
