"""Typed messages over ZeroMQ: every process binds one inbound socket and pushes to those of others."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
import zmq
import zmq.asyncio

from light_tts.messages import Message, Stage

M = TypeVar("M")
S = TypeVar("S", bound="zmq.Socket[bytes] | zmq.asyncio.Socket")

_MAX_IPC_PATH = 100  # the kernel takes 107 bytes
_FORGET_PEER_S = 60.0  # an HTTP worker that got nothing for so long may be gone: its connection is dropped


def address(run_dir: Path, stage: Stage, index: int) -> str:
    """Where a process listens: `ipc://RUN_DIR/STAGE-INDEX`. The index of an HTTP worker is its pid.

    Raises ValueError if run_dir is too long for a socket's name.
    """
    return _ipc(run_dir / f"{stage.value}-{index}")


def supervisor_address(run_dir: Path) -> str:
    return _ipc(run_dir / "supervisor")


def _ipc(path: Path) -> str:
    if len(os.fsencode(path)) > _MAX_IPC_PATH:
        raise ValueError(
            f"socket path {path} is longer than {_MAX_IPC_PATH} bytes: choose a shorter --run_dir"
        )
    return f"ipc://{path}"


class Inbox(Generic[M]):
    """The inbound socket of a process without an event loop. kind: the union of messages that it takes."""

    def __init__(self, bind_to: str, kind: type[M]) -> None:
        self._context = zmq.Context()
        self._socket = _bound(self._context.socket(zmq.PULL), bind_to)
        self._decoder = msgspec.msgpack.Decoder(kind)

    def receive(self, timeout_s: float | None = None) -> M | None:
        """The next message; None if none comes in time. None waits for ever, 0 does not wait.

        Raises msgspec.DecodeError for what is none of the messages; the next call goes on behind it.
        """
        if timeout_s is not None and not self._socket.poll(max(0, round(timeout_s * 1000))):
            return None
        return self._decoder.decode(self._socket.recv())

    def wait(self, timeout_s: float, *, also: int) -> None:
        """Until a message has come, the file descriptor `also` is readable, or the time is over."""
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(also, zmq.POLLIN)
        poller.poll(max(0, round(timeout_s * 1000)))

    def drain(self) -> Iterator[M]:
        """Everything that is there now."""
        while (message := self.receive(0)) is not None:
            yield message

    def close(self) -> None:
        self._socket.close(linger=0)
        self._context.term()


class AsyncInbox(Generic[M]):
    """The inbound socket of a process with an event loop."""

    def __init__(self, bind_to: str, kind: type[M]) -> None:
        self._context = zmq.asyncio.Context()
        self._socket = _bound(self._context.socket(zmq.PULL), bind_to)
        self._decoder = msgspec.msgpack.Decoder(kind)

    async def receive(self) -> M:
        """Raises msgspec.DecodeError for what is none of the messages; the next call goes on behind it."""
        return self._decoder.decode(await self._socket.recv())

    def close(self) -> None:
        self._socket.close(linger=0)
        self._context.term()


class Outbox:
    """Pushes to the inboxes of others; connects on first use. Never blocks: queues are bounded by admission at the
    door. One thread only; several threads share one through a queue of their own.
    """

    def __init__(self) -> None:
        self._context = zmq.Context()
        self._sockets: dict[str, zmq.Socket[bytes]] = {}
        self._last_sent_s: dict[str, float] = {}
        self._encoder = msgspec.msgpack.Encoder()

    def send(self, to: str, message: Message) -> None:
        """Queue a message; what is sent to one address arrives in order. A peer that is gone loses it, or gets it
        once it listens again.
        """
        socket = self._sockets.get(to)
        if socket is None:
            socket = self._context.socket(zmq.PUSH)
            socket.set_hwm(0)
            try:
                socket.connect(to)
            except zmq.ZMQError:  # no address: a socket left open would keep `close` waiting for ever
                socket.close(linger=0)
                raise
            self._sockets[to] = socket
        socket.send(self._encoder.encode(message))
        self._last_sent_s[to] = time.monotonic()

    def forget(self, to: str) -> None:
        """Drop the connection to a peer that will not come back, and what waits for it."""
        self._last_sent_s.pop(to, None)
        socket = self._sockets.pop(to, None)
        if socket is not None:
            socket.close(linger=0)

    def forget_silent(self, silent_s: float = _FORGET_PEER_S) -> None:
        """Drop the connections to peers that were sent nothing for so long: a new one is made where it is needed."""
        limit_s = time.monotonic() - silent_s
        for peer in [peer for peer, sent_s in self._last_sent_s.items() if sent_s < limit_s]:
            self.forget(peer)

    def close(self, linger_s: float = 1.0) -> None:
        for socket in self._sockets.values():
            socket.close(linger=round(linger_s * 1000))
        self._sockets.clear()
        self._context.term()


def _bound(socket: S, bind_to: str) -> S:
    socket.set_hwm(0)
    path = bind_to.removeprefix("ipc://")
    socket.bind(bind_to)
    os.chmod(path, 0o600)
    return socket
