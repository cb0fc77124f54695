"""The HTTP answer that carries audio: whole, or as it is made. Its errors are honest at every moment."""

from __future__ import annotations

import asyncio
import struct

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from light_tts.errors import Cancelled, LightTTSError
from light_tts.server.http_manager import HttpServerManager
from light_tts.server.playback import BYTES_PER_SAMPLE, SAMPLE_RATE_HZ
from light_tts.server.request_id import request_id_of
from light_tts.server.request_state import RequestState
from light_tts.server.schemas import SpeechJob

MEDIA_TYPES = {"pcm": "audio/pcm", "wav": "audio/wav"}
AUDIO_HEADERS = {
    "X-Sample-Rate": str(SAMPLE_RATE_HZ),
    "X-Channels": "1",
    "X-Bit-Depth": "16",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}
_PIECE = (
    SAMPLE_RATE_HZ * BYTES_PER_SAMPLE
)  # bytes sent at once: a listener in real time takes them in a second
_UNKNOWN_SIZE = 0xFFFF_FFFF
WAV_HEADER_BYTES = 44


class StreamAborted(Exception):
    """The answer broke off after it had begun. The server closes the connection without ending the body, so that no
    client takes a part for the whole.
    """


class AudioResponse(Response):
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
        super().__init__(media_type=MEDIA_TYPES[job.response_format], headers=AUDIO_HEADERS)
        del self.headers["Content-Length"]
        self._begun = False
        self._manager = manager
        self._job = job
        self._started_s = started_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        serving = asyncio.create_task(self._serve(scope, send), name="answer")
        gone = asyncio.create_task(_disconnect(receive), name="disconnect")
        try:
            await asyncio.wait((serving, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (serving, gone):
                task.cancel()
            await asyncio.gather(serving, gone, return_exceptions=True)
        if not serving.cancelled():
            serving.result()

    async def _serve(self, scope: Scope, send: Send) -> None:
        job, route = self._job, str(scope["path"])
        try:
            with self._manager.answering(job.request, request_id_of(scope), route, self._started_s) as state:
                if job.request.stream:
                    await self._send_stream(state, send)
                else:
                    await self._send_whole(state, send)
        except LightTTSError as error:
            if self._begun:
                raise StreamAborted(str(error)) from error
            error.param = error.param or job.names.about(error)
            raise

    async def _send_stream(self, state: RequestState, send: Send) -> None:
        samples = await state.next_audio()
        await self._start(send, _UNKNOWN_SIZE)
        while samples is not None:
            await self._send_body(send, state, samples)
            samples = await state.next_audio()
        await self._send(send, b"", more=False)

    async def _send_whole(self, state: RequestState, send: Send) -> None:
        num_bytes = await state.all_there()
        header_bytes = WAV_HEADER_BYTES if self._job.response_format == "wav" else 0
        self.headers["Content-Length"] = str(num_bytes + header_bytes)
        await self._start(send, num_bytes)
        while (samples := await state.next_audio()) is not None:
            await self._send_body(send, state, samples)
        await self._send(send, b"", more=False)

    async def _start(self, send: Send, num_bytes: int) -> None:
        self._begun = True
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        if self._job.response_format == "wav":
            await self._send(send, wav_header(num_bytes))

    async def _send_body(self, send: Send, state: RequestState, samples: bytes) -> None:
        for at in range(0, len(samples), _PIECE):
            state.check()
            await self._send(send, samples[at : at + _PIECE])

    async def _send(self, send: Send, body: bytes, *, more: bool = True) -> None:
        idle_s = self._manager.reader_idle_s
        try:
            async with asyncio.timeout(idle_s):
                await send({"type": "http.response.body", "body": body, "more_body": more})
        except TimeoutError as error:
            raise Cancelled(f"the client took no audio for {idle_s:g} s") from error
        except OSError as error:
            raise Cancelled("the client went away") from error


def wav_header(num_bytes: int) -> bytes:
    """Of 16-bit mono at 24 kHz. num_bytes: of samples; 0xFFFFFFFF where nobody knows yet"""
    total = min(num_bytes + 36, _UNKNOWN_SIZE)
    rate = SAMPLE_RATE_HZ * BYTES_PER_SAMPLE
    form = (16, 1, 1, SAMPLE_RATE_HZ, rate, BYTES_PER_SAMPLE, 8 * BYTES_PER_SAMPLE)
    return struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", total, b"WAVE", b"fmt ", *form, b"data", num_bytes)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
