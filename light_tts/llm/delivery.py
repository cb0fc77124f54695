"""Speech tokens on their way to a decode process.

A streamed segment is given to a decode process with its first token, so that later tokens follow as they come; any
other one with its last, so that the loss of a decode process costs it nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from light_tts.errors import Unavailable
from light_tts.llm.decode_router import DecodeRouter
from light_tts.llm.segments import Segment
from light_tts.messages import DecodeOpen, Message, Routed, SpeechTokens, Stage
from light_tts.observe import Metrics, log_stage, request_scope

logger = logging.getLogger(__name__)


class Delivery:
    """send: to an address; address: of a process"""

    def __init__(
        self,
        router: DecodeRouter,
        metrics: Metrics,
        send: Callable[[str, Message], None],
        address: Callable[[Stage, int], str],
    ) -> None:
        self._router = router
        self._metrics = metrics
        self._send = send
        self._address = address

    def forward(self, segment: Segment, *, end: bool = False) -> None:
        """Send the tokens that have come. Raises Unavailable if there is no decode process."""
        if segment.decode is None:
            segment.decode = self._open(segment)
        task = segment.task
        tokens = SpeechTokens(task.request_id, task.segment, tuple(segment.tokens), end)
        self._send(self._address(Stage.DECODE, segment.decode), tokens)
        segment.tokens.clear()
        if end:
            self._tell_time(segment)

    def _tell_time(self, segment: Segment) -> None:
        took_s = 0.0 if segment.started_s is None else time.monotonic() - segment.started_s
        self._metrics.stage_seconds.labels("llm").observe(took_s)
        with request_scope(segment.task.request_id):
            log_stage(logger, segment.task.request_id, "llm", took_s)

    def _open(self, segment: Segment) -> int:
        """Index of the decode process that has it from now on."""
        task = segment.task
        decode = self._router.choose(task.request_id, task.segment, task.voice.key, task.reply_to)
        if decode is None:
            raise Unavailable("no decode process is ready")
        self._send(task.reply_to, Routed(task.request_id, task.segment, decode))
        self._send(
            self._address(Stage.DECODE, decode),
            DecodeOpen(
                request_id=task.request_id,
                reply_to=task.reply_to,
                deadline_s=task.deadline_s,
                segment=task.segment,
                voice=task.voice,
                seed=task.seed,
                stream=task.stream,
                speed=task.speed,
            ),
        )
        return decode
