"""The HTTP answer that carries audio: whole, or as it is made. Its errors are honest at every moment."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from light_tts.errors import Cancelled, LightTTSError
from light_tts.server import sse
from light_tts.server.containers import MEDIA_TYPES, WAV_HEADER_BYTES, Packer
from light_tts.server.http_manager import HttpServerManager
from light_tts.server.playback import BYTES_PER_SAMPLE, SAMPLE_RATE_HZ
from light_tts.server.request_id import request_id_of
from light_tts.server.request_state import RequestState
from light_tts.server.schemas import SpeechJob

AUDIO_HEADERS = {
    "X-Sample-Rate": str(SAMPLE_RATE_HZ),
    "X-Channels": "1",
    "X-Bit-Depth": "16",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}
PIECE = (
    SAMPLE_RATE_HZ * BYTES_PER_SAMPLE
)  # bytes sent at once: a listener in real time takes them in a second
_HEADER_BYTES = {"pcm": 0, "wav": WAV_HEADER_BYTES}  # of the formats whose size follows from the samples


class StreamAborted(Exception):
    """The answer broke off after it had begun. The server closes the connection without ending the body, so that no
    client takes a part for the whole.
    """


class Answer(Response):
    """An answer that is worked on while it is sent; the work ends with it, or when its client goes away."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        serving = asyncio.create_task(self.serve(scope, send), name="answer")
        gone = asyncio.create_task(_disconnect(receive), name="disconnect")
        try:
            await asyncio.wait((serving, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (serving, gone):
                task.cancel()
            await asyncio.gather(serving, gone, return_exceptions=True)
        if not serving.cancelled():
            serving.result()

    @abstractmethod
    async def serve(self, scope: Scope, send: Send) -> None:
        """Work and send. Raises LightTTSError before the first byte."""


class AudioResponse(Answer):
    """Sends nothing before it is clear that there is audio, so that an error until then has its own status.

    started_s: when the request came, of `time.perf_counter()`
    Calling it raises LightTTSError before the first byte, StreamAborted after it.
    """

    def __init__(
        self,
        manager: HttpServerManager,
        job: SpeechJob,
        started_s: float,
    ) -> None:
        media_type = sse.MEDIA_TYPE if job.events else MEDIA_TYPES[job.response_format]
        super().__init__(media_type=media_type, headers=AUDIO_HEADERS)
        del self.headers["Content-Length"]
        self._begun = False
        self._manager = manager
        self._job = job
        self._started_s = started_s

    async def serve(self, scope: Scope, send: Send) -> None:
        job, route = self._job, str(scope["path"])
        try:
            with self._manager.answering(job.request, request_id_of(scope), route, self._started_s) as state:
                if job.request.stream:
                    await self._send_stream(state, send)
                else:
                    await self._send_whole(state, send)
        except LightTTSError as error:
            error.param = error.param or job.names.about(error)
            if not self._begun:
                raise
            await self._tell(error, send)
            raise StreamAborted(str(error)) from error

    async def _tell(self, error: LightTTSError, send: Send) -> None:
        """Events can say what happened; the connection is closed all the same."""
        if self._job.events and not isinstance(error, Cancelled):
            with suppress(Cancelled):
                await self._send(send, sse.error_event(error), more=False)

    async def _send_stream(self, state: RequestState, send: Send) -> None:
        samples = await state.next_audio()
        with Packer(self._job.response_format) as packer:
            await self._start(send)
            while samples is not None:
                await self._send_samples(send, state, packer, samples)
                samples = await state.next_audio()
            await self._finish(send, state, packer)

    async def _send_whole(self, state: RequestState, send: Send) -> None:
        num_bytes = await state.all_there()
        header_bytes = _HEADER_BYTES.get(self._job.response_format)
        if header_bytes is not None and not self._job.events:
            self.headers["Content-Length"] = str(num_bytes + header_bytes)
        with Packer(self._job.response_format, num_bytes) as packer:
            await self._start(send)
            while (samples := await state.next_audio()) is not None:
                await self._send_samples(send, state, packer, samples)
            await self._finish(send, state, packer)

    async def _start(self, send: Send) -> None:
        self._begun = True
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})

    async def _send_samples(self, send: Send, state: RequestState, packer: Packer, samples: bytes) -> None:
        for at in range(0, len(samples), PIECE):
            state.check()
            packed = self._framed(await packer.pack(samples[at : at + PIECE]))
            if packed:  # a codec may keep a short piece for its next frame
                await self._send(send, packed)

    async def _finish(self, send: Send, state: RequestState, packer: Packer) -> None:
        tail = self._framed(await packer.finish())
        if self._job.events:
            tail += sse.done_event(sse.usage_of(state))
        await self._send(send, tail, more=False)

    def _framed(self, data: bytes) -> bytes:
        return sse.delta_event(data, self._job.response_format) if self._job.events else data

    async def _send(self, send: Send, body: bytes, *, more: bool = True) -> None:
        await send_body(self._manager, send, body, more=more)


async def send_body(manager: HttpServerManager, send: Send, body: bytes, *, more: bool = True) -> None:
    """A piece of an answer. Raises Cancelled if the client does not take it."""
    idle_s = manager.reader_idle_s
    try:
        async with asyncio.timeout(idle_s):
            await send({"type": "http.response.body", "body": body, "more_body": more})
    except TimeoutError as error:
        raise Cancelled(f"the client took no audio for {idle_s:g} s") from error
    except OSError as error:
        raise Cancelled("the client went away") from error


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
