"""Text in while it is written, speech out while it is made: `WS /inference_zero_shot_bistream`.

The client sends JSON with the fields of `BistreamForm`, the recording as bytes unless it names a voice, then any number
of `{"tts_text": ...}` and at last `{"finish": true}`. It gets int16 samples as bytes until the server closes; before
that, where something failed, one JSON text with `error`. `{"cancel": true}` ends it at any time, `{"ping": ...}` is
answered by `{"pong": ...}`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict
from starlette.websockets import WebSocket, WebSocketDisconnect

from light_tts.errors import (
    BodyTooLarge,
    Cancelled,
    InvalidBody,
    LightTTSError,
    RequestTimeout,
    status_of,
)
from light_tts.server.body import Fields, parse_json_object, validated
from light_tts.server.error_response import body_of
from light_tts.server.http_manager import HttpServerManager
from light_tts.server.limits import check, check_length, naming
from light_tts.server.playback import BYTES_PER_SAMPLE, SAMPLE_RATE_HZ
from light_tts.server.request_id import request_id_of
from light_tts.server.request_state import RequestState
from light_tts.server.schemas import BistreamForm, SpeechJob

logger = logging.getLogger(__name__)

_PIECE = SAMPLE_RATE_HZ * BYTES_PER_SAMPLE
_SMALL = 32_768  # characters that are parsed in less time than a thread takes to start
_GONE = (WebSocketDisconnect, OSError, RuntimeError)  # RuntimeError: the close was on its way already
_CLOSE_CODES = {413: 1009, 429: 1013, 503: 1013}


class _TextMessage(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)
    tts_text: str = ""
    finish: bool = False
    cancel: bool = False


@dataclass(frozen=True, slots=True)
class _Opening:
    """What is known once there is something to say."""

    job: SpeechJob
    text: str
    finish: bool


class BistreamConnection:
    """One connection is one request. It holds a place among the accepted ones from its first text on."""

    def __init__(self, manager: HttpServerManager, websocket: WebSocket) -> None:
        self._manager = manager
        self._websocket = websocket
        self._max_bytes = round(manager.config.max_body_mb * 1e6)
        self._gone = False  # nobody is there to be told anything
        self._num_chars = 0
        self._num_messages = 0

    async def run(self) -> None:
        """Until the connection is closed. No error leaves."""
        try:
            await self._websocket.accept()
            await self._converse()
            await self._close(1000)
        except Cancelled:
            await self._close(1000)
        except WebSocketDisconnect:
            self._gone = True
        except LightTTSError as error:
            await self._tell(error)
        except Exception:
            logger.exception("a bistream connection failed")
            await self._tell(LightTTSError("something went wrong here: the server's log tells what"))

    async def _converse(self) -> None:
        try:
            with ExitStack() as held:
                async with asyncio.timeout(self._manager.config.request_timeout_s):
                    opening = await self._open(held)
        except TimeoutError as error:
            late = RequestTimeout("no text came in time (--request_timeout_s)")
            self._manager.count_refused(late)
            raise late from error
        except LightTTSError as error:
            self._manager.count_refused(error)
            raise
        if opening is not None:
            await self._speak(opening)

    async def _open(self, held: ExitStack) -> _Opening | None:
        """None if the client ends it before it has said anything. held: what counts a recording among those that
        arrive, for it takes memory until there is text
        """
        form: BistreamForm | None = None
        recording: bytes | None = None
        text = ""
        while True:
            received = await self._receive()
            if isinstance(received, bytes):
                if recording is not None:
                    raise InvalidBody("there is more than one recording")
                recording = received
                held.enter_context(self._manager.arriving())
                continue
            if form is None:
                setup = {key: value for key, value in received.items() if key != "tts_text"}
                form = await asyncio.to_thread(validated, BistreamForm, setup)
                form.job()  # tells at once what cannot be
                if form.prompt_wav is not None:
                    held.enter_context(self._manager.arriving())
            message = self._message(received)
            text += message.tts_text
            if text.strip():
                return _Opening(self._job(form, recording), text, message.finish)
            if message.finish:
                return None

    def _job(self, form: BistreamForm, recording: bytes | None) -> SpeechJob:
        if recording is not None:
            if form.prompt_wav is not None:
                raise InvalidBody("there is more than one recording")
            form = form.model_copy(update={"prompt_wav": recording})
        job = form.job()
        check(job.request, job.names, self._manager.config)
        return job

    async def _speak(self, opening: _Opening) -> None:
        websocket, job = self._websocket, opening.job
        route, public_id = websocket.url.path, request_id_of(websocket.scope)
        try:
            with self._manager.answering(job.request, public_id, route, time.perf_counter()) as state:
                self._manager.append_text(state, opening.text, end=opening.finish)
                reading = asyncio.create_task(self._read_text(state), name="bistream text")
                writing = asyncio.create_task(self._write_audio(state), name="bistream audio")
                await _first_of(writing, reading)
        except LightTTSError as error:
            error.param = error.param or job.names.about(error)
            raise

    async def _read_text(self, state: RequestState) -> None:
        """Pass text on, for as long as the connection lasts. Raises Cancelled at its end."""
        while True:
            received = await self._receive()
            if isinstance(received, bytes):
                raise InvalidBody("the recording must come before the text")
            message = self._message(received)
            if not message.tts_text and not message.finish:
                continue
            if not state.text_open:
                raise InvalidBody("there is text after finish")
            self._manager.append_text(state, message.tts_text, end=message.finish)

    async def _write_audio(self, state: RequestState) -> None:
        while (samples := await state.next_audio()) is not None:
            for at in range(0, len(samples), _PIECE):
                state.check()
                await self._send(samples[at : at + _PIECE])

    async def _send(self, data: bytes | str) -> None:
        """Raises Cancelled if the client does not take it."""
        try:
            async with asyncio.timeout(self._manager.reader_idle_s):
                if isinstance(data, bytes):
                    await self._websocket.send_bytes(data)
                else:
                    await self._websocket.send_text(data)
        except TimeoutError as error:
            self._gone = True
            raise Cancelled(f"the client took nothing for {self._manager.reader_idle_s:g} s") from error
        except _GONE as error:
            self._gone = True
            raise Cancelled("the client went away") from error

    def _message(self, fields: Fields) -> _TextMessage:
        message = validated(_TextMessage, fields)
        if message.cancel:
            raise Cancelled("the client cancelled")
        self._num_chars += len(message.tts_text)
        self._num_messages += 1
        limit = self._manager.config.max_text_chars
        with naming("tts_text"):
            # Messages count as well: ones without text would cost nothing.
            num_counted = max(self._num_chars, self._num_messages)
            check_length("tts_text", num_counted, limit, "--max_text_chars")
        return message

    async def _receive(self) -> bytes | Fields:
        """The next message that is no ping. Raises Cancelled once the client is gone."""
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                self._gone = True
                raise Cancelled("the client went away")
            binary: bytes | None = message.get("bytes")
            data: bytes | str = message.get("text") or "" if binary is None else binary
            if len(data) > self._max_bytes:
                raise BodyTooLarge(f"a message has more than {self._max_bytes / 1e6:g} MB (--max_body_mb)")
            if isinstance(data, bytes):
                return data
            fields = await self._parsed(data)
            if "ping" not in fields:
                return fields
            await self._send(json.dumps({"pong": fields["ping"]}))

    async def _parsed(self, text: str) -> Fields:
        if len(text) <= _SMALL:
            return parse_json_object(text)
        return await asyncio.to_thread(parse_json_object, text)

    async def _tell(self, error: LightTTSError) -> None:
        if self._gone:
            return
        try:
            await self._send(json.dumps(body_of(error)))
        except Cancelled:
            return
        status = status_of(error.code)
        await self._close(_CLOSE_CODES.get(status, 1011 if status >= 500 else 1008))

    async def _close(self, code: int) -> None:
        if self._gone:
            return
        try:
            await self._websocket.close(code)
        except _GONE:
            self._gone = True


async def _first_of(writing: asyncio.Task[None], reading: asyncio.Task[None]) -> None:
    """Until all audio is sent, or either fails; neither outlives this."""
    tasks = (writing, reading)
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if task in done:
            task.result()
            return
