"""When the listener of a request runs dry: audio handed out so far against the time since it began to play."""

from __future__ import annotations

from dataclasses import dataclass, field

TOKENS_PER_S = 25.0
UNKNOWN_SEGMENT_S = 3.0  # taken for the length of an earlier segment of which nothing is known here


@dataclass(slots=True)
class _Heard:
    """sent_s: audio handed out; expected_s: of all tokens so far; ended: sent_s is all there will be"""

    sent_s: float = 0.0
    expected_s: float = 0.0
    ended: bool = False

    @property
    def length_s(self) -> float:
        return self.sent_s if self.ended else max(self.sent_s, self.expected_s)


@dataclass(slots=True)
class PlaybackClock:
    """One request's. Segments play in order, from the first audio of segment 0 on.

    started_s: None until then. A listener who ran dry goes on when audio comes: `started_s` moves with every pause.
    underrun_s: length of these pauses together
    """

    started_s: float | None = None
    underrun_s: float = 0.0
    _segments: dict[int, _Heard] = field(default_factory=dict)

    def expect(self, segment: int, num_tokens: int, speed: float) -> None:
        """A segment has so many tokens by now."""
        self._heard(segment).expected_s = num_tokens / TOKENS_PER_S / speed

    def sent(self, segment: int, audio_s: float, now_s: float, *, last: bool) -> None:
        """Audio of a segment was handed out."""
        heard = self._heard(segment)
        if self.started_s is None and segment == 0 and audio_s > 0:
            self.started_s = now_s
        elif audio_s > 0 and self._playing(segment):
            pause = max(0.0, now_s - self.dry_at(segment, now_s))
            self.underrun_s += pause
            self.started_s = (self.started_s or now_s) + pause
        heard.sent_s += audio_s
        heard.ended = last

    def dry_at(self, segment: int, now_s: float) -> float:
        """When the next audio of a segment is due. Before the request plays, as if it began now."""
        start = now_s if self.started_s is None else self.started_s
        before = sum(self._length(earlier) for earlier in range(segment))
        heard = self._segments.get(segment)
        return start + before + (heard.sent_s if heard else 0.0)

    def _playing(self, segment: int) -> bool:
        """Whether all that comes before the next audio of this segment has been handed out."""
        if self.started_s is None:
            return False
        return all(n in self._segments and self._segments[n].ended for n in range(segment))

    def _length(self, segment: int) -> float:
        return self._segments[segment].length_s if segment in self._segments else UNKNOWN_SEGMENT_S

    def _heard(self, segment: int) -> _Heard:
        return self._segments.setdefault(segment, _Heard())
