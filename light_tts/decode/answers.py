"""What a decode process says of its segments, and to whom."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from light_tts.decode.session import Segment
from light_tts.errors import LightTTSError
from light_tts.messages import AudioChunk, Message, RequestFailed, SegmentClosed
from light_tts.observe import Metrics, log_stage, request_scope

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answers:
    """index: of this decode process; llm: address of the LLM process; send: to an address"""

    index: int
    llm: str
    sample_rate_hz: int
    metrics: Metrics
    send: Callable[[str, Message], None]

    def say(self, segment: Segment, samples: bytes, *, last: bool) -> None:
        """Audio (int16) to the client; chunks that hold none are left out, but not the last."""
        num_samples = len(samples) // 2
        audio_s = num_samples / self.sample_rate_hz
        segment.request.clock.sent(segment.number, audio_s, time.monotonic(), last=last)
        if not (num_samples or last):
            return
        request_id, num_tokens = segment.request.id, len(segment.tokens) if last else 0
        chunk = AudioChunk(request_id, segment.number, segment.num_chunks, samples, last, num_tokens)
        segment.num_chunks += 1
        self.send(segment.request.reply_to, chunk)
        if last:
            self.metrics.stage_seconds.labels("decode").observe(segment.work_s)
            log_stage(logger, request_id, "decode", segment.work_s)

    def failed(self, request_id: str, reply_to: str, error: LightTTSError) -> None:
        with request_scope(request_id):
            logger.warning("request failed: %s: %s", error.code, error)
        self.send(reply_to, RequestFailed(request_id, error.code, str(error)))

    def closed(self, request_id: str, segment: int) -> None:
        """Tell the router that the segment is no load any more."""
        self.send(self.llm, SegmentClosed(self.index, request_id, segment))
