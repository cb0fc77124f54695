"""How much streaming state may be held at once, as a count of bytes; no torch."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from heapq import nlargest


@dataclass(slots=True)
class StateBudget:
    """Memory of streams and of voices computed ahead. `light_tts.decode.memory` says where the limit comes from.

    A stream is charged what it is expected to hold at its end, or what it was measured to hold if that is more: one
    that runs can always go on. New streams wait while they would go beyond the limit, except that one stream may
    always run: what can never fit is tried all the same rather than left waiting.
    voice_share: part of the limit that voices may take; streams may take what they leave
    in_flight: streams that batches may hold at once; copies: what a batch makes of its members' states meanwhile
    """

    limit_bytes: int
    voice_share: float = 0.3
    in_flight: int = 0
    copies: int = 0
    _streams: dict[Hashable, int] = field(default_factory=dict)
    _voices: dict[str, int] = field(default_factory=dict)

    @property
    def stream_bytes(self) -> int:
        return sum(self._streams.values())

    @property
    def voice_bytes(self) -> int:
        return sum(self._voices.values())

    @property
    def num_streams(self) -> int:
        return len(self._streams)

    def reserve(self, stream: Hashable, expected_bytes: int) -> bool:
        """Let a stream begin, unless it must wait for others to end."""
        held = [*self._streams.values(), expected_bytes]
        computing = self.copies * sum(nlargest(self.in_flight, held))
        if self._streams and sum(held) + computing + self.voice_bytes > self.limit_bytes:
            return False
        self._streams[stream] = expected_bytes
        return True

    def measured(self, stream: Hashable, actual_bytes: int) -> None:
        """What a stream holds by now; nothing for one that was released."""
        if stream in self._streams:
            self._streams[stream] = max(self._streams[stream], actual_bytes)

    def release(self, stream: Hashable) -> None:
        self._streams.pop(stream, None)

    def voice_fits(self, expected_bytes: int) -> bool:
        """Whether a voice may be computed ahead besides those that are there."""
        if self.voice_bytes + expected_bytes > self.limit_bytes * self.voice_share:
            return False
        return self.stream_bytes + self.voice_bytes + expected_bytes <= self.limit_bytes

    def hold_voice(self, key: str, actual_bytes: int) -> None:
        self._voices[key] = actual_bytes

    def release_voice(self, key: str) -> None:
        self._voices.pop(key, None)
