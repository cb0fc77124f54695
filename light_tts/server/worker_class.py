"""Gunicorn's worker class for our HTTP workers."""

from __future__ import annotations

import socket

from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]

SEND_BUFFER_BYTES = 262_144
"""What the kernel keeps of an answer that its client has not taken: five seconds of audio. Of its own accord it takes
megabytes, and says that there is room again when a third is free: a listener who hears a stream as it plays would
seem to take nothing for half a minute, and be given up.
"""


class AudioWorker(UvicornWorker):  # type: ignore[misc]  # it has no types
    """Leaves what it sends uncompressed: speech does not shrink, and deflating a second of it holds up all others for
    milliseconds.
    """

    CONFIG_KWARGS = {**UvicornWorker.CONFIG_KWARGS, "ws_per_message_deflate": False}  # noqa: RUF012  # as its base has it

    def run(self) -> None:
        for listener in self.sockets:  # connections inherit it
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        super().run()
