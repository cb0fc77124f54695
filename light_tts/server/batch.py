"""`POST /v1/audio/speech/batch`: several texts in one request, each with its own outcome."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.types import Scope, Send

from light_tts.errors import InvalidInput, LightTTSError
from light_tts.server.audio_stream import PIECE, Answer, send_body
from light_tts.server.body import Fields, validated
from light_tts.server.containers import MEDIA_TYPES, Packer
from light_tts.server.error_response import body_of
from light_tts.server.http_manager import HttpServerManager
from light_tts.server.limits import check, naming
from light_tts.server.request_id import request_id_of
from light_tts.server.request_state import RequestState
from light_tts.server.schemas import SpeechJob
from light_tts.server.schemas_openai import OpenAISpeech
from light_tts.server.served import ServedNames
from light_tts.server.sse import usage_of

MAX_ITEMS = 32
_AT_ONCE = 8  # of one batch: it is not to fill the server alone


class SpeechBatch(BaseModel):
    """Fields beside `items` are what the items have in common; an item's own win."""

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)

    items: list[dict[str, Any]] = Field(description="each with the fields of /v1/audio/speech")

    def fields(self) -> list[Fields]:
        """Of each item, with what is common. Raises InvalidInput."""
        with naming("items"):
            if not 1 <= len(self.items) <= MAX_ITEMS:
                raise InvalidInput(f"items has {len(self.items)} entries, allowed are 1 to {MAX_ITEMS}")
        common = dict(self.model_extra or {})
        return [{**common, **item, "stream": False, "stream_format": "audio"} for item in self.items]


class BatchResponse(Answer):
    """JSON with the audio of all items in base64, once the last is there.

    Raises InvalidInput where there are too many or none.
    """

    def __init__(self, manager: HttpServerManager, batch: SpeechBatch, served: ServedNames) -> None:
        super().__init__(media_type="application/json")
        self._items = batch.fields()
        self._manager = manager
        self._served = served
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def serve(self, scope: Scope, send: Send) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._outcome(scope, index, fields))
                for index, fields in enumerate(self._items)
            ]
        results = [task.result() for task in tasks]
        succeeded = sum(result["status"] == "success" for result in results)
        content = {
            "id": f"speech-batch-{request_id_of(scope)}",
            "object": "audio.speech.batch",
            "results": results,
            "total": len(results),
            "succeeded": succeeded,
            "failed": len(results) - succeeded,
        }
        body = await asyncio.to_thread(lambda: json.dumps(content).encode())
        self.headers["Content-Length"] = str(len(body))
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        for at in range(0, len(body), PIECE):
            await send_body(self._manager, send, body[at : at + PIECE])
        await send_body(self._manager, send, b"", more=False)

    async def _outcome(self, scope: Scope, index: int, fields: Fields) -> dict[str, object]:
        async with self._places:
            started_s = time.perf_counter()
            try:
                job = await asyncio.to_thread(self._job, fields)
            except LightTTSError as error:
                self._manager.count_refused(error)
                return _failed(index, error)
            try:
                return {
                    "index": index,
                    "status": "success",
                    **await self._spoken(scope, index, job, started_s),
                }
            except LightTTSError as error:
                error.param = error.param or job.names.about(error)
                return _failed(index, error)

    def _job(self, fields: Fields) -> SpeechJob:
        job = self._served.job(validated(OpenAISpeech, fields))
        check(job.request, job.names, self._manager.config)
        return job

    async def _spoken(self, scope: Scope, index: int, job: SpeechJob, started_s: float) -> dict[str, object]:
        route, public_id = str(scope["path"]), f"{request_id_of(scope)}.{index}"
        with self._manager.answering(job.request, public_id, route, started_s) as state:
            file = await _file_of(state, job.response_format)
            audio = await asyncio.to_thread(base64.b64encode, file)
            return {
                "audio_data": audio.decode("ascii"),
                "media_type": MEDIA_TYPES[job.response_format],
                "usage": usage_of(state),
            }


async def _file_of(state: RequestState, response_format: str) -> bytes:
    num_bytes = await state.all_there()
    pieces: list[bytes] = []
    with Packer(response_format, num_bytes) as packer:
        while (samples := await state.next_audio()) is not None:
            pieces += [await packer.pack(samples[at : at + PIECE]) for at in range(0, len(samples), PIECE)]
        pieces.append(await packer.finish())
    return b"".join(pieces)


def _failed(index: int, error: LightTTSError) -> dict[str, object]:
    return {"index": index, "status": "error", "error": body_of(error)["error"]}
