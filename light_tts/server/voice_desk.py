"""An HTTP worker's way to the registered voices: reads and small changes on disk, the rest by an encode process."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from light_tts.config import ServerConfig
from light_tts.encode.voice_folder import VoiceFolder
from light_tts.encode.voices_told import read_own_voices
from light_tts.errors import (
    InvalidInput,
    LightTTSError,
    Overloaded,
    RequestTimeout,
    StageError,
    Unavailable,
    VoiceExists,
    VoiceNotFound,
)
from light_tts.messages import Message, PeerLost, RequestFailed, Stage, StoreVoices, ToHttp, VoicesStored
from light_tts.server.door import Door
from light_tts.voice_info import ListedVoice, VoiceInfo

logger = logging.getLogger(__name__)

MAX_IN_WORK = 16  # voices of one worker that wait for an encode process
_GRACE_S = 5.0  # for the encode process's own word on a deadline that passed
Send = Callable[[Stage, int, Message], None]


@dataclass(frozen=True, slots=True)
class StoredVoice:
    """A registered voice. num_bytes: of its file"""

    info: VoiceInfo
    num_bytes: int


@dataclass(frozen=True, slots=True)
class _Job:
    encode: int
    stored: asyncio.Future[tuple[VoiceInfo, ...]]


class VoiceDesk:
    """Every worker looks at the folder itself, so that each sees at once what any process changed.

    One event loop; what touches the disk runs in threads.
    """

    def __init__(self, config: ServerConfig, run_dir: Path, door: Door, reply_to: str, send: Send) -> None:
        self._config = config
        self._run_dir = run_dir
        self._door = door
        self._reply_to = reply_to
        self._send = send
        self._numbers = itertools.count()
        self._jobs: dict[str, _Job] = {}
        folder = config.voices_dir
        self._folder = None if folder is None else VoiceFolder(folder, config.max_voices)

    def take(self, message: ToHttp) -> bool:
        """Whether the message was about a voice that is being registered."""
        if not isinstance(message, VoicesStored | RequestFailed):
            return False
        job = self._jobs.get(message.request_id)
        if isinstance(message, VoicesStored):
            if job is not None and not job.stored.done():
                job.stored.set_result(message.voices)
            return True
        if job is not None and not job.stored.done():
            job.stored.set_exception(StageError(message.code, message.message))
        return job is not None

    def lose(self, lost: PeerLost) -> None:
        """Whether the voice was stored before the process was lost is for its client to look up."""
        for job in self._jobs.values():
            if lost.stage is Stage.ENCODE and lost.index == job.encode and not job.stored.done():
                text = "the encode process that worked on the voice was lost: look whether the voice is there"
                job.stored.set_exception(Unavailable(text))

    async def store(self, message: StoreVoices, public_id: str) -> tuple[VoiceInfo, ...]:
        """Have voices encoded and stored. Fills in id, address and deadline.

        Raises Overloaded, Unavailable, RequestTimeout, or what the encode process answers.
        """
        _ = self.folder
        if len(self._jobs) >= MAX_IN_WORK:
            raise Overloaded(f"{len(self._jobs)} voices are being registered here, limit {MAX_IN_WORK}")
        request_id = f"{public_id}/{os.getpid()}.v{next(self._numbers)}"
        timeout_s = self._config.request_timeout_s
        job = _Job(self._encode(), asyncio.get_running_loop().create_future())
        self._jobs[request_id] = job
        message = msgspec.structs.replace(
            message, request_id=request_id, reply_to=self._reply_to, deadline_s=time.time() + timeout_s
        )
        try:
            self._send(Stage.ENCODE, job.encode, message)
            async with asyncio.timeout(timeout_s + _GRACE_S):
                return await job.stored
        except TimeoutError as error:
            raise RequestTimeout("the deadline passed before the voice was stored") from error
        finally:
            del self._jobs[request_id]

    @property
    def folder(self) -> VoiceFolder:
        """Raises InvalidInput where voices cannot be registered."""
        if self._folder is None:
            raise InvalidInput("voices cannot be registered: no folder for them was given (--voices_dir)")
        return self._folder

    async def own_voices(self) -> tuple[ListedVoice, ...]:
        """Those of the model; a registered voice of the same name is the one that speaks."""
        return await asyncio.to_thread(read_own_voices, self._run_dir)

    async def registered(self) -> list[StoredVoice]:
        """All that can be read, by name."""
        return [] if self._folder is None else await asyncio.to_thread(_read_all, self._folder)

    async def info(self, name: str) -> StoredVoice | None:
        """None if it is not registered. Raises CorruptFile."""
        folder = self._folder
        if folder is None:
            return None
        try:
            return await asyncio.to_thread(_read, folder, name)
        except VoiceNotFound:
            return None

    async def rename(self, old: str, new: str) -> StoredVoice:
        """Raises InvalidInput, VoiceNotFound, VoiceExists or Unavailable."""
        folder = await self._changeable(old)
        await self._refuse_own(new)
        with _disk_errors():
            await asyncio.to_thread(folder.rename, old, new)
        return await asyncio.to_thread(_read, folder, new)

    async def delete(self, name: str) -> None:
        """Raises InvalidInput, VoiceNotFound or Unavailable."""
        folder = await self._changeable(name)
        with _disk_errors():
            await asyncio.to_thread(folder.delete, name)

    async def _changeable(self, name: str) -> VoiceFolder:
        """The folder, unless `name` is nothing but a voice of the model."""
        if self._folder is None or await asyncio.to_thread(self._folder.stamp, name) is None:
            if any(voice.name == name for voice in await self.own_voices()):
                raise InvalidInput(f"{name!r} is a voice of the model, which cannot be changed")
            raise VoiceNotFound(f"there is no voice {name[:140]!r}")
        return self._folder

    async def _refuse_own(self, name: str) -> None:
        if any(voice.name == name for voice in await self.own_voices()):
            raise VoiceExists(f"{name!r} is a voice of the model, which cannot be replaced")

    def _encode(self) -> int:
        """The ready encode process with the least of these jobs. Raises Unavailable."""
        state = self._door.state()
        ready = self._door.ready(Stage.ENCODE)
        if state is None or not ready or self._door.draining or state.draining:
            raise Unavailable("no encode process is ready at the moment")
        at_work = [job.encode for job in self._jobs.values()]
        return min(ready, key=lambda index: (at_work.count(index), index))


def _read_all(folder: VoiceFolder) -> list[StoredVoice]:
    found = []
    for name in folder.names():
        try:
            found.append(_read(folder, name))
        except LightTTSError as error:  # one bad voice does not spoil the list
            logger.warning("voice %s cannot be used: %s", name, error)
    return found


def _read(folder: VoiceFolder, name: str) -> StoredVoice:
    return StoredVoice(folder.info(name), folder.num_bytes(name))


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        logger.error("voices cannot be changed: %s", error)
        raise Unavailable(f"voices cannot be changed: {error.strerror}") from error
