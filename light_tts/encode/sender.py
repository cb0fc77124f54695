"""One way out for many threads."""

from __future__ import annotations

import logging
import queue
import threading

from light_tts.messages import Message
from light_tts.transport import Outbox

logger = logging.getLogger(__name__)

_JOIN_S = 2.0


class Sender:
    """Sends in the order of the calls, from a thread of its own. Safe to use from several threads."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[str, Message] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="sender", daemon=True)
        self._thread.start()

    def send(self, to: str, message: Message) -> None:
        self._queue.put((to, message))

    def close(self) -> None:
        """Send what is queued, then end."""
        self._queue.put(None)
        self._thread.join(_JOIN_S)

    def _work(self) -> None:
        outbox = Outbox()
        while (item := self._queue.get()) is not None:
            try:
                outbox.send(*item)
            except Exception:  # one message that cannot be sent must not stop those of others
                logger.exception("a %s could not be sent", type(item[1]).__name__)
            outbox.forget_silent()
        outbox.close()
